"""Tells other processes about trouble with providers, and hears of theirs, once a second.

Calls only leave notes here. Bad keys go to the control plane, which disables them for everybody;
rests of routes go to a table that all gateways read. While the database is away this process goes
on by what it knows itself, and keeps its notes; of a rest it then tells what is left.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Final

from django.db import DatabaseError, InterfaceError, connection
from django.utils import timezone

from apps.providers.health import disable_key
from apps.proxy.circuit import Door
from apps.proxy.credentials import REASONS
from apps.proxy.health import BadKey, Health
from apps.proxy.loader import read_version
from apps.proxy.rests import Rest, SeenRest, read_rests, write_rests
from apps.proxy.snapshot import Route
from apps.proxy.threads import DeadlineThread

SHARE_SECONDS: Final = 1.0
EXCHANGE_SECONDS: Final = 5.0
# Shorter rests are over before others hear of them.
REST_SECONDS_MIN: Final = 3.0
# Of notes that wait; one more than that is told to nobody.
NOTES_MAX: Final = 1_000

logger = logging.getLogger(__name__)


class Sharing:
    """The notes of one process. Belongs to the event loop."""

    def __init__(self, health: Health, monotonic: Callable[[], float]) -> None:
        self._health = health
        self._monotonic = monotonic
        # Each with its end, by the clock of this process.
        self._begun: dict[Door, tuple[Rest, float]] = {}
        self._ended: set[Door] = set()
        self._seen: dict[Door, datetime] = {}
        self._is_failing = False
        self._thread = DeadlineThread("sharing")

    def note_rest(
        self, route: Route, door: Door, *, reason: str, seconds: float, openings: int
    ) -> None:
        """Note that a door rests from now on."""
        self._ended.discard(door)
        if seconds >= REST_SECONDS_MIN and len(self._begun) < NOTES_MAX:
            rest = Rest(door, route.provider.id, reason, seconds, openings)
            self._begun[door] = rest, self._monotonic() + seconds

    def note_ends(self, doors: Sequence[Door]) -> None:
        """Note that doors are well again before their rest was over, or since."""
        for door in doors:
            self._begun.pop(door, None)
            if door in self._seen and len(self._ended) < NOTES_MAX:
                self._ended.add(door)

    def count_unreported(self) -> int:
        """Return how many bad keys the control plane does not know of yet."""
        return sum(bad.version is None for bad in self._health.bad_keys)

    async def run(self) -> None:
        """Exchange notes once a second, for ever."""
        while True:
            await asyncio.sleep(SHARE_SECONDS)
            try:
                await self.exchange()
                self._is_failing = False
            except Exception as error:  # this task must not end
                # Once for each time that it begins; what could not be told is tried again.
                if not self._is_failing:
                    self._is_failing = True
                    is_expected = isinstance(error, DatabaseError | InterfaceError | OSError)
                    logger.warning(
                        "trouble with providers cannot be shared: %s",
                        type(error).__name__,
                        exc_info=None if is_expected else error,
                    )

    async def exchange(self) -> None:
        """Tell what is noted and adopt what others tell. Raises what the database raises."""
        reported = [bad for bad in self._health.bad_keys if bad.version is None]
        for bad in reported:
            bad.version = await self._thread.run(EXCHANGE_SECONDS, _disable, bad)
        now = self._monotonic()
        self._begun = {door: note for door, note in self._begun.items() if note[1] > now}
        is_quiet = not (self._begun or self._ended or self._seen)
        if connection.vendor == "sqlite" and is_quiet and self._health.circuits.are_all_closed:
            return  # There is no other gateway.
        begun, ended = dict(self._begun), set(self._ended)
        left = [replace(rest, seconds=ends - now) for rest, ends in begun.values()]
        found = await self._thread.run(EXCHANGE_SECONDS, _write_and_read, left, ended)
        # What was noted while it was written waits for the next time.
        for door, note in begun.items():
            if self._begun.get(door) is note:
                del self._begun[door]
        self._ended -= ended
        self._adopt(found, own=set(begun))

    def close(self) -> None:
        """Exchange no more."""
        self._thread.close()

    def _adopt(self, found: Sequence[SeenRest], own: set[Door]) -> None:
        now, circuits = self._monotonic(), self._health.circuits
        seen = {rest.door: rest.began_at for rest in found}
        for rest in found:
            # Once only: what this process has learnt of the door since counts for more.
            if rest.door not in own and self._seen.get(rest.door) != rest.began_at:
                circuits.adopt(rest.door, now, seconds=rest.seconds_left, openings=rest.openings)
        for door in self._seen.keys() - seen.keys():
            circuits.end_rest(door, now)
        self._seen = seen


def _disable(bad: BadKey) -> int:
    """Disable a key for everybody; return a version of the configuration that says so."""
    disable_key(
        key_id=bad.credential.id,
        secret=bad.credential.secret,
        reason=REASONS[bad.row],
        now=timezone.now(),
    )
    return read_version()


def _write_and_read(begun: Sequence[Rest], ended: set[Door]) -> list[SeenRest]:
    write_rests(begun=begun, ended=ended)
    return read_rests()
