"""When which fault happens, from a seed alone. Pure.

Every 5 to 20 s one or two faults are chosen. Each kind has its turn before any has another one, so
that short runs see many. What a fault harms is harmed by one fault at a time; different things are
harmed together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

CALM_SECONDS: Final = 20.0  # without a fault, at the end
_GAP_SECONDS: Final = (5.0, 20.0)
_FIRST_SECONDS: Final = (3.0, 6.0)
# After one thing is whole again, before it is harmed the next time.
_REST_SECONDS: Final = 2.0


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault: what it harms, any one of `targets`, and for how long."""

    name: str
    targets: tuple[str, ...]
    seconds_min: float
    seconds_max: float


@dataclass(frozen=True, slots=True)
class Planned:
    """One fault of a schedule. `at` and `seconds` count from the start of the run."""

    at: float
    seconds: float
    kind: str
    target: str

    def __str__(self) -> str:
        return f"{self.at:7.1f} s  {self.kind} {self.target} for {self.seconds:.1f} s"


def plan_faults(seed: int, seconds: float, kinds: Sequence[Kind]) -> list[Planned]:
    """Return the faults of a run that takes `seconds`, in the order of their beginning."""
    random = Random(seed)
    end = seconds - CALM_SECONDS
    planned: list[Planned] = []
    free_at: dict[str, float] = {}
    bag: list[Kind] = []
    at = random.uniform(*_FIRST_SECONDS)
    while at < end:
        for _ in range(random.choice((1, 2))):
            if not bag:
                bag = random.sample(kinds, len(kinds))
            fault = _draw(random, bag, free_at, at, end)
            if fault is not None:
                planned.append(fault)
                free_at[fault.target] = fault.at + fault.seconds + _REST_SECONDS
        at += random.uniform(*_GAP_SECONDS)
    return planned


def _draw(
    random: Random, bag: list[Kind], free_at: dict[str, float], at: float, end: float
) -> Planned | None:
    """Take the first kind out of the bag that finds something whole, and time enough."""
    for kind in bag:
        whole = [target for target in kind.targets if free_at.get(target, 0.0) <= at]
        if not whole or at + kind.seconds_min > end:
            continue
        bag.remove(kind)
        seconds = random.uniform(kind.seconds_min, min(kind.seconds_max, end - at))
        return Planned(round(at, 1), round(seconds, 1), kind.name, random.choice(whole))
    return None
