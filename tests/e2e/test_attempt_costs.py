"""What attempts cost the operator, and that the client pays for one of them (I-23)."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import orjson
import pytest

from apps.ai_models.catalogue import set_price
from apps.ai_models.models import Route
from apps.billing.explanation import Adjustment, explain_request
from apps.billing.verification import report
from apps.core.price_terms import ServiceTier, Terms
from apps.providers.models import Provider
from tests.e2e.answers import ask
from tests.e2e.raw_upstream import Heard, RawUpstream, completion, respond, usage_chunk
from tests.e2e.wire import RawConnection, post
from tests.support.bench import INPUT_NANOS, OUTPUT_NANOS, Bench, Stage
from tests.support.processes import free_port, wait_until

CHAT = "/v1/chat/completions"
CHARGE = 10 * INPUT_NANOS + 16 * OUTPUT_NANOS
# Nanos per million tokens: an answer of ten and sixteen tokens costs 10 × 300 + 16 × 700.
COSTS = {"input": 300_000_000, "output": 700_000_000}
COST = 14_200
# The same at the provider that fails: 10 × 50 + 16 × 100.
LOST_COSTS = {"input": 50_000_000, "output": 100_000_000}
LOST_COST = 2_100
SECOND = "demo-chat-second:prompt=10"


def tell_usage_and_break(heard: Heard) -> list[bytes]:
    """Begin a stream with its usage, and say no more."""
    return [respond(usage_chunk(), kind="text/event-stream")]


@pytest.fixture(scope="module")
def breaking(module_bench: Bench) -> Iterator[Provider]:
    """Run a provider whose answers break after their usage."""
    with RawUpstream(tell_usage_and_break) as upstream:
        yield module_bench.make_provider(upstream.base_url)


def price(bench: Bench, stage: Stage, *prices: dict[str, int] | None) -> None:
    """Set what the routes of a stage cost, and wait until the gateway knows it."""
    routes = Route.objects.filter(model=stage.model).order_by("priority", "pk")
    for route, found in zip(routes, prices, strict=True):
        if found is not None:
            set_price(route=route, prices=found)
    bench.make_caller()


def call(stage: Stage, *, is_stream: bool = True) -> int:
    """Make a call and return its status."""
    body = orjson.dumps(stage.body(stream=is_stream))
    headers = stage.caller.headers
    return ask(stage.bench.gateway, "POST", CHAT, headers=headers, body=body).status


def test_the_client_pays_the_answer_and_the_operator_every_attempt(
    bench: Bench, breaking: Provider
) -> None:
    stage = bench.stage(
        "raw", provider=breaking, fallbacks=[("raw-too", breaking), (SECOND, bench.provider)]
    )
    price(bench, stage, LOST_COSTS, LOST_COSTS, COSTS)

    status = call(stage)

    statement = stage.settled()
    (row,) = statement.rows
    assert status == 200
    assert statement.charges == (CHARGE,)
    assert statement.entries == (("charge", -CHARGE),)
    assert [attempt.cost_nanos for attempt in statement.attempts] == [LOST_COST, LOST_COST, COST]
    assert row.cost_nanos == 2 * LOST_COST + COST
    cost = explain_request(row, statement.attempts).cost
    assert cost is not None
    assert sum(line.amount_nanos for line in cost.lines) == COST
    assert cost.adjustments == (
        Adjustment(
            "other_attempts",
            2 * LOST_COST,
            "What attempts cost that led to nothing: the client does not pay for them.",
        ),
    )
    assert cost.total_nanos == 2 * LOST_COST + COST
    found = report(is_full=True, anchors_path=Path("/nonexistent"), now=datetime.now(UTC))
    assert found.findings == ()


@pytest.mark.parametrize(
    ("served", "cost", "terms"),
    [
        ("priority", 2 * COST, ("service tier priority",)),
        ("default", COST, ()),
        # What its price does not name costs what the client is charged by.
        ("scale", COST, ()),
    ],
)
def test_a_provider_bills_the_tier_that_it_served_whatever_the_client_pays(
    bench: Bench, served: str, cost: int, terms: tuple[str, ...]
) -> None:
    answer = {**orjson.loads(completion("Hello there.")), "service_tier": served}
    with RawUpstream(lambda heard: [respond(orjson.dumps(answer))]) as upstream:
        stage = bench.stage("raw", provider=bench.make_provider(upstream.base_url))
        route = Route.objects.get(model=stage.model)
        dearer = Terms(service_tiers=(ServiceTier("priority", 2_000_000),))
        set_price(route=route, prices=COSTS, terms=dearer)
        bench.make_caller()

        status = call(stage, is_stream=False)

    statement = stage.settled()
    (row,) = statement.rows
    assert (status, statement.charges, row.service_tier) == (200, (CHARGE,), "")
    assert row.cost_nanos == cost
    explained = explain_request(row, statement.attempts).cost
    assert explained is not None
    assert (explained.total_nanos, explained.adjustments, explained.terms) == (cost, (), terms)


def test_a_call_that_nobody_answered_is_free_and_may_cost_the_operator(
    bench: Bench, breaking: Provider
) -> None:
    stage = bench.stage("raw", provider=breaking, fallbacks=[("demo-chat:fault=status(500)", None)])
    price(bench, stage, LOST_COSTS, COSTS)

    status = call(stage)

    statement = stage.settled()
    assert status == 502
    assert (statement.charges, statement.entries) == ((0,), ())
    assert [attempt.cost_nanos for attempt in statement.attempts] == [LOST_COST, 0]
    assert statement.rows[0].cost_nanos == LOST_COST


# What an attempt cost that failed without a word about usage: nothing, or nobody knows.
FAILURES = {
    "status(400)": 0,
    "status(500)": 0,
    "status(429)": 0,
    "err_event_first": 0,
    "cut_after(0)": None,
    "stall_after(0)": None,
    "html": None,
}


@pytest.mark.parametrize("fault", FAILURES)
def test_a_failed_attempt_is_free_where_that_is_certain(bench: Bench, fault: str) -> None:
    provider = bench.make_provider(first_byte_timeout_seconds=0.4, idle_timeout_seconds=0.4)
    stage = bench.stage(f"demo-chat:fault={fault}", provider=provider, fallbacks=[(SECOND, None)])
    price(bench, stage, LOST_COSTS, COSTS)
    is_final = fault == "status(400)"

    status = call(stage)

    statement = stage.settled()
    costs = [attempt.cost_nanos for attempt in statement.attempts]
    assert status == (400 if is_final else 200)
    assert costs == ([0] if is_final else [FAILURES[fault], COST])
    assert statement.charges == (0 if is_final else CHARGE,)
    assert statement.rows[0].cost_nanos == (0 if is_final else COST)


def test_a_provider_that_never_got_the_request_bills_nothing(bench: Bench) -> None:
    provider = bench.make_provider(f"http://127.0.0.1:{free_port()}/v1")
    stage = bench.stage(provider=provider, fallbacks=[(SECOND, None)])
    price(bench, stage, LOST_COSTS, COSTS)

    status = call(stage, is_stream=False)

    statement = stage.settled()
    assert status == 200
    assert [attempt.cost_nanos for attempt in statement.attempts] == [0, COST]
    assert (statement.charges, statement.rows[0].cost_nanos) == ((CHARGE,), COST)


def test_without_the_provider_s_price_the_cost_of_an_answer_is_not_known(bench: Bench) -> None:
    stage = bench.stage("demo-chat:fault=status(500)", fallbacks=[(SECOND, None)])

    status = call(stage)

    statement = stage.settled()
    assert status == 200
    assert [attempt.cost_nanos for attempt in statement.attempts] == [0, None]
    assert (statement.charges, statement.rows[0].cost_nanos) == ((CHARGE,), None)


@pytest.mark.parametrize(
    ("wishes", "seen", "charge", "cost"),
    [
        # Ten tokens were read and one was written, as far as anybody saw.
        ("fault=stall_after(2)", b'"This"', 10 * INPUT_NANOS + OUTPUT_NANOS, 3_700),
        # Cut off before anything was said: nothing is charged, and nobody knows the cost.
        ("latency=30", b"", 0, None),
    ],
)
@pytest.mark.usefixtures("counting")
def test_what_an_attempt_cost_whose_client_left(
    bench: Bench, wishes: str, seen: bytes, charge: int, cost: int | None
) -> None:
    stage = bench.stage(f"demo-chat:{wishes}")
    price(bench, stage, COSTS)

    with RawConnection(bench.gateway.port) as connection:
        connection.send(post(stage.caller, stage.body(stream=True)))
        connection.read_until(seen)
        wait_until(
            lambda: len(bench.demo.calls(stage.upstream_name)) == 1,
            timeout_seconds=5,
            what="the call at the provider",
        )
        connection.reset()

    statement = stage.settled()
    assert statement.states == ("client_disconnected",)
    assert statement.charges == (charge,)
    assert [attempt.cost_nanos for attempt in statement.attempts] == [cost]
    assert statement.rows[0].cost_nanos == (cost or 0)
