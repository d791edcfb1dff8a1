"""Circuit breakers of routes. Pure: time comes in as an argument (monotonic seconds).

A circuit opens after FAILURES_MAX failures in a row and rests for REST_SECONDS, doubling up to
REST_SECONDS_MAX while probes fail; one probe at a time is let through when the rest is over. A rate
limit rests it for as long as the provider asks, without counting as a failure.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

FAILURES_MAX: Final = 5
REST_SECONDS: Final = 30.0
REST_SECONDS_MAX: Final = 300.0


@dataclass(slots=True)
class _Circuit:
    failures: int = 0
    openings: int = 0
    rests_until: float = 0.0
    is_probing: bool = False


class Circuits:
    """The circuits of one process, by route id."""

    def __init__(self) -> None:
        self._circuits: dict[int, _Circuit] = {}

    def is_open(self, route_id: int, now: float) -> bool:
        """Return whether the route is to be passed over."""
        circuit = self._circuits.get(route_id)
        return circuit is not None and (now < circuit.rests_until or circuit.is_probing)

    @property
    def are_all_closed(self) -> bool:
        """Whether no route is or was in trouble."""
        return not self._circuits

    def begin(self, route_id: int, now: float) -> None:
        """Note that the route is being tried; where its rest is over, this is the probe."""
        circuit = self._circuits.get(route_id)
        if circuit is not None and circuit.openings and now >= circuit.rests_until:
            circuit.is_probing = True

    def succeed(self, route_id: int) -> None:
        """Close the route's circuit."""
        self._circuits.pop(route_id, None)

    def abandon(self, route_id: int) -> None:
        """Note that a try ended without telling anything about the route."""
        circuit = self._circuits.get(route_id)
        if circuit is not None:
            circuit.is_probing = False

    def count_open(self, now: float) -> int:
        """Return how many routes are passed over."""
        return sum(self.is_open(route_id, now) for route_id in self._circuits)

    def fail(self, route_id: int, now: float) -> float:
        """Count a failure, and open the circuit where it is one too many or a failed probe.

        Return how many seconds the route rests from now on, 0 where it does not.
        """
        circuit = self._circuits.setdefault(route_id, _Circuit())
        circuit.failures += 1
        rest = 0.0
        if circuit.is_probing or circuit.failures >= FAILURES_MAX:
            rest = min(REST_SECONDS * 2**circuit.openings, REST_SECONDS_MAX)
            circuit.openings = min(circuit.openings + 1, 10)
            circuit.failures = 0
            circuit.rests_until = now + rest
        circuit.is_probing = False
        return rest

    def rest(self, route_id: int, now: float, seconds: float) -> None:
        """Pass the route over for a while, as its provider asked."""
        circuit = self._circuits.setdefault(route_id, _Circuit())
        circuit.rests_until = max(circuit.rests_until, now + min(seconds, REST_SECONDS_MAX))
        circuit.is_probing = False
