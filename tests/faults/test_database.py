"""A database that is killed, frozen, cut, or out of reach for one gateway (F20 to F22, F102)."""

from __future__ import annotations

import signal
import time
from collections import Counter
from contextlib import suppress
from random import Random
from typing import Any

import psycopg
import pytest

from apps.billing.models import Entry, Hold
from tests.faults.load import check_refusals, first_success_after, steady_calls
from tests.faults.site import ROUNDS, SHORT_LEASE, Payer, Site, chat
from tests.support.chaos_proxy import ChaosProxy
from tests.support.gateway import GatewayProcess
from tests.support.processes import wait_until

pytestmark = [
    pytest.mark.slice,
    pytest.mark.postgres,
    pytest.mark.parametrize("number", range(ROUNDS)),
]
KILLED_SECONDS = 10.0
FROZEN_SECONDS = 20.0
CUT_SECONDS = 10.0
CUTS_MIN = 20
BACK_SECONDS_MAX = 5.0


def start(site: Site, payer: Payer, database_url: str = "") -> list[GatewayProcess]:
    """Start two gateways with streams on both, some of which end soon and some late."""
    models = [site.make_model(f"tokens={seconds * 10},pace=0.1") for seconds in (4, 7, 20)]
    gateways = site.start_gateways("a", "b", database_url=database_url)
    for model in models:
        for gateway in gateways:
            site.crowd.call(gateway.url, payer.key, chat(model, stream=True), count=10)
    wait_until(lambda: site.crowd.streaming == 60, timeout_seconds=10, what="the streams")
    return gateways


def test_a_database_that_is_killed_and_started_again(own_site: Site, number: int) -> None:
    site, server = own_site, own_site.database.server
    assert server is not None
    payer, quick = site.make_payer(), site.make_model("tokens=5")
    gateways = start(site, payer)

    with steady_calls(site, gateways, payer, quick, 3) as outcomes:
        server.stop("immediate")
        time.sleep(KILLED_SECONDS)
        server.restart()
        healed_at = time.monotonic()
        time.sleep(BACK_SECONDS_MAX)
    streams = site.crowd.wait(60)

    assert [one.is_whole for one in streams] == [True] * 60
    assert all("replaying" in gateway.log() for gateway in gateways)
    check_refusals(outcomes)
    back = first_success_after(outcomes, healed_at)
    assert back < BACK_SECONDS_MAX
    site.check_books(
        f"F20 database killed, calls again after {back:.1f} s, round {number}",
        [*streams, *outcomes],
        healed_at=healed_at,
    )


def test_a_database_that_is_frozen(own_site: Site, number: int) -> None:
    site, server = own_site, own_site.database.server
    assert server is not None
    payer, quick = site.make_payer(), site.make_model("tokens=5")
    gateways = start(site, payer)

    with steady_calls(site, gateways, payer, quick, 3) as outcomes:
        server.signal_all(signal.SIGSTOP)
        try:
            time.sleep(FROZEN_SECONDS)
        finally:
            server.signal_all(signal.SIGCONT)
        healed_at = time.monotonic()
        time.sleep(BACK_SECONDS_MAX)
    streams = site.crowd.wait(60)

    assert [one.is_whole for one in streams] == [True] * 60
    assert all("replaying" in gateway.log() for gateway in gateways)
    check_refusals(outcomes)
    back = first_success_after(outcomes, healed_at)
    assert back < BACK_SECONDS_MAX
    site.check_books(
        f"F21 database frozen, calls again after {back:.1f} s, round {number}",
        [*streams, *outcomes],
        healed_at=healed_at,
    )


@pytest.mark.parametrize("way", ["by the database", "in the network"])
def test_connections_that_are_cut_at_random(
    own_site: Site, number: int, chance: Random, way: str
) -> None:
    site, server = own_site, own_site.database.server
    assert server is not None
    payer, quick = site.make_payer(), site.make_model("tokens=5")
    proxy = ChaosProxy(server.port)
    proxy.start()
    try:
        is_near = way == "by the database"
        gateways = start(site, payer, "" if is_near else site.database_url_through(proxy.port))
        with (
            steady_calls(site, gateways, payer, quick, 4) as outcomes,
            psycopg.connect(**server.parameters("postgres"), autocommit=True) as executioner,
        ):
            until, cuts = time.monotonic() + CUT_SECONDS, 0
            while time.monotonic() < until:
                time.sleep(0.1)
                if is_near:
                    cuts += end_a_session(executioner, site.database.name, chance)
                else:
                    cuts += proxy.reset_one(chance)
            healed_at = time.monotonic()
            time.sleep(1.0)
        streams = site.crowd.wait(60)

        answers = Counter(one.status for one in outcomes)
        assert cuts >= CUTS_MIN
        assert [one.is_whole for one in streams] == [True] * 60
        assert answers.keys() <= {200, 503}
        assert answers[503] <= len(outcomes) // 100
        assert all("a batch of the ledger failed" in gateway.log() for gateway in gateways)
        back = first_success_after(outcomes, healed_at)
        assert back < BACK_SECONDS_MAX
        site.check_books(
            f"F22 connections cut {way}, calls again after {back:.1f} s, round {number}",
            [*streams, *outcomes],
            healed_at=healed_at,
            faults=cuts,
        )
    finally:
        for gateway in site.gateways.values():
            gateway.kill()
        proxy.stop()


def end_a_session(executioner: psycopg.Connection[Any], name: str, chance: Random) -> bool:
    """End one of the database's sessions; return whether there was one."""
    found = executioner.execute(
        "SELECT pid FROM pg_stat_activity WHERE datname = %s", (name,)
    ).fetchall()
    if found:
        executioner.execute("SELECT pg_terminate_backend(%s)", chance.choice(found))
    return bool(found)


@pytest.mark.parametrize("way", ["blackhole", "cut"])
def test_a_gateway_cut_from_the_database_while_another_reaps_its_holds(
    own_site: Site, number: int, way: str
) -> None:
    site, server = own_site, own_site.database.server
    assert server is not None
    payer = site.make_payer()
    ends_away, ends_later = (
        site.make_model(f"tokens={seconds * 10},pace=0.1") for seconds in (6, 22)
    )
    proxy = ChaosProxy(server.port)
    proxy.start()
    try:
        url = site.database_url_through(proxy.port)
        (away,) = site.start_gateways("away", plant=[SHORT_LEASE], database_url=url)
        site.start_gateways("other", plant=[SHORT_LEASE])
        for model in (ends_away, ends_later):
            site.crowd.call(away.url, payer.key, chat(model, stream=True), count=10)
        wait_until(lambda: site.crowd.streaming == 20, timeout_seconds=10, what="the streams")

        getattr(proxy, way)()
        wait_until(lambda: not Hold.objects.exists(), timeout_seconds=30, what="the reaper")
        time.sleep(2.0)
        proxy.heal()
        healed_at = time.monotonic()
        outcomes = site.crowd.wait(60)

        assert [one.is_whole for one in outcomes] == [True] * 20
        site.check_books(f"F102 {way}, round {number}", outcomes, healed_at=healed_at)
        assert Entry.objects.filter(kind="late").exclude(request_id=None).count() == 20
    finally:
        with suppress(RuntimeError):
            site.gateways["away"].kill()
        proxy.stop()
