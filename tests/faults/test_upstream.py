"""Providers that freeze, drip, cut, flood and are all down (F54 to F57, F60, F61, F66)."""

from __future__ import annotations

import signal
import statistics
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import psutil
import pytest

from apps.ai_models.models import Route
from apps.audit.models import APIRequest
from apps.billing.models import Hold
from tests.e2e.wire import RawConnection
from tests.faults.load import first_success_after, steady_calls
from tests.faults.site import Site, chat, raw_chat, upstream_name
from tests.support.chaos_proxy import ChaosProxy
from tests.support.gateway import GatewayProcess
from tests.support.processes import wait_until

LIMIT_SECONDS = 3.0
# The gateway looks twice a second.
SLACK_SECONDS = 1.5
MIB = 1 << 20
CUTS = 60
ANSWER = "tokens=5,latency=0.4"
DOWN_SECONDS = 60.0
BACK_SECONDS_MAX = 10.0
DRIPPING = 100
DRIP_RATIO_MAX = 1.1
PAIR_SECONDS = 3.0
PAIRS_MIN, PAIRS_MAX = 8, 24


def descriptors(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def test_a_provider_that_is_frozen_is_given_up_in_time_and_its_sockets_come_back(
    site: Site,
) -> None:
    payer = site.make_payer()
    provider = site.make_provider(
        first_byte_timeout_seconds=LIMIT_SECONDS, idle_timeout_seconds=LIMIT_SECONDS
    )
    quick = site.make_model("tokens=5", provider=provider)
    streaming = site.make_model("tokens=200,pace=0.1", provider=provider)
    (gateway,) = site.start_gateways("a")
    before = descriptors(gateway.process.pid)
    site.crowd.call(gateway.url, payer.key, chat(streaming, stream=True), count=20)
    wait_until(lambda: site.crowd.streaming == 20, timeout_seconds=20, what="the streams")
    time.sleep(1.0)

    site.provider_process.send_signal(signal.SIGSTOP)
    frozen_at = time.monotonic()
    site.crowd.call(gateway.url, payer.key, chat(quick), count=20)
    outcomes = site.crowd.wait(30)
    stalled = [one for one in outcomes if one.status == 200]
    unanswered = [one for one in outcomes if one.status == 504]
    time.sleep(1.0)
    after = descriptors(gateway.process.pid)
    site.provider_process.send_signal(signal.SIGCONT)
    healed_at = time.monotonic()
    wait_until(lambda: len(site.upstream_calls()) >= 20, timeout_seconds=10, what="the provider")

    assert (len(stalled), len(unanswered)) == (20, 20)
    assert not any(one.is_whole for one in stalled)
    waits = [one.ended_at - frozen_at for one in stalled] + [one.seconds for one in unanswered]
    assert min(waits) > LIMIT_SECONDS - 0.5
    assert max(waits) < LIMIT_SECONDS + SLACK_SECONDS
    # The clients have gone as well.
    assert after <= before + 5
    rows = APIRequest.objects.filter(model_id=streaming.pk)
    assert {row.state for row in rows} == {"upstream_interrupted"}
    assert all(0 < row.charge_nanos < row.hold_nanos for row in rows)
    assert not APIRequest.objects.filter(model_id=quick.pk).exclude(charge_nanos=0).exists()
    site.check_books(
        f"F54, F55 provider frozen, given up after {min(waits):.1f} to {max(waits):.1f} s",
        outcomes,
        healed_at=healed_at,
    )


def test_streams_that_drip_do_not_keep_others_waiting(site: Site) -> None:
    """Readings in pairs, since what else the machine does takes more time than this does."""
    payer, quick = site.make_payer(), site.make_model("tokens=5")
    drip = site.make_model("tokens=5,fault=drip(1)")
    (gateway,) = site.start_gateways("a")

    def slowest_but_one_percent() -> float:
        with steady_calls(site, [gateway], payer, quick, 4) as outcomes:
            time.sleep(PAIR_SECONDS)
        assert {one.status for one in outcomes} == {200}
        return statistics.quantiles([one.seconds for one in outcomes], n=100)[-1]

    slowest_but_one_percent()  # warms up
    ratios: list[float] = []
    while len(ratios) < PAIRS_MIN or statistics.median(ratios) > DRIP_RATIO_MAX:
        assert len(ratios) < PAIRS_MAX, ratios
        alone = slowest_but_one_percent()
        with _dripping(gateway, payer.key, chat(drip, stream=True)):
            ratios.append(slowest_but_one_percent() / alone)
            assert Hold.objects.count() == DRIPPING

    site.check_books(
        f"F56 99 % of other calls in {statistics.median(ratios):.2f} times as long while 100 "
        f"streams drip, in the median of {len(ratios)} pairs",
        [],
        healed_at=time.monotonic(),
    )


@contextmanager
def _dripping(gateway: GatewayProcess, key: str, body: dict[str, Any]) -> Iterator[None]:
    with ExitStack() as connections:
        for _ in range(DRIPPING):
            connection = connections.enter_context(RawConnection(gateway.port))
            connection.send(raw_chat(key, body))
        wait_until(lambda: Hold.objects.count() == DRIPPING, timeout_seconds=20, what="the streams")
        yield
    wait_until(lambda: not Hold.objects.exists(), timeout_seconds=20, what="their end")


def test_streams_that_drip_come_whole(site: Site) -> None:
    payer, drip = site.make_payer(), site.make_model("tokens=5,fault=drip(100)")
    (gateway,) = site.start_gateways("a")

    site.crowd.call(gateway.url, payer.key, chat(drip, stream=True), count=DRIPPING)
    outcomes = site.crowd.wait(120)

    assert [one.is_whole for one in outcomes] == [True] * DRIPPING
    site.check_books(
        f"F56 100 streams in single bytes, whole after "
        f"{max(one.seconds for one in outcomes):.0f} s",
        outcomes,
        healed_at=time.monotonic(),
    )


@pytest.mark.parametrize("ending", ["FIN", "RST"])
def test_an_answer_that_is_cut_anywhere_is_never_taken_for_complete(
    site: Site, ending: str
) -> None:
    payer = site.make_payer()
    proxy = ChaosProxy(site.provider_port)
    proxy.start()
    try:
        # No call is to be passed over because those before it failed.
        (gateway,) = site.start_gateways("a", constants={"apps.proxy.circuit:ERROR_SHARE": 2})
        provider = site.make_provider(port=proxy.port, failures_max=1_000_000)
        whole = site.make_model("tokens=6", provider=provider)
        fallback = site.make_model("tokens=6")
        streamed = site.make_model("tokens=6,fault=bad_utf8", provider=provider)
        failover = site.make_model("tokens=6", provider=provider)
        route = Route.objects.get(model=fallback)
        Route.objects.create(
            model=failover, provider=route.provider, upstream_name=route.upstream_name, priority=1
        )
        time.sleep(1.5)  # The gateway learns of them within a second.
        found: Counter[str] = Counter()
        proxy.is_reset = ending == "RST"
        outcomes = []
        for cut in range(CUTS):
            proxy.answer_bytes_max = 1 + cut * 37
            bodies = (chat(whole), chat(streamed, stream=True), chat(failover, stream=True))
            for body in bodies:
                site.crowd.call(gateway.url, payer.key, body)
            outcomes += site.crowd.wait(30)
        proxy.answer_bytes_max = None
        healed_at = time.monotonic()

        for one in outcomes:
            found[f"{one.status} {'whole' if one.is_whole else 'cut'}"] += 1
        assert found.keys() <= {"200 whole", "200 cut", "502 cut"}
        rows = {str(row.pk): row for row in APIRequest.objects.all()}
        for one in outcomes:
            row = rows[one.request_id]
            assert (row.state == "completed") == one.is_whole, row.state
            if one.status == 502:
                assert row.charge_nanos == 0
        # Where nothing had been shown, the next route has answered.
        last = APIRequest.objects.filter(model_id=failover.pk, attempt_count__gt=1)
        assert last.exclude(state="completed").count() == 0
        assert last.count() > 5
        site.check_books(
            f"F57 {ending} at {CUTS} places: {dict(found)}, {last.count()} answered by the next "
            f"route",
            outcomes,
            healed_at=healed_at,
            faults=3 * CUTS,
        )
    finally:
        proxy.stop()


FLOODS = {
    "a stream without an end": ("fault=never_end", True),
    "a line of a gibibyte": ("fault=huge_line(1073741824)", True),
    "a body of a gibibyte": ("fault=big_body(1073741824)", False),
    "a gzip bomb": ("fault=gzip_bomb(1073741824)", True),
    "a byte a chunk": ("tokens=300,fault=tiny_chunks", True),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_what_floods_the_gateway_takes_little_memory_and_leaves_others_their_turn(
    site: Site, flood: str
) -> None:
    wishes, is_stream = FLOODS[flood]
    payer, quick = site.make_payer(), site.make_model("tokens=5")
    provider = site.make_provider(total_timeout_seconds=6.0)
    flooding = site.make_model(wishes, provider=provider)
    (gateway,) = site.start_gateways("a", environment={"PAYLOADS": "off"})
    process = psutil.Process(gateway.process.pid)
    site.crowd.call(gateway.url, payer.key, chat(quick), count=20)
    warm = site.crowd.wait(30)
    before = most = process.memory_info().rss

    with steady_calls(site, [gateway], payer, quick, 2) as outcomes:
        site.crowd.call(gateway.url, payer.key, chat(flooding, stream=is_stream), count=4)
        until = time.monotonic() + 9.0
        while time.monotonic() < until:
            most = max(most, process.memory_info().rss)
            time.sleep(0.02)
    floods = site.crowd.wait(60)

    assert {one.status for one in outcomes} == {200}
    assert any(one.is_whole for one in floods) == (flood == "a byte a chunk")
    assert {one.status for one in floods} <= {200, 502}
    # A body may have 32 MiB, and four of them came at once.
    assert most - before < (200 if flood == "a body of a gibibyte" else 40) * MIB
    site.check_books(
        f"F60, F61 {flood}: memory +{(most - before) / MIB:.0f} MiB, slowest other call "
        f"{max(one.seconds for one in outcomes):.2f} s",
        [*warm, *outcomes],
        healed_at=time.monotonic(),
    )


def test_all_routes_are_down_for_a_while_and_answer_again(site: Site) -> None:
    payer = site.make_payer()
    # More than one call tries.
    providers = [site.make_provider() for _ in range(5)]
    model = site.make_model(f"{ANSWER},fault=status(503)", provider=providers[0])
    for provider in providers[1:]:
        site.add_route(model, f"{ANSWER},fault=status(503)", provider=provider)
    (gateway,) = site.start_gateways("a")
    process = psutil.Process(gateway.process.pid)

    used, begun = sum(process.cpu_times()[:2]), time.monotonic()
    # So many that a fifth of them is what bounds further attempts, and not the three that are
    # always allowed.
    with steady_calls(site, [gateway], payer, model, 40) as outcomes:
        time.sleep(DOWN_SECONDS)
        busy = (sum(process.cpu_times()[:2]) - used) / (time.monotonic() - begun)
        asked = site.attempts_upstream()
        # Only the last of them.
        last = Route.objects.filter(model=model).latest("priority")
        Route.objects.filter(pk=last.pk).update(upstream_name=upstream_name(ANSWER))
        healed_at = time.monotonic()
        wait_until(
            lambda: APIRequest.objects.filter(status_code=200).exists(),
            timeout_seconds=BACK_SECONDS_MAX,
            what="the first answer",
        )
        time.sleep(8.0)

    back = first_success_after(outcomes, healed_at)
    down = [one for one in outcomes if one.ended_at < healed_at]
    assert {(one.status, one.kind) for one in down} == {(503, "server_error")}
    assert {one.retry_after for one in down} == {1}
    assert len(down) > 100
    assert asked <= 1.2 * len(down)
    assert back < BACK_SECONDS_MAX
    # Once it is back it stays.
    assert {one.status for one in outcomes if one.ended_at > healed_at + back + 5.0} == {200}
    refused = APIRequest.objects.filter(status_code=503)
    assert not refused.exclude(charge_nanos=0).exists()
    site.check_books(
        f"F66 five routes down for {DOWN_SECONDS:.0f} s, {asked} attempts for {len(down)} calls, "
        f"processor {100 * busy:.0f} %, answered {back:.1f} s after the end",
        outcomes,
        healed_at=healed_at,
    )
