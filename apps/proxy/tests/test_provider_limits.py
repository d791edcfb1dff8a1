"""Providers at their limits are passed over, their keys one by one, and places are given back."""

from __future__ import annotations

from dataclasses import replace
from datetime import date
from typing import Any

from apps.proxy.daily_costs import DailyCosts
from apps.proxy.provider_limits import Places, ProviderLimits, find_shortest_wait
from apps.proxy.snapshot import Credential, Route
from apps.proxy.tests.values import PROVIDER, ROUTE
from apps.quotas.limits import LimitMet, LocalLimiter, Scope
from tests.support.clocks import Clock


def make_key(number: int, **limits: Any) -> Credential:
    daily = limits.pop("daily_cost_nanos", None)
    scope = make_scope(f"provider_key:{number}", **limits) if limits else None
    return Credential(number, 1, "s", scope=scope, daily_cost_nanos=daily)


def make_scope(name: str, **limits: Any) -> Scope:
    return Scope(name, limits.get("rpm"), limits.get("tpm"), limits.get("concurrency"))


def make_route(*keys: Credential, daily_cost_nanos: int | None = None, **limits: Any) -> Route:
    provider = replace(
        PROVIDER,
        credentials=keys or (make_key(1),),
        scope=make_scope("provider:1", **limits) if limits else None,
        daily_cost_nanos=daily_cost_nanos,
        is_limited=True,
    )
    return replace(ROUTE, provider=provider)


def make_limits(clock: Clock | None = None) -> ProviderLimits:
    return ProviderLimits(LocalLimiter(clock or Clock()))


def make_places(limits: ProviderLimits, name: str = "call", tokens: int = 10) -> Places:
    return Places(limits, request_text=name, tokens=tokens)


async def take(places: Places, route: Route) -> int | None:
    credential = await places.take(route, lambda left: left[0])
    return credential.id if credential else None


async def test_requests_a_minute_are_counted_and_told() -> None:
    clock = Clock()
    limits, route = make_limits(clock), make_route(rpm=1)
    second = make_places(limits, "second")

    assert limits.find_wait(route, 10) is None
    assert await take(make_places(limits, "first"), route) == 1
    assert await take(second, route) is None

    assert second.wait_seconds == 60
    assert limits.find_wait(route, 10) == 60
    clock.now += 61
    assert limits.find_wait(route, 10) is None


async def test_a_place_is_free_again_when_it_is_given_back() -> None:
    limits, route = make_limits(), make_route(concurrency=1)
    first = make_places(limits, "first")
    await take(first, route)

    full = limits.find_wait(route, 10)
    first.give_back(0)
    first.give_back(0)

    assert full == 1
    assert limits.find_wait(route, 10) is None


async def test_tokens_are_corrected_to_what_was_used() -> None:
    limits, route = make_limits(), make_route(tpm=100)
    first, second = make_places(limits, "first", 60), make_places(limits, "second", 60)
    await take(first, route)

    full = limits.find_wait(route, 60)
    first.give_back(30)

    assert full == 60
    assert await take(second, route) == 1


async def test_another_key_is_taken_where_one_is_at_its_limit() -> None:
    limits = make_limits()
    route = make_route(make_key(1, rpm=1), make_key(2, rpm=1))

    taken = [await take(make_places(limits, f"call {n}"), route) for n in range(3)]

    assert taken == [1, 2, None]


async def test_no_other_key_is_tried_where_the_provider_is_at_its_limit() -> None:
    limits = make_limits()
    route = make_route(make_key(1, rpm=9), make_key(2, rpm=9), concurrency=1)
    await take(make_places(limits, "first"), route)

    assert await take(make_places(limits, "second"), route) is None


async def test_a_refused_key_costs_the_provider_nothing() -> None:
    limits = make_limits()
    route = make_route(make_key(1, rpm=1), make_key(2), rpm=3)

    taken = [await take(make_places(limits, f"call {n}"), route) for n in range(4)]

    assert taken == [1, 2, 2, None]


async def test_what_was_billed_today_counts_for_provider_and_key() -> None:
    limits = make_limits()
    route = make_route(make_key(1, daily_cost_nanos=5), make_key(2), daily_cost_nanos=9)
    limits.daily = costs = DailyCosts(date(2026, 6, 1), has_keys=True)

    costs.nanos["provider_key", 1] = 5
    by_key = await take(make_places(limits, "a"), route)
    costs.nanos["provider", 1] = 8
    below = limits.find_wait(route, 10)
    costs.nanos["provider", 1] = 9

    assert by_key == 2
    assert below is None
    assert limits.find_wait(route, 10) == 60
    assert await take(make_places(limits, "b"), route) is None


async def test_the_shortest_wait_of_all_is_told() -> None:
    limits = make_limits()
    by_minute, at_once = make_route(rpm=0), make_route(make_key(7, concurrency=0))
    free = replace(ROUTE, provider=PROVIDER)

    assert find_shortest_wait(limits, [by_minute, at_once], 1) == 1
    assert find_shortest_wait(limits, [free], 1) is None
    assert find_shortest_wait(limits, [], 1) is None


class SpentElsewhere(LocalLimiter):
    """What a limiter knows when other gateways have used all up."""

    def find_limit_met(self, *, scopes: tuple[Scope, ...], tokens: int) -> LimitMet | None:
        return LimitMet("requests", scopes[0].name, 7, 1, 0, 7.0)


def test_a_provider_that_other_gateways_have_used_up_has_no_room() -> None:
    limits = ProviderLimits(SpentElsewhere(Clock()))

    assert limits.find_wait(make_route(rpm=5), 10) == 7
