"""A machine that is switched off, and two gateways of which one is gone or knows something first
(F44, F95, F100, F101, F103).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from random import Random
from typing import Any

import pytest
from django.db import connection

from apps.api_keys.models import APIKey
from apps.audit.models import APIRequest
from apps.users.models import User
from tests.faults.crowd import Outcome
from tests.faults.front import needs_nginx, nginx
from tests.faults.load import steady_calls
from tests.faults.rest import ask, sign_in
from tests.faults.site import (
    INPUT_NANOS,
    OUTPUT_NANOS,
    PROMPT_TOKENS,
    ROUNDS,
    SHORT_LEASE,
    Payer,
    Site,
    chat,
)
from tests.support.chaos_proxy import ChaosProxy
from tests.support.gateway import GatewayProcess
from tests.support.people import PASSWORD, make_admin
from tests.support.processes import wait_until
from tests.support.redis import RedisServer, is_installed

pytestmark = pytest.mark.postgres
LOST_SECONDS_MAX = 2.0
SEEN_SECONDS_MAX = 5.0
CHARGE = PROMPT_TOKENS * INPUT_NANOS + 5 * OUTPUT_NANOS


@pytest.mark.skipif(not is_installed(), reason="redis-server is not installed")
@pytest.mark.parametrize("number", range(ROUNDS))
def test_a_machine_that_is_switched_off_comes_up_in_any_order(
    own_site: Site, tmp_path: Path, number: int, chance: Random
) -> None:
    site, server = own_site, own_site.database.server
    assert server is not None
    folder = tmp_path / "redis"
    folder.mkdir()
    redis_server = RedisServer.start(folder)
    environment = {"REDIS_URL": redis_server.url}
    payer, quick = site.make_payer(), site.make_model("tokens=5")
    streaming = site.make_model("tokens=200,pace=0.1")
    gateways = site.start_gateways("a", "b", plant=[SHORT_LEASE], environment=environment)
    for gateway in gateways:
        site.crowd.call(gateway.url, payer.key, chat(streaming, stream=True), count=20)
        site.crowd.call(gateway.url, payer.key, chat(quick), count=20)
    wait_until(lambda: site.crowd.streaming == 40, timeout_seconds=20, what="the streams")

    connection.close()
    for gateway in gateways:
        gateway.kill()
    site.provider_process.kill()
    server.stop("immediate")
    redis_server.stop()
    outcomes = site.crowd.wait(30)

    def start_gateway(name: str) -> Callable[[], object]:
        return lambda: site.start_gateways(name, plant=[SHORT_LEASE], environment=environment)

    starts: dict[str, Callable[[], object]] = {
        "a": start_gateway("a"),
        "b": start_gateway("b"),
        "database": server.restart,
        "redis": lambda: RedisServer.start(folder, redis_server.port),
        "provider": site.start_provider,
    }
    order = chance.sample(sorted(starts), len(starts))
    with ThreadPoolExecutor(len(order)) as threads:
        begun: dict[str, Future[object]] = {}
        for name in order:
            begun[name] = threads.submit(starts[name])
            time.sleep(1.5)
    started = begun["redis"].result()
    assert isinstance(started, RedisServer)
    healed_at = time.monotonic()
    try:
        for gateway in site.gateways.values():
            site.crowd.call(gateway.url, payer.key, chat(quick), count=10)
        after = site.crowd.wait(30)
        assert [one.status for one in after] == [200] * 20
        assert sum(one.is_whole for one in outcomes) <= 40
        site.check_books(
            f"F95 all killed, started as {', '.join(order)}, round {number}",
            [*outcomes, *after],
            healed_at=healed_at,
            faults=5,
        )
    finally:
        started.stop()


@needs_nginx
def test_a_balancer_sends_calls_to_the_gateway_that_is_left(site: Site) -> None:
    payer, quick = site.make_payer(), site.make_model("tokens=5,latency=0.1")
    gateways = site.start_gateways("a", "b", plant=[SHORT_LEASE])

    with nginx(site.directory / "front", gateways) as port:
        is_over = False
        loops: list[Future[list[Outcome]]] = [
            site.crowd.repeat(
                f"http://127.0.0.1:{port}", payer.key, chat(quick), until=lambda: is_over
            )
            for _ in range(12)
        ]
        time.sleep(2.0)
        gateways[0].kill()
        killed_at = time.monotonic()
        time.sleep(4.0)
        is_over = True
        outcomes = [outcome for loop in loops for outcome in loop.result(60)]
    healed_at = time.monotonic()

    began = [(one.ended_at - one.seconds, one) for one in outcomes]
    failed = [one for _, one in began if one.status != 200]
    late = [one for at, one in began if at > killed_at + LOST_SECONDS_MAX]
    assert len(failed) <= 12
    assert {one.status for one in failed} <= {502, 503, 0}
    assert len(late) > 12
    assert {one.status for one in late} == {200}
    site.check_books(
        f"F100 one of two killed behind nginx, {len(failed)} calls in flight failed",
        outcomes,
        healed_at=healed_at,
    )


def test_a_gateway_without_its_database_says_so_and_blames_no_client(own_site: Site) -> None:
    site, server = own_site, own_site.database.server
    assert server is not None
    payer, quick = site.make_payer(), site.make_model("tokens=5")
    proxy = ChaosProxy(server.port)
    proxy.start()
    try:
        url = site.database_url_through(proxy.port)
        (cut,) = site.start_gateways("cut", database_url=url)
        (other,) = site.start_gateways("other")
        with (
            steady_calls(site, [cut], payer, quick, 3) as there,
            steady_calls(site, [other], payer, quick, 3) as elsewhere,
        ):
            time.sleep(0.5)
            proxy.cut()
            cut_at = time.monotonic()
            wait_until(
                lambda: cut.get("/readyz") == 503,
                timeout_seconds=LOST_SECONDS_MAX + 1,
                what="503 from /readyz",
            )
            lost_after = time.monotonic() - cut_at
            time.sleep(3.0)
            seen = {path: cut.get(path, payer.key) for path in ("/livez", "/v1/models")}
            ready = (cut.get("/readyz"), other.get("/readyz"))
            proxy.heal()
            healed_at = time.monotonic()
            wait_until(
                lambda: cut.get("/readyz") == 200, timeout_seconds=10, what="200 from /readyz"
            )
            time.sleep(1.0)

        assert lost_after <= LOST_SECONDS_MAX
        assert seen == {"/livez": 200, "/v1/models": 200}
        assert ready == (503, 200)
        assert {one.status for one in there} == {200, 503}
        assert {one.status for one in elsewhere} == {200}
        site.check_books(
            f"F101 one of two cut from the database, not ready after {lost_after:.2f} s",
            [*there, *elsewhere],
            healed_at=healed_at,
        )
    finally:
        site.gateways["cut"].kill()
        proxy.stop()


def test_what_is_changed_on_one_gateway_counts_on_the_other_within_seconds(site: Site) -> None:
    make_admin(username="root", password=PASSWORD)
    model = site.make_model("tokens=5")
    streaming = site.make_model("tokens=80,pace=0.1")
    revoked, banned, poor = (site.make_payer() for _ in range(3))
    here, there = site.start_gateways("here", "there")
    token = sign_in(here)
    for payer in (revoked, banned, poor):
        site.crowd.call(there.url, payer.key, chat(streaming, stream=True), count=5)
    wait_until(lambda: site.crowd.streaming == 15, timeout_seconds=20, what="the streams")

    waits = {
        "price": _change(
            lambda: ask(
                here,
                "PATCH",
                f"/api/admin/models/{model.pk}/",
                token,
                {"prices": {"input": "0.5", "output": "2"}},
            ),
            lambda: _charge_of(there, poor, chat(model)) == CHARGE // 2,
        ),
        "key": _change(
            lambda: ask(
                here,
                "PATCH",
                f"/api/admin/keys/{_key_of(revoked).pk}/",
                token,
                {"is_active": False},
            ),
            lambda: there.get("/v1/models", revoked.key) == 401,
        ),
        "user": _change(
            lambda: ask(
                here,
                "PATCH",
                f"/api/admin/users/{_key_of(banned).user_id}/",
                token,
                {"is_active": False},
            ),
            lambda: there.get("/v1/models", banned.key) in (401, 403),
        ),
        "balance": _change(
            lambda: ask(
                here,
                "POST",
                f"/api/admin/users/{_key_of(poor).user_id}/adjust-balance/",
                token,
                {"amount": "-99.65", "reason": "a chargeback"},
            ),
            lambda: _call(there, poor, chat(model, max_tokens=16_000)) == 429,
        ),
    }
    streams = site.crowd.wait(60)

    # What runs has its hold, and runs on to its end.
    assert [one.is_whole for one in streams] == [True] * 15
    assert max(waits.values()) < SEEN_SECONDS_MAX
    told = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in waits.items())
    site.check_books(
        f"F44, F103 changed on one gateway, in effect on the other: {told}",
        streams,
        healed_at=time.monotonic(),
        faults=len(waits),
    )


def _change(change: Callable[[], tuple[int, object]], is_seen: Callable[[], bool]) -> float:
    status, answer = change()
    assert status in (200, 201), answer
    begun = time.monotonic()
    wait_until(is_seen, timeout_seconds=2 * SEEN_SECONDS_MAX, what="the change")
    return time.monotonic() - begun


def _key_of(payer: Payer) -> APIKey:
    user = User.objects.get(customer_id=payer.customer_id)
    return APIKey.objects.get(user=user)


def _call(gateway: GatewayProcess, payer: Payer, body: dict[str, Any]) -> int:
    return ask(gateway, "POST", "/v1/chat/completions", payer.key, body)[0]


def _charge_of(gateway: GatewayProcess, payer: Payer, body: dict[str, Any]) -> int:
    assert _call(gateway, payer, body) == 200
    rows = APIRequest.objects.filter(customer_id=payer.customer_id, is_stream=False)
    return rows.latest("started_at").charge_nanos
