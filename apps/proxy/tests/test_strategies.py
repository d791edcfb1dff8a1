"""Inside a priority the sticky key orders routes, else the model's strategy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from apps.billing.pricing import Price
from apps.core.price_terms import parse_terms
from apps.proxy.admission import Plan, plan_call
from apps.proxy.dialects.openai_request import parse_request
from apps.proxy.latency import Latencies
from apps.proxy.routing import plan_routes
from apps.proxy.snapshot import PriceHistory, Route
from apps.proxy.strategies import EXPLORING_SHARE, Rank, cost_bound, find_rank
from apps.proxy.tests.values import EARLIER, NOW, ROUTE, make_caller, make_snapshot


def make_plan(
    *, stream: bool = False, asked: Mapping[str, Any] | None = None, **model: Any
) -> Plan:
    body = {"model": "gpt", "messages": [{"role": "user", "content": "Hi"}], "stream": stream}
    body |= asked or {}
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


def make_priced(number: int, *, terms: Any = None, **price: Any) -> Route:
    values = {"input": 0, "output": 4_000_000_000, **price}
    costs = PriceHistory((EARLIER,), (Price(id=number, terms=parse_terms(terms), **values),))
    return replace(ROUTE, id=number, costs=costs)


FLEX = {"service_tiers": [{"name": "flex", "multiplier_millionths": 100_000}]}


def make_selling_plan(asked: Mapping[str, Any] | None = None) -> Plan:
    """Return the plan of a call of a model that sells searches and a cheaper tier."""
    price = Price(id=9, input=0, output=0, web_search=10**9, terms=parse_terms(FLEX))
    prices = PriceHistory((EARLIER,), (price,))
    return make_plan(asked=asked, strategy="least_cost", prices=prices)


def test_a_cost_is_that_of_the_hour() -> None:
    minute = NOW.hour * 60 + NOW.minute
    window = {"multiplier_millionths": 100_000, "from_minute": minute, "to_minute": minute + 1}
    later = {**window, "from_minute": minute + 1, "to_minute": minute + 2}
    plan = make_plan(strategy="least_cost")
    routes = [
        make_route(1, cost=1_000_000_000),
        make_priced(2, terms={"windows": [window]}),
        make_priced(3, terms={"windows": [later]}),
    ]

    assert order(routes, rank_of(plan)) == [2, 1, 3]


def test_a_cost_is_that_of_the_service_tier_that_is_asked_for() -> None:
    routes = [make_route(1, cost=1_000_000_000), make_priced(2, terms=FLEX)]
    usual = make_selling_plan()
    flex = make_selling_plan(asked={"service_tier": "flex"})

    assert order(routes, rank_of(usual)) == [1, 2]
    assert order(routes, rank_of(flex)) == [2, 1]


def test_a_cost_includes_what_is_counted_by_the_piece() -> None:
    routes = [
        make_priced(1, output=1_000_000_000, web_search=10**9),
        make_priced(2, web_search=10**6),
    ]
    plain = make_selling_plan()
    searching = make_selling_plan(asked={"web_search_options": {}})

    assert order(routes, rank_of(plain)) == [1, 2]
    assert order(routes, rank_of(searching)) == [2, 1]


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
