"""A database that is full, slow, locked, or out of connections (F23, F24, F27, F31)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg
import pytest
from django.core.management import call_command
from pytest_django import DjangoDbBlocker

from apps.ai_models.models import AIModel
from apps.audit.models import APIRequest
from tests.faults.load import check_refusals, first_success_after, steady_calls
from tests.faults.machine import Ballast, small_disk
from tests.faults.site import Payer, Site, chat
from tests.support.chaos_proxy import ChaosProxy
from tests.support.databases import Database, TestDatabases
from tests.support.environment import session_directory, worker_name
from tests.support.gateway import GatewayProcess
from tests.support.postgres import PostgresServer
from tests.support.processes import wait_until

pytestmark = pytest.mark.postgres
CONNECTIONS = 8
LOCKED_SECONDS = 10.0
FULL_SECONDS = 12.0
BACK_SECONDS_MAX = 10.0
ROUND_TRIP_SECONDS = 0.2
# Of a hold, before a provider is asked: one that writes and commits. Where the ledger does not
# remember the account, one more before it, which begins, locks and reads.
ROUND_TRIPS = 1
ROUND_TRIPS_OF_STRANGERS = 2
TRIES = 8


def test_a_database_without_free_connections_refuses_only_who_has_none(own_site: Site) -> None:
    site, server = own_site, own_site.database.server
    assert server is not None
    payer, quick = site.make_payer(), site.make_model("tokens=5")
    name = site.database.name
    server.execute("DROP ROLE IF EXISTS tenant")
    server.execute("CREATE ROLE tenant LOGIN")
    server.execute("GRANT pg_read_all_data, pg_write_all_data TO tenant")
    server.execute("GRANT USAGE, CREATE ON SCHEMA public TO tenant", name)
    url = site.database.url.replace("postgres@", "tenant@")
    (gateway,) = site.start_gateways("a", database_url=url)
    server.execute(f'ALTER DATABASE "{name}" CONNECTION LIMIT {CONNECTIONS}')

    with steady_calls(site, [gateway], payer, quick, 4) as outcomes, ExitStack() as others:
        time.sleep(0.5)
        taken = _take_all(server, name, others)
        time.sleep(2.0)
        alone_until = time.monotonic()
        # The gateway loses what it has, and others take that, too.
        _end_connections(server, name)
        taken += _take_all(server, name, others)
        time.sleep(4.0)
        others.close()
        healed_at = time.monotonic()
        time.sleep(BACK_SECONDS_MAX / 2)

    began = [(one.ended_at - one.seconds, one) for one in outcomes]
    assert 0 < taken <= 2 * CONNECTIONS
    # Who has a connection goes on.
    assert {one.status for at, one in began if at < alone_until - 1.0} == {200}
    assert {one.status for at, one in began if alone_until + 1.0 < at < healed_at - 3.0} == {503}
    check_refusals(outcomes)
    back = first_success_after(outcomes, healed_at)
    assert back < BACK_SECONDS_MAX / 2
    site.check_books(
        f"F23 no connection left, calls again after {back:.1f} s", outcomes, healed_at=healed_at
    )


def _take_all(server: PostgresServer, name: str, others: ExitStack) -> int:
    parameters = {**server.parameters(name), "user": "tenant"}
    for taken in range(CONNECTIONS + 1):
        try:
            others.enter_context(psycopg.connect(**parameters, autocommit=True))
        except psycopg.OperationalError:
            return taken
    raise AssertionError("the limit did not hold")


def _end_connections(server: PostgresServer, name: str) -> None:
    with psycopg.connect(**server.parameters("postgres"), autocommit=True) as operator:
        operator.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
            "WHERE datname = %s AND usename = 'tenant' AND application_name = 'ledger_writer'",
            (name,),
        )


def test_a_table_that_is_locked_for_ten_seconds_piles_nothing_up(site: Site) -> None:
    payer, quick = site.make_payer(), site.make_model("tokens=5")
    streaming = site.make_model("tokens=40,pace=0.1")
    gateways = site.start_gateways("a", "b")
    for gateway in gateways:
        site.crowd.call(gateway.url, payer.key, chat(streaming, stream=True), count=10)
    wait_until(lambda: site.crowd.streaming == 20, timeout_seconds=20, what="the streams")
    locker = site.database.connect()

    with steady_calls(site, gateways, payer, quick, 10) as outcomes:
        time.sleep(0.5)
        threads = [_threads_of(gateway) for gateway in gateways]
        locker.execute("BEGIN")
        locker.execute("LOCK TABLE billing_account IN ACCESS EXCLUSIVE MODE")
        locked_at = time.monotonic()
        time.sleep(LOCKED_SECONDS)
        more = [_threads_of(gateway) for gateway in gateways]
        locker.execute("ROLLBACK")
        healed_at = time.monotonic()
        time.sleep(BACK_SECONDS_MAX / 2)
    locker.close()
    streams = site.crowd.wait(60)

    assert [one.is_whole for one in streams] == [True] * 20
    assert all(after <= before + 4 for before, after in zip(threads, more, strict=True))
    check_refusals(outcomes)
    refused = [one for one in outcomes if one.status == 503]
    assert min(one.ended_at for one in refused) - locked_at < 3.0
    back = first_success_after(outcomes, healed_at)
    assert back < BACK_SECONDS_MAX / 2
    site.check_books(
        f"F24 LOCK TABLE for {LOCKED_SECONDS:.0f} s, calls again after {back:.1f} s",
        [*streams, *outcomes],
        healed_at=healed_at,
    )


def _threads_of(gateway: GatewayProcess) -> int:
    return len(list(Path(f"/proc/{gateway.process.pid}/task").iterdir()))


@pytest.fixture
def small_server() -> Iterator[tuple[PostgresServer, Path]]:
    """A server whose data are on a disk of 300 MiB."""
    # The server runs as somebody else, who may not look into the folders of tests.
    with small_disk(session_directory() / f"disk-{worker_name()}", 300) as disk:
        server = PostgresServer.start(disk / "p")
        try:
            yield server, disk
        finally:
            server.stop("immediate")


def test_the_disk_of_the_database_is_full_for_a_while(
    small_server: tuple[PostgresServer, Path],
    test_databases: TestDatabases,
    django_db_blocker: DjangoDbBlocker,
    tmp_path: Path,
    fault_report: Callable[[str], None],
) -> None:
    server, disk = small_server
    server.execute("CREATE DATABASE small")
    database = Database("postgres", "small", server)
    test_databases.adopt(database)
    with django_db_blocker.unblock(), test_databases.selected(database):
        call_command("migrate", interactive=False, verbosity=0)
        site = Site(tmp_path, database, fault_report)
        try:
            site.start_provider()
            _fill_and_heal(site, disk)
        finally:
            site.stop()


def _fill_and_heal(site: Site, disk: Path) -> None:
    payer, quick = site.make_payer(), site.make_model("tokens=5")
    streaming = site.make_model("tokens=40,pace=0.1")
    (gateway,) = site.start_gateways("a")
    site.crowd.call(gateway.url, payer.key, chat(streaming, stream=True), count=20)
    wait_until(lambda: site.crowd.streaming == 20, timeout_seconds=20, what="the streams")
    ballast = Ballast(disk)

    with steady_calls(site, [gateway], payer, quick, 8) as outcomes:
        time.sleep(0.5)
        ballast.fill()
        full_until = time.monotonic() + FULL_SECONDS
        # What PostgreSQL had set aside is used up first.
        while time.monotonic() < full_until:
            time.sleep(0.5)
            ballast.fill()
        ballast.remove()
        healed_at = time.monotonic()
        time.sleep(BACK_SECONDS_MAX)
    streams = site.crowd.wait(60)

    assert {one.status for one in outcomes} <= {200, 503}
    assert [one.is_whole for one in streams] == [True] * 20
    back = first_success_after(outcomes, healed_at)
    assert back < BACK_SECONDS_MAX
    refused = sum(one.status == 503 for one in outcomes)
    assert refused
    site.check_books(
        f"F27 PostgreSQL's disk full, {refused} refused, calls again after {back:.1f} s",
        [*streams, *outcomes],
        healed_at=healed_at,
    )


def test_a_slow_database_costs_a_few_round_trips_before_the_first_byte(own_site: Site) -> None:
    site, server = own_site, own_site.database.server
    assert server is not None
    payer, strangers = site.make_payer(), [site.make_payer() for _ in range(TRIES)]
    quick, streaming = site.make_model("tokens=5"), site.make_model("tokens=20,pace=0.05")
    proxy = ChaosProxy(server.port)
    proxy.start()
    try:
        url = site.database_url_through(proxy.port)
        (gateway,) = site.start_gateways("a", database_url=url)
        again = [payer] * TRIES
        alone = _first_byte(site, gateway, again, quick)
        proxy.latency_seconds = ROUND_TRIP_SECONDS / 2
        slow = _first_byte(site, gateway, again, quick) - alone
        slow_at_first = _first_byte(site, gateway, strangers, quick) - alone
        site.crowd.call(gateway.url, payer.key, chat(streaming, stream=True), count=20)
        with steady_calls(site, [gateway], payer, quick, 20) as outcomes:
            time.sleep(8.0)
        streams = site.crowd.wait(60)
        proxy.latency_seconds = 0.0
        healed_at = time.monotonic()

        # Half of one more is for the machine, which is slower than itself now and then.
        assert slow < (ROUND_TRIPS + 0.5) * ROUND_TRIP_SECONDS
        assert slow_at_first < (ROUND_TRIPS_OF_STRANGERS + 0.5) * ROUND_TRIP_SECONDS
        assert {one.status for one in outcomes} == {200}
        assert [one.is_whole for one in streams] == [True] * 20
        site.check_books(
            f"F31 +{ROUND_TRIP_SECONDS * 1000:.0f} ms a round trip: +{slow:.2f} s before "
            f"the first byte, +{slow_at_first:.2f} s for a stranger, "
            f"slowest call {max(one.seconds for one in outcomes):.2f} s",
            [*streams, *outcomes],
            healed_at=healed_at,
        )
    finally:
        site.gateways["a"].kill()
        proxy.stop()


def _first_byte(site: Site, gateway: GatewayProcess, payers: list[Payer], model: AIModel) -> float:
    """Return after how many seconds the quickest of some streams, one by one, began.

    Others waited while the writer was asking whether its database is there.
    """
    found = []
    for payer in payers:
        site.crowd.call(gateway.url, payer.key, chat(model, stream=True))
        (outcome,) = site.crowd.wait(30)
        found.append(APIRequest.objects.get(pk=outcome.request_id).ttft_ms or 0)
    return min(found) / 1000
