"""Routes are tried by priority, then at random by weight, at most three of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import repeat

from apps.proxy.routing import draw, pick_credential, plan_routes
from apps.proxy.snapshot import Credential, Route
from apps.proxy.tests.values import PROVIDER, ROUTE


def _route(number: int, priority: int = 0, weight: int = 1) -> Route:
    return replace(ROUTE, id=number, priority=priority, weight=weight)


def _plan(
    routes: list[Route], *, at: float = 0.0, closed: frozenset[int] = frozenset()
) -> list[int]:
    points: Iterator[float] = repeat(at)
    planned = plan_routes(routes, random=lambda: next(points), is_open=closed.__contains__)
    return [route.id for route in planned]


def test_lower_priorities_come_first() -> None:
    assert _plan([_route(1, 2), _route(2, 0), _route(3, 1)]) == [2, 3, 1]


def test_at_most_three_are_tried() -> None:
    assert _plan([_route(n, n) for n in range(1, 6)]) == [1, 2, 3]


def test_open_circuits_are_passed_over_but_the_last_door_never_closes() -> None:
    routes = [_route(1), _route(2)]

    assert _plan(routes, closed=frozenset({1})) == [2]
    assert _plan(routes, closed=frozenset({1, 2})) == [1, 2]


def test_a_provider_without_keys_is_no_way() -> None:
    without = replace(ROUTE, id=2, provider=replace(PROVIDER, credentials=()))

    assert _plan([without]) == []
    assert _plan([without, _route(1)]) == [1]


def test_inside_a_priority_the_weight_decides() -> None:
    routes = [_route(1, weight=3), _route(2, weight=1)]

    first = Counter(_plan(routes, at=n / 100)[0] for n in range(100))

    assert first == {1: 75, 2: 25}


def test_weights_of_zero_are_all_alike() -> None:
    routes = [_route(1, weight=0), _route(2, weight=0)]

    assert [draw(routes, at).id for at in (0.0, 0.49, 0.5, 0.99)] == [1, 1, 2, 2]


def test_keys_are_drawn_by_weight() -> None:
    keys = tuple(Credential(id=n, weight=n, secret="s") for n in (1, 3))
    route = replace(ROUTE, provider=replace(PROVIDER, credentials=keys))

    assert [pick_credential(route, at).id for at in (0.0, 0.24, 0.25, 0.99)] == [1, 1, 3, 3]


def test_a_secret_is_in_no_representation() -> None:
    assert "sk-upstream" not in repr(ROUTE)


def test_providers_at_their_limit_are_left_out_even_where_none_is_left() -> None:
    routes = [_route(1), _route(2)]

    def plan(full: set[int]) -> list[int]:
        planned = plan_routes(
            routes,
            random=lambda: 0.0,
            is_open=lambda _: False,
            is_full=lambda route: route.id in full,
        )
        return [route.id for route in planned]

    assert plan({1}) == [2]
    assert plan({1, 2}) == []


def test_a_rank_orders_all_routes_of_a_priority_before_some_are_left_out() -> None:
    routes = [_route(n, weight=0 if n == 9 else 5) for n in range(1, 10)]

    planned = plan_routes(
        routes,
        random=lambda: 0.0,
        is_open=lambda _: False,
        rank=lambda route: -route.id,
        count_max=2,
    )

    assert [route.id for route in planned] == [9, 8]


def test_a_sticky_key_picks_one_key_for_ever() -> None:
    keys = tuple(Credential(id=n, weight=1, secret="s") for n in (1, 2, 3))
    route = replace(ROUTE, provider=replace(PROVIDER, credentials=keys))

    picked = {
        key: {pick_credential(route, at, sticky_key=key).id for at in (0.0, 0.5, 0.99)}
        for key in (b"%d" % number for number in range(30))
    }

    assert {len(ids) for ids in picked.values()} == {1}
    assert set.union(*picked.values()) == {1, 2, 3}
