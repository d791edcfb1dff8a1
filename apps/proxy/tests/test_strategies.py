"""Inside a priority the sticky key orders routes, else the model's strategy."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from apps.billing.pricing import Price
from apps.proxy.admission import Plan, plan_call
from apps.proxy.dialects.openai_request import parse_request
from apps.proxy.latency import Latencies
from apps.proxy.routing import plan_routes
from apps.proxy.snapshot import PriceHistory, Route
from apps.proxy.strategies import EXPLORING_SHARE, Rank, cost_bound, find_rank
from apps.proxy.tests.values import EARLIER, NOW, ROUTE, make_caller, make_snapshot


def make_plan(*, stream: bool = False, **model: Any) -> Plan:
    body = {"model": "gpt", "messages": [{"role": "user", "content": "Hi"}], "stream": stream}
    request = parse_request("chat/completions", {**body, "max_tokens": 100, "n": 2})
    return plan_call(make_snapshot(b"d", model=model), make_caller(), request, NOW)


def make_route(number: int, *, cost: int | None = None, priority: int = 0) -> Route:
    price = Price(id=number, input=0, output=cost)
    costs = PriceHistory((EARLIER,), (price,)) if cost is not None else ROUTE.costs
    return replace(ROUTE, id=number, costs=costs, priority=priority)


def rank_of(plan: Plan, *, latencies: Latencies | None = None, **values: Any) -> Rank | None:
    return find_rank(
        plan,
        sticky_key=values.get("sticky_key"),
        latencies=latencies or Latencies(),
        draw_at=values.get("draw_at", 0.5),
        started_at=NOW,
        now=100.0,
    )


def order(routes: list[Route], rank: Rank | None) -> list[int]:
    planned = plan_routes(routes, random=lambda: 0.0, is_open=lambda _: False, rank=rank)
    return [route.id for route in planned]


def test_by_default_weights_alone_count() -> None:
    assert rank_of(make_plan()) is None


def test_a_cost_is_the_most_that_the_call_can_cost() -> None:
    # Two answers of 100 tokens at two dollars a million.
    assert cost_bound(make_plan(), make_route(1, cost=2_000_000_000), NOW) == 400_000


def test_an_unknown_or_incomplete_cost_is_infinite() -> None:
    incomplete = PriceHistory((EARLIER,), (Price(id=1, input=5),))

    assert cost_bound(make_plan(), make_route(1), NOW) == math.inf
    assert cost_bound(make_plan(), replace(ROUTE, costs=incomplete), NOW) == math.inf


def test_the_cheapest_goes_first_and_the_unknown_last_but_the_priority_before_all() -> None:
    plan = make_plan(strategy="least_cost")
    routes = [
        make_route(1),
        make_route(2, cost=9),
        make_route(3, cost=4_000_000_000),
        make_route(4, cost=1_000_000_000),
    ]
    preferred = make_route(5, cost=10**12, priority=-1)

    assert order(routes, rank_of(plan)) == [2, 4, 3]
    assert order([*routes, preferred], rank_of(plan)) == [5, 2, 4]


def test_the_quickest_goes_first_by_the_kind_of_answer() -> None:
    latencies = Latencies()
    for number, seconds in ((1, 0.9), (2, 0.1), (3, 0.5)):
        latencies.observe(number, True, seconds, 100.0)
        latencies.observe(number, False, 1 / seconds, 100.0)
    routes = [make_route(number) for number in (1, 2, 3)]

    def of(*, stream: bool) -> list[int]:
        plan = make_plan(strategy="least_latency", stream=stream)
        return order(routes, rank_of(plan, latencies=latencies))

    assert of(stream=True) == [2, 3, 1]
    assert of(stream=False) == [1, 3, 2]


@pytest.mark.parametrize(("draw_at", "explores"), [(0.0, True), (0.019, True), (0.02, False)])
def test_one_call_in_fifty_goes_by_weight(draw_at: float, explores: bool) -> None:
    plan = make_plan(strategy="least_latency")

    assert EXPLORING_SHARE == 0.02
    assert (rank_of(plan, draw_at=draw_at) is None) is explores


def test_a_sticky_key_counts_before_the_strategy() -> None:
    plan = make_plan(strategy="least_cost")
    routes = [make_route(n, cost=n) for n in (1, 2, 3)]

    orders = [order(routes, rank_of(plan, sticky_key=b"%d" % number)) for number in range(40)]

    assert orders == [
        order(routes, rank_of(plan, sticky_key=b"%d" % number)) for number in range(40)
    ]
    assert {first for first, _, _ in orders} == {1, 2, 3}
