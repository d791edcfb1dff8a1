"""Routes are tried by priority, then at random by weight, at most three of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from itertools import repeat

from apps.proxy.routing import draw, no_key_row, pick_credential, plan_routes
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


def test_where_all_circuits_are_open_those_come_first_that_were_not_tried_for_longest() -> None:
    routes = [_route(number, number) for number in range(1, 6)]
    tried: dict[int, float] = {}
    found = []
    for now in range(1, 6):
        planned = plan_routes(
            routes,
            random=lambda: 0.0,
            is_open=lambda route_id: True,
            tried_at=lambda route: tried.get(route.id, 0.0),
        )
        found.append([route.id for route in planned])
        tried[planned[0].id] = float(now)  # A call that may not be repeated.

    # So nobody waits for the end of a rest behind others.
    assert found == [[1, 2, 3], [2, 3, 4], [3, 4, 5], [4, 5, 1], [5, 1, 2]]


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


def _keys(*weights: int) -> list[Credential]:
    return [Credential(id=n, weight=weight, secret="s") for n, weight in enumerate(weights, 1)]


def _pick(
    keys: list[Credential],
    *,
    at: float = 0.0,
    turn: int | None = None,
    resting: str = "",
    sticky_key: bytes | None = None,
) -> int | None:
    found = pick_credential(
        keys,
        strategy="random" if turn is None else "round_robin",
        random=lambda: at,
        take_turn=lambda: turn or 0,
        is_resting=lambda key_id: str(key_id) in resting,
        sticky_key=sticky_key,
    )
    return None if found is None else found.id


def test_keys_are_drawn_by_weight() -> None:
    assert [_pick(_keys(1, 3), at=at) for at in (0.0, 0.24, 0.25, 0.99)] == [1, 1, 2, 2]


def test_keys_in_turn_take_as_much_each_whatever_their_weight() -> None:
    assert [_pick(_keys(1, 9, 1), turn=turn) for turn in range(6)] == [1, 2, 3, 1, 2, 3]


def test_a_key_without_weight_is_the_reserve() -> None:
    keys = _keys(1, 0, 1)

    assert {_pick(keys, turn=turn) for turn in range(4)} == {1, 3}
    assert {_pick(keys, at=at) for at in (0.0, 0.4, 0.6, 0.99)} == {1, 3}
    assert _pick(keys, resting="13") == 2


def test_a_key_that_rests_is_passed_over_alone_and_all_that_rest_are_none() -> None:
    assert [_pick(_keys(1, 1, 1), turn=turn, resting="2") for turn in range(4)] == [1, 3, 1, 3]
    assert [_pick(_keys(1, 1), turn=turn, resting="12") for turn in range(4)] == [1, 2, 1, 2]
    assert _pick([]) is None


def test_no_key_is_explained_by_what_the_providers_said() -> None:
    def route(row: str) -> Route:
        return replace(ROUTE, provider=replace(PROVIDER, credentials=(), keyless_row=row))

    assert no_key_row([route("")]) == "E32"
    assert no_key_row([route(""), route("E41")]) == "E41"
    assert no_key_row([route("E41"), route("E42")]) == "E42"
    assert no_key_row([route("")], ["E41"]) == "E41"


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
    keys = _keys(1, 1, 1)

    picked = {
        key: {_pick(keys, at=at, sticky_key=key) for at in (0.0, 0.5, 0.99)}
        for key in (b"%d" % number for number in range(30))
    }

    assert {len(ids) for ids in picked.values()} == {1}
    assert set.union(*picked.values()) == {1, 2, 3}
