"""Strategies, stickiness, overrides, limits of providers, and answers read on for who has left.

Over 400 lines because all of them share one stage of providers.
"""

from __future__ import annotations

import itertools
import time
from collections import Counter
from pathlib import Path
from typing import Any

import orjson
import pytest

from apps.ai_models.catalogue import set_price
from apps.ai_models.models import AIModel, Route
from apps.providers.credentials import add_key
from apps.providers.models import Provider, ProviderKey
from tests.e2e.answers import HttpAnswer, ask
from tests.e2e.wire import RawConnection, open_stream, post
from tests.support.bench import INPUT_NANOS, OUTPUT_NANOS, Bench, Stage, open_bench
from tests.support.databases import Database
from tests.support.gateway import FAST, DemoThread
from tests.support.processes import wait_until

CONSTANTS = {**FAST, "apps.proxy.gateway:READ_SECONDS": 0.1}
CHAT = "/v1/chat/completions"
SECRETS = ("sk-first-key-of-a-provider-0123456789", "sk-second-key-of-a-provider-0123456789")
_numbers = itertools.count(1)


def chat(stage: Stage, *, headers: dict[str, str] | None = None, **values: Any) -> HttpAnswer:
    """Make a call."""
    return ask(
        stage.bench.gateway,
        "POST",
        CHAT,
        headers={**stage.caller.headers, **(headers or {})},
        body=orjson.dumps(stage.body(**values)),
    )


def add_route(stage: Stage, wishes: str = "prompt=10", **values: Any) -> tuple[Route, str]:
    """Give a stage's model another route of the same priority; return it and its upstream name."""
    name = f"demo-chat-route-{next(_numbers)}:{wishes}"
    values = {"provider": stage.bench.provider, **values}
    return Route.objects.create(model=stage.model, upstream_name=name, **values), name


def settle_configuration(bench: Bench) -> None:
    """Return when the gateway has seen every change: a key that is made after them is known."""
    bench.make_caller(0)


def count_calls(bench: Bench, *names: str) -> list[int]:
    return [len(bench.demo.ended(name)) for name in names]


# ---- strategies


def test_the_cheapest_route_is_asked(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10")
    dear = stage.model.routes.get()
    cheap, cheap_name = add_route(stage)
    for route, nanos in ((dear, 5_000_000_000), (cheap, 1_000_000_000)):
        set_price(route=route, prices={"input": nanos, "output": nanos})
    AIModel.objects.filter(pk=stage.model.pk).update(strategy="least_cost")
    settle_configuration(bench)

    statuses = [chat(stage).status for _ in range(5)]

    assert statuses == [200] * 5
    assert count_calls(bench, stage.upstream_name, cheap_name) == [0, 5]


def test_the_quickest_route_is_asked_when_both_were_tried(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10,latency=0.4")
    _, quick_name = add_route(stage)
    AIModel.objects.filter(pk=stage.model.pk).update(strategy="least_latency")
    settle_configuration(bench)

    statuses = [chat(stage).status for _ in range(30)]

    slow, quick = count_calls(bench, stage.upstream_name, quick_name)
    assert statuses == [200] * 30
    assert slow + quick == 30
    # Tried once, and by one call in fifty (half of them) afterwards.
    assert 1 <= slow <= 5


# ---- stickiness


def test_a_conversation_stays_with_its_route_and_key(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10")
    provider = bench.make_provider(secret=SECRETS[0])
    add_key(provider=provider, secret=SECRETS[1])
    _, second_name = add_route(stage, provider=provider)
    AIModel.objects.filter(pk=stage.model.pk).update(is_sticky=True)
    settle_configuration(bench)

    for number in range(12):
        for _ in range(3):
            headers = {"x-session-id": f"conversation {number}"}
            assert chat(stage, headers=headers, metadata={"n": str(number)}).status == 200

    calls = [*stage.upstream_calls, *bench.demo.ended(second_name)]
    places: dict[str, Counter[tuple[str | None, str | None]]] = {}
    for call in calls:
        counter = places.setdefault(call["body"]["metadata"]["n"], Counter())
        counter[call["model"], call["authorization_sha256"]] += 1
    assert sorted(map(len, places.values())) == [1] * 12
    assert {name for counter in places.values() for name, _ in counter} == {
        stage.upstream_name,
        second_name,
    }


# ---- overrides


def test_overrides_change_the_request_and_are_on_record(bench: Bench) -> None:
    provider = bench.make_provider(headers={"x-team": "research", "x-gone": "1"})
    stage = bench.stage("demo-chat:prompt=10", provider=provider)
    stage.model.routes.update(
        overrides={
            "parameters": {
                "set": {"seed": 7},
                "default": {"temperature": 0.5, "top_p": 0.1},
                "remove": ["logit_bias"],
                "rename": {"reasoning_effort": "effort"},
            },
            "headers": {"set": {"user-agent": "gateway/1"}, "remove": ["x-gone", "accept"]},
        }
    )
    settle_configuration(bench)

    answer = chat(stage, top_p=0.9, logit_bias={"1": 1}, reasoning_effort="low", stream=True)

    assert answer.status == 200
    (call,) = stage.upstream_calls
    sent = {name: call["body"].get(name) for name in ("seed", "temperature", "top_p", "effort")}
    assert sent == {"seed": 7, "temperature": 0.5, "top_p": 0.9, "effort": "low"}
    assert call["body"].keys().isdisjoint({"logit_bias", "reasoning_effort"})
    assert call["body"]["model"] == stage.upstream_name
    headers = call["request_headers"]
    assert (headers["x-team"], headers["user-agent"]) == ("research", "gateway/1")
    assert headers.keys().isdisjoint({"x-gone", "accept"})
    (attempt,) = stage.settled().attempts
    assert attempt.changes == (
        "remove logit_bias; rename reasoning_effort to effort; default temperature=0.5; "
        "set seed=7; headers accept, user-agent, x-gone, x-team"
    )


def test_a_route_whose_stored_overrides_touch_money_is_not_used(bench: Bench) -> None:
    stage = bench.stage()
    stage.model.routes.update(overrides={"parameters": {"set": {"max_tokens": 100_000}}})
    settle_configuration(bench)

    answer = chat(stage)

    assert (answer.status, answer.error["code"]) == (503, "model_not_available")
    assert stage.upstream_calls == []


# ---- limits of providers


def limited_stage(bench: Bench, **limits: Any) -> tuple[Stage, Provider]:
    provider = bench.make_provider(**limits)
    return bench.stage("demo-chat:prompt=984,tokens=16", provider=provider), provider


def test_a_provider_at_its_requests_a_minute_is_passed_over_then_all_are(bench: Bench) -> None:
    stage, _ = limited_stage(bench, rpm=2)
    other = bench.make_provider(rpm=1)
    _, other_name = add_route(stage, provider=other, priority=5)
    settle_configuration(bench)

    answers = [chat(stage) for _ in range(5)]

    assert [answer.status for answer in answers] == [200, 200, 200, 503, 503]
    assert answers[3].error["code"] == "server_is_overloaded"
    assert 50 <= int(answers[3].headers["retry-after"]) <= 60
    assert count_calls(bench, stage.upstream_name, other_name) == [2, 1]
    statement = stage.settled(3)
    # What was refused before a hold is counted, not recorded.
    assert len(statement.rows) == len(statement.entries) == 3
    assert statement.held_nanos == 0


def test_tokens_a_minute_count_what_was_used(bench: Bench) -> None:
    # A call uses 1000 tokens; what is reserved for it is far less.
    stage, _ = limited_stage(bench, tpm=1_500)

    statuses = [chat(stage).status for _ in range(3)]

    assert statuses == [200, 200, 503]


def test_a_stream_keeps_its_place_until_it_ends(bench: Bench) -> None:
    provider = bench.make_provider(concurrency=1)
    stage, other = bench.stages("demo-chat:fault=stall_after(2)", "demo-chat", provider=provider)

    with RawConnection(bench.gateway.port) as running:
        running.send(post(stage.caller, stage.body(stream=True)))
        running.read_until(b'"This"')
        refused = chat(other)

    assert (refused.status, refused.headers["retry-after"]) == (503, "1")
    wait_until(lambda: chat(other).status == 200, timeout_seconds=5, what="the end of the stream")


def test_a_failed_attempt_gives_its_place_back(bench: Bench) -> None:
    provider = bench.make_provider(concurrency=1)
    stage = bench.stage(
        "demo-chat:fault=status(500)", provider=provider, fallbacks=[("demo-chat", provider)]
    )

    assert chat(stage).status == 200


def test_the_keys_of_a_provider_have_limits_of_their_own(bench: Bench) -> None:
    provider = bench.make_provider(secret=SECRETS[0])
    add_key(provider=provider, secret=SECRETS[1], rpm=2)
    ProviderKey.objects.filter(provider=provider, rpm=None).update(rpm=1)
    stage = bench.stage("demo-chat", provider=provider)

    statuses = [chat(stage).status for _ in range(4)]

    assert statuses == [200, 200, 200, 503]
    used = Counter(call["authorization_sha256"] for call in stage.upstream_calls)
    assert sorted(used.values()) == [1, 2]


@pytest.mark.parametrize("of", ["provider", "provider key"])
def test_a_provider_that_has_billed_its_day_is_passed_over(bench: Bench, of: str) -> None:
    stage, provider = limited_stage(bench)
    set_price(
        route=stage.model.routes.get(),
        prices={"input": 1_000_000_000, "output": 1_000_000_000},
    )
    # A call is billed 1,000,000 nanos.
    if of == "provider":
        Provider.objects.filter(pk=provider.pk).update(daily_cost_nanos=1_500_000)
    else:
        provider.keys.update(daily_cost_nanos=1_500_000)
    settle_configuration(bench)

    first = chat(stage).status
    time.sleep(0.5)
    second = chat(stage).status
    wait_until(lambda: chat(stage).status == 503, timeout_seconds=5, what="the sum of the day")

    assert (first, second) == (200, 200)
    assert chat(stage).headers["retry-after"] == "60"


def test_what_runs_in_the_background_outlasts_a_bug(
    committed_db: Database, demo: DemoThread, tmp_path: Path
) -> None:
    constants = {**CONSTANTS, "apps.proxy.gateway:RENEW_SECONDS": 0.2}
    plant = ["tests.e2e.planted:break_background"]
    bench = open_bench(tmp_path, committed_db, demo, constants=constants, plant=plant)
    try:
        provider = bench.make_provider(daily_cost_nanos=0, first_byte_timeout_seconds=0.5)
        spent = bench.stage(provider=provider)
        silent = bench.stage(
            "demo-chat:latency=20",
            provider=bench.make_provider(first_byte_timeout_seconds=0.5),
        )

        wait_until(lambda: chat(spent).status == 503, timeout_seconds=5, what="the sum of the day")
        begun = time.monotonic()
        status = chat(silent).status
        took = time.monotonic() - begun
        log = bench.gateway.log()
    finally:
        bench.gateway.stop()

    assert status == 504
    assert took < 5.0
    for line in ("daily costs", "limits", "a call"):
        assert log.count(f"{line} cannot be ") == 1


# ---- clients that leave


def test_an_answer_is_read_on_for_its_exact_usage(bench: Bench) -> None:
    provider = bench.make_provider(leaving_policy="drain", drain_seconds=10)
    stage = bench.stage("demo-chat:prompt=10,tokens=30,pace=0.02", provider=provider)
    connection = open_stream(stage)
    connection.read_until(b'"This"')

    connection.close()

    statement = stage.settled()
    (call,) = stage.upstream_calls
    assert call["ended"] == "done"
    assert statement.states == ("client_disconnected",)
    row = statement.rows[0]
    assert (row.status_code, row.usage_source, row.output_tokens) == (499, "reported", 30)
    assert statement.charges == (10 * INPUT_NANOS + 30 * OUTPUT_NANOS,)
    assert (statement.held_nanos, statement.holds) == (0, 0)


def test_a_whole_answer_is_waited_for_and_paid_for(bench: Bench) -> None:
    provider = bench.make_provider(leaving_policy="drain", drain_seconds=10)
    stage = bench.stage("demo-chat:prompt=10,tokens=30,latency=0.5", provider=provider)
    connection = RawConnection(bench.gateway.port)
    connection.send(post(stage.caller, stage.body()))
    wait_until(
        lambda: bool(bench.demo.calls(stage.upstream_name)), timeout_seconds=5, what="the call"
    )

    connection.reset()

    statement = stage.settled()
    assert statement.states == ("client_disconnected",)
    assert statement.charges == (10 * INPUT_NANOS + 30 * OUTPUT_NANOS,)


@pytest.mark.usefixtures("counting")
def test_it_is_read_on_no_longer_than_the_provider_says(bench: Bench) -> None:
    provider = bench.make_provider(leaving_policy="drain", drain_seconds=0.5)
    stage = bench.stage("demo-chat:fault=stall_after(2)", provider=provider)
    connection = open_stream(stage)
    connection.read_until(b'"This"')

    left_at = time.time()
    connection.close()

    statement = stage.settled()
    (call,) = stage.upstream_calls
    assert call["ended"] == "client_closed"
    assert call["client_closed_at"] is not None
    assert 0.4 < call["client_closed_at"] - left_at < 1.5
    assert statement.states == ("client_disconnected",)
    assert statement.rows[0].usage_source == "estimated"
    # Counted: ten tokens with their template, and the word that came.
    assert statement.charges == (10 * INPUT_NANOS + OUTPUT_NANOS,)


def test_no_other_route_is_tried_for_a_client_that_left(bench: Bench) -> None:
    provider = bench.make_provider(leaving_policy="drain", drain_seconds=10)
    stage = bench.stage(
        "demo-chat:latency=0.5,fault=status(500)",
        provider=provider,
        fallbacks=[(f"demo-chat-spare-{next(_numbers)}", None)],
    )
    spare = stage.model.routes.get(priority=1).upstream_name
    connection = RawConnection(bench.gateway.port)
    connection.send(post(stage.caller, stage.body()))
    wait_until(
        lambda: bool(bench.demo.calls(stage.upstream_name)), timeout_seconds=5, what="the call"
    )

    connection.close()

    statement = stage.settled()
    assert statement.states == ("client_disconnected",)
    assert statement.charges == (0,)
    assert bench.demo.calls(spare) == []


def test_a_client_that_stalls_is_cut_whatever_the_policy(bench: Bench) -> None:
    provider = bench.make_provider(
        leaving_policy="drain", drain_seconds=60, idle_timeout_seconds=0.4
    )
    stage = bench.stage("demo-chat:fault=never_end", provider=provider)

    with RawConnection(bench.gateway.port, receive_buffer=4096) as connection:
        connection.send(post(stage.caller, stage.body(stream=True, max_tokens=100)))
        connection.read_until(b"more")
        statement = stage.settled()

    assert statement.states == ("client_disconnected",)
    assert stage.upstream_calls[0]["ended"] == "client_closed"


def test_a_gateway_that_stops_does_not_wait_for_the_rest_of_an_answer(
    committed_db: Database, demo: DemoThread, tmp_path: Path
) -> None:
    bench = open_bench(tmp_path, committed_db, demo)
    try:
        provider = bench.make_provider(leaving_policy="drain", drain_seconds=600)
        stage = bench.stage("demo-chat:fault=stall_after(2)", provider=provider)
        connection = open_stream(stage)
        connection.read_until(b'"This"')
        connection.close()
        time.sleep(0.3)
        running = bench.demo.calls(stage.upstream_name)[0]["ended"]
    finally:
        bench.gateway.stop()

    # Within DRAIN_SECONDS (2) and what it takes to stop: it would have waited for ten minutes.
    statement = stage.settled()
    assert running is None
    assert statement.states == ("client_disconnected",)
    assert statement.rows[0].usage_source == "estimated"
    assert statement.rows[0].duration_ms < 15_000
