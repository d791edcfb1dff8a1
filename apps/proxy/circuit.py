"""Circuit breakers. Pure: time comes in as an argument (monotonic seconds).

A door is a route, or one provider key on it. Its circuit opens after so many failures in a row, or
when a share of ERROR_SHARE of the calls of the last minute failed (of CALLS_MIN at least, counted
from the first failure on). It then rests for REST_SECONDS, doubling up to REST_SECONDS_MAX while
probes fail, and also where it opens again within FORGET_SECONDS after it closed. When the rest is
over one probe at a time goes through. A rest that a provider asks for is no failure.

What began before a circuit opened, or was let in while it rested because there was no other door,
neither opens it once more nor, if it began before, closes it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

FAILURES_MAX: Final = 5  # in a row, where nothing else is said
# Below one half, so that a route which fails every other call is certainly found.
ERROR_SHARE: Final = 0.4
CALLS_MIN: Final = 20
REST_SECONDS: Final = 30.0
REST_SECONDS_MAX: Final = 300.0
FORGET_SECONDS: Final = 300.0
# A probe that has not told anything for so long keeps nobody else from trying.
PROBE_SECONDS_MAX: Final = 60.0
_OPENINGS_MAX: Final = 10
_BUCKET_SECONDS: Final = 6
_BUCKETS: Final = 10

Door = tuple[int, int]  # route id, provider key id; key 0 is the route as a whole
State = Literal["closed", "resting", "probing"]


@dataclass(slots=True)
class _Circuit:
    failures: int = 0  # in a row
    openings: int = 0
    is_open: bool = False  # from the opening to the first success
    rested_at: float = 0.0  # when the latest rest began
    rests_until: float = 0.0
    tried_at: float = 0.0  # when the latest try since the trouble began
    probing_since: float | None = None
    closed_at: float = 0.0
    # Number of the bucket, calls, failures; oldest first.
    counted: list[list[int]] = field(default_factory=list)

    def count(self, now: float, *, is_failure: bool) -> None:
        number = int(now // _BUCKET_SECONDS)
        if not self.counted or self.counted[-1][0] != number:
            self.counted = [one for one in self.counted if one[0] > number - _BUCKETS]
            self.counted.append([number, 0, 0])
        self.counted[-1][1] += 1
        self.counted[-1][2] += is_failure

    def has_too_many_errors(self) -> bool:
        calls = sum(one[1] for one in self.counted)
        failures = sum(one[2] for one in self.counted)
        return calls >= CALLS_MIN and failures >= ERROR_SHARE * calls

    def is_passed_over(self, now: float) -> bool:
        return now < self.rests_until or (
            self.probing_since is not None and now - self.probing_since < PROBE_SECONDS_MAX
        )

    def is_forgotten(self, now: float) -> bool:
        """Return whether nothing that it remembers counts any more."""
        return (
            not self.is_open
            and now >= self.rests_until
            and (not self.openings or now - self.closed_at > FORGET_SECONDS)
            and not any(
                one[2] for one in self.counted if one[0] > now // _BUCKET_SECONDS - _BUCKETS
            )
        )


class Circuits:
    """The circuits of one process. Doors that were never in trouble have none."""

    def __init__(self) -> None:
        self._circuits: dict[Door, _Circuit] = {}

    @property
    def are_all_closed(self) -> bool:
        """Whether no door is in trouble, or was lately."""
        return not self._circuits

    def is_open(self, door: Door, now: float) -> bool:
        """Return whether the door is to be passed over."""
        circuit = self._circuits.get(door)
        return circuit is not None and circuit.is_passed_over(now)

    def begin(self, door: Door, now: float) -> None:
        """Note that the door is being tried; where its rest is over, this is the probe."""
        circuit = self._circuits.get(door)
        if circuit is None:
            return
        circuit.tried_at = now
        if circuit.is_open and now >= circuit.rests_until:
            circuit.probing_since = now

    def succeed(self, door: Door, now: float, *, begun: float) -> bool:
        """Count a success of a try; return whether it ended a rest or closed the circuit."""
        circuit = self._circuits.get(door)
        if circuit is None:
            return False
        if circuit.is_open or now < circuit.rests_until:
            if begun < circuit.rested_at:
                return False
            circuit.closed_at, circuit.is_open = now, False
            circuit.rests_until, circuit.probing_since = 0.0, None
            circuit.failures = 0
            circuit.counted.clear()
            if not circuit.openings:
                del self._circuits[door]
            return True
        circuit.failures = 0
        circuit.count(now, is_failure=False)
        if circuit.is_forgotten(now):
            del self._circuits[door]
        return False

    def answer(self, door: Door, now: float, *, begun: float) -> bool:
        """Take an answer that has begun for a success where the door rests or is being probed."""
        circuit = self._circuits.get(door)
        if circuit is None or not (circuit.is_open or now < circuit.rests_until):
            return False
        return self.succeed(door, now, begun=begun)

    def fail(
        self, door: Door, now: float, *, begun: float, failures_max: int = FAILURES_MAX
    ) -> float:
        """Count a failure, and open the circuit where it is one too many or a failed probe.

        Return how many seconds the door rests from now on, 0 where this failure changes nothing.
        """
        circuit = self._circuits.setdefault(door, _Circuit())
        if circuit.is_open:
            return self._open(circuit, now) if begun >= circuit.rests_until else 0.0
        circuit.failures += 1
        circuit.count(now, is_failure=True)
        if circuit.failures < failures_max and not circuit.has_too_many_errors():
            return 0.0
        if now - circuit.closed_at > FORGET_SECONDS:
            circuit.openings = 0
        return self._open(circuit, now)

    def rest(self, door: Door, now: float, seconds: float) -> None:
        """Pass the door over for a while, as its provider asked."""
        circuit = self._circuits.setdefault(door, _Circuit())
        circuit.rested_at = now
        circuit.rests_until = max(circuit.rests_until, now + min(seconds, REST_SECONDS_MAX))
        circuit.probing_since = None

    def abandon(self, door: Door) -> None:
        """Note that a try ended without telling anything about the door."""
        circuit = self._circuits.get(door)
        if circuit is not None:
            circuit.probing_since = None

    def adopt(self, door: Door, now: float, *, seconds: float, openings: int) -> None:
        """Rest as another process does; `openings` 0 is a rest that was asked for."""
        self.rest(door, now, seconds)
        circuit = self._circuits[door]
        if openings:
            circuit.is_open = True
            circuit.openings = min(max(circuit.openings, openings), _OPENINGS_MAX)

    def end_rest(self, door: Door, now: float) -> None:
        """Let the next call probe the door: somebody else has reason to believe it is well."""
        circuit = self._circuits.get(door)
        if circuit is not None and circuit.rests_until > now:
            circuit.rests_until = now

    def keep(self, doors: Collection[Door], now: float) -> None:
        """Forget all other doors, and those of which nothing counts any more."""
        for door, circuit in list(self._circuits.items()):
            if door not in doors or (not circuit.failures and circuit.is_forgotten(now)):
                del self._circuits[door]

    def openings_of(self, door: Door) -> int:
        """Return how often in a row the circuit opened."""
        circuit = self._circuits.get(door)
        return circuit.openings if circuit is not None else 0

    def tried_at(self, door: Door) -> float:
        """Return when the door was tried last, 0 where it was not since its trouble began."""
        circuit = self._circuits.get(door)
        return circuit.tried_at if circuit is not None else 0.0

    def states(self, now: float) -> Iterator[tuple[Door, State]]:
        """Yield the doors that are, or were lately, in trouble."""
        for door, circuit in self._circuits.items():
            if now < circuit.rests_until:
                yield door, "resting"
            else:
                yield door, "probing" if circuit.is_open else "closed"

    def _open(self, circuit: _Circuit, now: float) -> float:
        rest = min(REST_SECONDS * 2.0**circuit.openings, REST_SECONDS_MAX)
        circuit.openings = min(circuit.openings + 1, _OPENINGS_MAX)
        circuit.is_open, circuit.failures = True, 0
        circuit.rested_at, circuit.rests_until = now, now + rest
        circuit.probing_since = None
        circuit.counted.clear()
        return rest
