"""Which routes a call tries, in which order. Pure: randomness and circuits come in as arguments."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, Protocol, TypeVar

from apps.proxy.snapshot import Credential, Route

ATTEMPTS_MAX: Final = 3  # the first and at most two more


class Weighted(Protocol):
    @property
    def weight(self) -> int: ...


T = TypeVar("T", bound=Weighted)


def plan_routes(
    routes: Sequence[Route], *, random: Callable[[], float], is_open: Callable[[int], bool]
) -> list[Route]:
    """Return the routes to try: by priority, at random by weight inside one priority.

    Routes whose circuit is open are passed over; where that leaves none, all count again, since the
    last door never closes. At most ATTEMPTS_MAX.
    """
    usable = [route for route in routes if route.provider.credentials]
    candidates = [route for route in usable if not is_open(route.id)] or usable
    if len(candidates) == 1:
        return candidates
    ordered: list[Route] = []
    for priority in sorted({route.priority for route in candidates}):
        left = [route for route in candidates if route.priority == priority]
        while left and len(ordered) < ATTEMPTS_MAX:
            route = draw(left, random())
            left.remove(route)
            ordered.append(route)
    return ordered


def pick_credential(route: Route, draw_at: float) -> Credential:
    """Return one of the provider's keys, at random by weight."""
    credentials = route.provider.credentials
    return credentials[0] if len(credentials) == 1 else draw(credentials, draw_at)


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
