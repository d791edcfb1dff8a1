"""Plays a schedule: each fault on a thread of its own, injected, kept up and healed.

A fault that takes longer to heal than planned keeps the next one on the same thing waiting: it
begins later, and is left out where the run would be over before it could.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Final

from tests.nemesis.faults import Fault
from tests.nemesis.schedule import Planned

MakeFault = Callable[[str, str, Random], Fault]

_TICK_SECONDS: Final = 0.1
_TRIES_MAX: Final = 20
_TRY_SECONDS: Final = 1.0
_JOIN_SECONDS: Final = 60.0


@dataclass(slots=True)
class Happened:
    """A fault as it was: monotonic seconds."""

    planned: Planned
    began_at: float
    healed_at: float


class Play:
    """One run of a schedule."""

    def __init__(self, schedule: Sequence[Planned], seed: int, make: MakeFault) -> None:
        self._make = make
        self._schedule = schedule
        self._seed = seed
        self._began_at = 0.0
        # When the schedule has all healed.
        self._ends_at = max((one.at + one.seconds for one in schedule), default=0.0)
        self._turns = {one.target: threading.Lock() for one in schedule}
        self._threads: list[threading.Thread] = []
        self.happened: list[Happened] = []
        self.left_out: list[Planned] = []
        self.problems: list[str] = []

    def start(self) -> None:
        """Begin."""
        self._began_at = time.monotonic()
        for number, planned in enumerate(self._schedule):
            name = f"{planned.kind} {planned.target}"
            thread = threading.Thread(target=self._play, args=(number, planned), name=name)
            self._threads.append(thread)
            thread.daemon = True
            thread.start()

    def wait(self, seconds: float) -> None:
        """Wait until so many seconds have passed since the start and everything is healed."""
        time.sleep(max(0.0, self._began_at + seconds - time.monotonic()))
        for thread in self._threads:
            thread.join(_JOIN_SECONDS)
            if thread.is_alive():
                self.problems.append(f"{thread.name} was not healed")

    def _play(self, number: int, planned: Planned) -> None:
        time.sleep(max(0.0, self._began_at + planned.at - time.monotonic()))
        with self._turns[planned.target]:
            until = min(time.monotonic() + planned.seconds, self._began_at + self._ends_at)
            if until <= time.monotonic():
                self.left_out.append(planned)
                return
            # Only now: what it harms may have been started anew meanwhile.
            random = Random(f"{self._seed} {number}")
            fault = self._make(planned.kind, planned.target, random)
            began_at = time.monotonic()
            self._harm(fault, planned, until)
            self._heal(fault, planned)
            self.happened.append(Happened(planned, began_at, time.monotonic()))

    def _harm(self, fault: Fault, planned: Planned, until: float) -> None:
        try:
            fault.inject()
            while time.monotonic() < until:
                time.sleep(_TICK_SECONDS)
                fault.tick()
        except Exception as error:  # noqa: BLE001 (what fails is healed and reported)
            self.problems.append(f"{planned} could not be done: {error!r}")

    def _heal(self, fault: Fault, planned: Planned) -> None:
        for _ in range(_TRIES_MAX):
            try:
                fault.heal()
            except Exception as error:  # noqa: BLE001 (tried again, then reported)
                failure = error
                time.sleep(_TRY_SECONDS)
            else:
                return
        self.problems.append(f"{planned} could not be healed: {failure!r}")


def worst_recovery(
    happened: Sequence[Happened], find_success: Callable[[float], float | None]
) -> float:
    """Return the longest time from a moment when all was healed to an answer to a later call.

    `find_success` returns when the first such answer was complete.
    """
    worst = 0.0
    for moment in sorted(one.healed_at for one in happened):
        if any(one.began_at < moment < one.healed_at for one in happened):
            continue
        answered_at = find_success(moment)
        # The next fault may have come before anybody could be answered.
        next_at = min((one.began_at for one in happened if one.began_at > moment), default=None)
        if answered_at is None or (next_at is not None and answered_at > next_at):
            continue
        worst = max(worst, answered_at - moment)
    return worst
