"""A PostgreSQL whose standby takes over (F106)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from subprocess import CalledProcessError

import pytest
from django.core.management import call_command
from django.db import connection
from pytest_django import DjangoDbBlocker

from tests.faults.load import check_refusals, first_success_after, steady_calls
from tests.faults.site import Site, chat
from tests.support.chaos_proxy import ChaosProxy
from tests.support.databases import Database, TestDatabases
from tests.support.environment import session_directory, worker_name
from tests.support.postgres import PostgresServer
from tests.support.processes import wait_until

pytestmark = pytest.mark.postgres
NAME = "failover"
AWAY_SECONDS_MAX = 30.0


def stop(server: PostgresServer) -> None:
    with suppress(CalledProcessError):  # It has been stopped already.
        server.stop("immediate")


@pytest.fixture
def primary(
    test_databases: TestDatabases, django_db_blocker: DjangoDbBlocker
) -> Iterator[Database]:
    """A migrated database on a server of its own."""
    server = PostgresServer.start(session_directory() / f"primary-{worker_name()}")
    database = Database("postgres", NAME, server)
    try:
        server.execute(f"CREATE DATABASE {NAME}")
        test_databases.adopt(database)
        with django_db_blocker.unblock(), test_databases.selected(database):
            call_command("migrate", interactive=False, verbosity=0)
        yield database
    finally:
        stop(server)


def test_a_standby_takes_over_with_all_that_was_acknowledged(
    primary: Database,
    test_databases: TestDatabases,
    django_db_blocker: DjangoDbBlocker,
    tmp_path: Path,
    fault_report: Callable[[str], None],
) -> None:
    old = primary.server
    assert old is not None
    new = old.start_standby(session_directory() / f"standby-{worker_name()}")
    # Each commit waits until the standby has it on its disk.
    old.execute("ALTER SYSTEM SET synchronous_standby_names = '*'")
    old.execute("SELECT pg_reload_conf()")
    proxy = ChaosProxy(old.port)
    proxy.start()
    with ExitStack() as stack:
        stack.callback(stop, new)
        stack.callback(proxy.stop)
        stack.enter_context(django_db_blocker.unblock())
        stack.enter_context(test_databases.selected(primary))
        site = Site(tmp_path, primary, fault_report)
        stack.callback(site.stop)
        site.start_provider()
        _fail_over(site, old, new, proxy, stack, test_databases)


def _fail_over(
    site: Site,
    old: PostgresServer,
    new: PostgresServer,
    proxy: ChaosProxy,
    stack: ExitStack,
    test_databases: TestDatabases,
) -> None:
    payer, quick = site.make_payer(), site.make_model("tokens=5")
    streaming = site.make_model("tokens=80,pace=0.1")
    url = site.database_url_through(proxy.port)
    gateways = site.start_gateways("a", "b", database_url=url)
    for gateway in gateways:
        site.crowd.call(gateway.url, payer.key, chat(streaming, stream=True), count=10)
    wait_until(lambda: site.crowd.streaming == 20, timeout_seconds=20, what="the streams")
    connection.close()

    with steady_calls(site, gateways, payer, quick, 3) as outcomes:
        time.sleep(1.0)
        old.stop("immediate")
        dropped_at = time.monotonic()
        time.sleep(3.0)
        # The address leads to a standby that only reads before it leads to a primary.
        proxy.target_port = new.port
        proxy.reset()
        time.sleep(2.0)
        new.promote()
        promoted_at = time.monotonic()
        time.sleep(6.0)
    streams = site.crowd.wait(60)

    site.database = Database("postgres", NAME, new)
    stack.enter_context(test_databases.selected(site.database))
    assert [one.is_whole for one in streams] == [True] * 20
    check_refusals(outcomes)
    back = first_success_after(outcomes, dropped_at)
    assert back < AWAY_SECONDS_MAX
    # Who saw an end has paid exactly, on the server that is left.
    site.check_books(
        f"F106 a standby took over, calls again {back:.1f} s after the loss and "
        f"{dropped_at + back - promoted_at:.1f} s after the promotion",
        [*streams, *outcomes],
        healed_at=promoted_at,
    )
