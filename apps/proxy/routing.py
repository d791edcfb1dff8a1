"""Which routes a call tries, in which order. Pure: randomness and circuits come in as arguments."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final, Protocol, TypeVar

from apps.proxy.snapshot import Credential, Route
from apps.proxy.stickiness import rank_by_key

ATTEMPTS_MAX: Final = 3  # the first and at most two more
# How many routes are planned where some may turn out to be at their limit.
PLANNED_MAX: Final = 10


class Weighted(Protocol):
    @property
    def weight(self) -> int: ...


T = TypeVar("T", bound=Weighted)


def plan_routes(
    routes: Sequence[Route],
    *,
    random: Callable[[], float],
    is_open: Callable[[int], bool],
    is_full: Callable[[Route], bool] = lambda route: False,
    rank: Callable[[Route], float] | None = None,
    tried_at: Callable[[Route], float] = lambda route: 0.0,
    count_max: int = ATTEMPTS_MAX,
) -> list[Route]:
    """Return the routes to try: by priority, inside one by rank, equals at random by weight.

    Routes of providers at their limit are left out. Routes whose circuit is open are passed over;
    where that leaves none, all count again, since the last door never closes: then those come first
    that were not tried for longest, lest one that is well again be found by nobody behind others
    that are not. At most `count_max`.
    """
    usable = [route for route in routes if route.provider.credentials and not is_full(route)]
    candidates = [route for route in usable if not is_open(route.id)]
    if candidates:
        return _order(candidates, random=random, rank=rank, count_max=count_max)
    ordered = _order(usable, random=random, rank=rank, count_max=len(usable))
    return sorted(ordered, key=tried_at)[:count_max]


def _order(
    candidates: Sequence[Route],
    *,
    random: Callable[[], float],
    rank: Callable[[Route], float] | None,
    count_max: int,
) -> list[Route]:
    if len(candidates) == 1:
        return list(candidates)
    ordered: list[Route] = []
    for priority in sorted({route.priority for route in candidates}):
        left = [route for route in candidates if route.priority == priority]
        drawn: list[Route] = []
        while left and (rank is not None or len(ordered) + len(drawn) < count_max):
            route = draw(left, random())
            left.remove(route)
            drawn.append(route)
        ordered += drawn if rank is None else sorted(drawn, key=rank)
    return ordered[:count_max]


def pick_credential(
    credentials: Sequence[Credential],
    *,
    strategy: str,
    random: Callable[[], float],
    take_turn: Callable[[], int],
    is_resting: Callable[[int], bool],
    sticky_key: bytes | None = None,
) -> Credential | None:
    """Return the key that takes an attempt, None where there is none.

    Keys that rest are passed over; where that leaves none, all count again. Keys of weight 0 are
    the reserve. A sticky key decides first; "round_robin" gives each key its turn, otherwise
    weights decide at random.
    """
    awake = [one for one in credentials if not is_resting(one.id)] or credentials
    candidates = [one for one in awake if one.weight > 0] or awake
    if len(candidates) < 2:
        return candidates[0] if candidates else None
    if sticky_key is not None:
        key = sticky_key
        return min(candidates, key=lambda one: rank_by_key(key, -one.id, one.weight))
    if strategy == "round_robin":
        return candidates[take_turn() % len(candidates)]
    return draw(candidates, random())


def no_key_row(routes: Sequence[Route], bad_rows: Collection[str] = ()) -> str:
    """Return the row of the error where no route has a key that can be used.

    E42 or E41 where providers refused some, by the configuration or by `bad_rows`; else E32.
    """
    rows = {*bad_rows, *(route.provider.keyless_row for route in routes)}
    return next((row for row in ("E42", "E41") if row in rows), "E32")


def draw(items: Sequence[T], at: float) -> T:
    """Return the item at a point from 0 to 1 of their weights laid end to end."""
    total = sum(item.weight for item in items)
    if total <= 0:
        return items[min(int(at * len(items)), len(items) - 1)]
    point = at * total
    for item in items:
        point -= item.weight
        if point < 0:
            return item
    return items[-1]
