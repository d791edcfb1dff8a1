"""What one process knows of the health of routes and provider keys. Pure: time comes in.

Three kinds of trouble, of which a healthy model has none and pays one test for all of them:

- a route fails: its circuit, door (route, 0);
- a provider key fails or is rate limited on a route: its circuit, door (route, key), so that other
  keys of the route and other models of the key go on;
- a provider refuses a key: it is bad on all routes, until the configuration says otherwise.

Circuits never close the last door: where all rest, all count again. A bad key is no door.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from apps.core.errors import GatewayError
from apps.proxy.circuit import Circuits, Door
from apps.proxy.routing import no_key_row, pick_credential
from apps.proxy.snapshot import Catalogue, Credential, Route

WHOLE: Final = 0  # in the place of a key: the route as such


@dataclass(slots=True)
class BadKey:
    """A key that its provider refused, as this process saw it."""

    credential: Credential
    row: str  # E41 or E42
    version: int | None = None  # of the configuration that knows of it; None: not reported yet


class Health:
    """The circuits, the bad keys and the turns of one process. Belongs to the event loop."""

    def __init__(self) -> None:
        self.circuits = Circuits()
        self._bad: dict[int, BadKey] = {}
        self._turns: dict[int, int] = {}  # by provider id
        self._answered: dict[int, set[str]] = {}  # kinds of endpoints, by route id

    @property
    def is_good(self) -> bool:
        """Whether nothing is in trouble, or was lately."""
        return not self._bad and self.circuits.are_all_closed

    # ---- before an attempt

    def has_key(self, route: Route) -> bool:
        """Return whether the route's provider has a key that it did not refuse."""
        return any(not self._is_bad(one) for one in route.provider.credentials)

    def is_resting(self, route: Route, now: float) -> bool:
        """Return whether the route is to be passed over: as a whole, or with each of its keys."""
        if self.circuits.are_all_closed:
            return False
        is_open = self.circuits.is_open((route.id, WHOLE), now)
        return is_open or self._is_resting_with_all_keys(route, now)

    def tried_at(self, route: Route) -> float:
        """Return when the route was tried last, 0 where it was not since its trouble began."""
        return max(self.circuits.tried_at(door) for door in self._all_doors(route))

    def choose_key(
        self,
        route: Route,
        among: Sequence[Credential],
        *,
        now: float,
        random: Callable[[], float],
        sticky_key: bytes | None = None,
    ) -> Credential | None:
        """Return which of a route's keys makes the next attempt, None where all were refused, or
        those that are left rest and others only are at a limit or have failed.
        """
        provider = route.provider
        if len(among) == len(provider.credentials) == 1 and not self._bad:
            return among[0]
        candidates = [one for one in among if not self._is_bad(one)]
        if len(among) < len(provider.credentials) and not self._is_resting_with_all_keys(
            route, now
        ):
            candidates = [
                one for one in candidates if not self.circuits.is_open((route.id, one.id), now)
            ]
        return pick_credential(
            candidates,
            strategy=provider.key_strategy,
            random=random,
            take_turn=lambda: self._take_turn(provider.id),
            is_resting=lambda key_id: self.circuits.is_open((route.id, key_id), now),
            sticky_key=sticky_key,
        )

    def has_another_key(self, route: Route, failed: Sequence[Door], now: float) -> bool:
        """Return whether the route may be tried right away with a key that has not failed."""
        return any(
            (route.id, one.id) not in failed
            and not self._is_bad(one)
            and not self.circuits.is_open((route.id, one.id), now)
            for one in route.provider.credentials
        )

    def refusal(self, routes: Sequence[Route]) -> GatewayError:
        """Return why none of the routes can be tried."""
        bad = [
            self._bad[one.id].row
            for route in routes
            for one in route.provider.credentials
            if self._is_bad(one)
        ]
        return GatewayError(no_key_row(routes, bad))

    def begin(self, route: Route, credential: Credential, now: float) -> None:
        """Note that an attempt begins."""
        if not self.circuits.are_all_closed:
            for door in self.doors(route, credential):
                self.circuits.begin(door, now)

    def _all_doors(self, route: Route) -> Iterator[Door]:
        yield route.id, WHOLE
        for one in route.provider.credentials:
            yield route.id, one.id

    def _is_resting_with_all_keys(self, route: Route, now: float) -> bool:
        sound = [one for one in route.provider.credentials if not self._is_bad(one)]
        return bool(sound) and all(self.circuits.is_open((route.id, one.id), now) for one in sound)

    # ---- after an attempt

    def succeed(
        self, route: Route, credential: Credential, now: float, *, begun: float
    ) -> list[Door]:
        """Note a whole answer and return the doors whose trouble it ended."""
        if self.circuits.are_all_closed:
            return []
        doors = self.doors(route, credential)
        return [door for door in doors if self.circuits.succeed(door, now, begun=begun)]

    def answer(
        self, route: Route, credential: Credential, now: float, *, begun: float
    ) -> list[Door]:
        """Note that an answer has begun and return the doors whose trouble it ended."""
        if self.circuits.are_all_closed:
            return []
        doors = self.doors(route, credential)
        return [door for door in doors if self.circuits.answer(door, now, begun=begun)]

    def abandon(self, route: Route, credential: Credential) -> None:
        """Note that an attempt ended without telling anything."""
        if not self.circuits.are_all_closed:
            for door in self.doors(route, credential):
                self.circuits.abandon(door)

    def note_kind(self, route: Route, kind: str) -> None:
        """Note that the route has answered at an endpoint of this kind."""
        self._answered.setdefault(route.id, set()).add(kind)

    def answers_elsewhere(self, route: Route, kind: str) -> bool:
        """Return whether the route has answered at endpoints of other kinds only: a client may ask
        any model anywhere.
        """
        kinds = self._answered.get(route.id)
        return kinds is not None and kind not in kinds

    def doors(self, route: Route, credential: Credential) -> tuple[Door, ...]:
        """Return the doors that an attempt goes through."""
        return (route.id, WHOLE), (route.id, credential.id)

    def forget_doors(self, catalogue: Catalogue, now: float) -> None:
        """Drop what is known of what has left the configuration, and circuits that are long over.

        No call would come that closes them, and all others would pay for the trouble.
        """
        routes = [route for model in catalogue.models.values() for route in model.routes]
        for route_id in self._answered.keys() - {route.id for route in routes}:
            del self._answered[route_id]
        if not self.circuits.are_all_closed:
            doors = {(route.id, key.id) for route in routes for key in route.provider.credentials}
            self.circuits.keep(doors | {(route.id, WHOLE) for route in routes}, now)

    # ---- bad keys

    def note_bad(self, credential: Credential, row: str) -> BadKey | None:
        """Use the key no more; return what is to be reported, None where it was known."""
        if self._is_bad(credential):
            return None
        found = self._bad[credential.id] = BadKey(credential, row)
        return found

    def forget_bad(self, version: int) -> None:
        """Drop what the configuration of that version knows by itself."""
        for key_id in [
            key_id
            for key_id, bad in self._bad.items()
            if bad.version is not None and bad.version <= version
        ]:
            del self._bad[key_id]

    @property
    def bad_keys(self) -> Iterable[BadKey]:
        """The keys that are bad by what this process saw alone."""
        return self._bad.values()

    def _is_bad(self, credential: Credential) -> bool:
        bad = self._bad.get(credential.id)
        # Another secret under the same id is another key.
        return bad is not None and bad.credential.secret == credential.secret

    def _take_turn(self, provider_id: int) -> int:
        turn = self._turns.get(provider_id, 0)
        self._turns[provider_id] = turn + 1
        return turn
