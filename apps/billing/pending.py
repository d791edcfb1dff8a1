"""What waits for the ledger: commands with those who wait for them, and notes for the heartbeat."""

from __future__ import annotations

import asyncio
import logging
import threading
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from apps.billing.ledger.commands import Held, HoldRefused, PlaceHold, Resolve, Resolved
from apps.billing.ledger.store import Engine

_REFUSALS_MAX: Final = 10_000

_Refusals = dict[tuple[int, str, datetime], int]  # key, code, minute → how many

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pace:
    """How long the ledger waits for what, in seconds. Tests use shorter ones."""

    hold: float = 2.0  # until a waiting hold is refused, and a silent database counts as away
    journal_after: float = 2.0  # until a waiting settlement goes to disk instead
    hang: float = 15.0  # until the connection under a statement that does not return is cut
    lease: int = 30
    duty: float = 10.0  # between two renewals of the lease
    probe: float = 0.5  # between two answers of a database that has nothing to do
    stranger: float = 10.0  # age at which a hold that nobody here knows is voided


@dataclass(slots=True)
class Pending:
    """A command, and who waits for its answer."""

    command: PlaceHold | Resolve
    future: asyncio.Future[Held | HoldRefused | Resolved]
    since: float  # monotonic
    is_journaled: bool = False
    is_doubtful: bool = False  # the connection broke while it committed


class Notes:
    """What is written with the next heartbeat. For any thread; `write_…` for the ledger's alone.

    What could not be written is written with a later one. Where a connection breaks while it
    commits, refusals may have been counted all the same, and are counted twice.
    """

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._checkpoints: dict[UUID, str] = {}
        self._checkpoints_under_way: dict[UUID, str] = {}
        self._refusals: _Refusals = {}
        self._uncounted = 0  # refused calls of kinds for which there was no room

    def add_checkpoint(self, request_id: UUID, text: str) -> None:
        """Note the usage so far of a running call."""
        with self._guard:
            self._checkpoints[request_id] = text

    def drop_checkpoint(self, request_id: UUID) -> None:
        """Forget the usage of a call that ends."""
        with self._guard:
            self._checkpoints.pop(request_id, None)
            self._checkpoints_under_way.pop(request_id, None)

    def add_refusal(self, api_key_id: int, code: str, now: datetime) -> None:
        """Count a refused call; of new kinds, at most _REFUSALS_MAX between two heartbeats."""
        with self._guard:
            self._add((api_key_id, code, now.replace(second=0, microsecond=0)), 1)

    def write_checkpoints(self, engine: Engine) -> None:
        """Write how far running calls are."""
        with self._guard:
            checkpoints, self._checkpoints = self._checkpoints, {}
            self._checkpoints_under_way = checkpoints
            rows = sorted(checkpoints.items())
        try:
            if rows:
                engine.checkpoint(rows)
        except BaseException:
            with self._guard:
                # Without those of calls that have ended meanwhile; what came later is newer.
                self._checkpoints = checkpoints | self._checkpoints
            raise
        finally:
            self._checkpoints_under_way = {}

    def write_refusals(self, engine: Engine) -> None:
        """Write how many calls were refused."""
        with self._guard:
            refusals, self._refusals = self._refusals, {}
            uncounted, self._uncounted = self._uncounted, 0
        if uncounted:
            logger.warning(
                "%d refused calls are not counted: of more than %d kinds", uncounted, _REFUSALS_MAX
            )
        try:
            if refusals:
                engine.count_refusals([(*key, count) for key, count in sorted(refusals.items())])
        except BaseException:
            with self._guard:
                for key, count in refusals.items():
                    self._add(key, count)
            raise

    def _add(self, key: tuple[int, str, datetime], count: int) -> None:
        if key in self._refusals or len(self._refusals) < _REFUSALS_MAX:
            self._refusals[key] = self._refusals.get(key, 0) + count
        else:
            self._uncounted += count
