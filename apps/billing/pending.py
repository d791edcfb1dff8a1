"""What waits for the ledger: commands with those who wait for them, and notes for the heartbeat."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from uuid import UUID

from apps.billing.ledger.commands import Held, HoldRefused, PlaceHold, Resolve, Resolved
from apps.billing.ledger.store import Engine

_REFUSALS_MAX: Final = 10_000


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
    """What is written with the next heartbeat. For any thread."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._checkpoints: dict[UUID, str] = {}
        self._refusals: dict[tuple[int, str, datetime], int] = {}

    def add_checkpoint(self, request_id: UUID, text: str) -> None:
        """Note the usage so far of a running call."""
        with self._guard:
            self._checkpoints[request_id] = text

    def drop_checkpoint(self, request_id: UUID) -> None:
        """Forget the usage of a call that ends."""
        with self._guard:
            self._checkpoints.pop(request_id, None)

    def add_refusal(self, api_key_id: int, code: str, now: datetime) -> None:
        """Count a refused call; of new kinds, at most _REFUSALS_MAX between two heartbeats."""
        key = (api_key_id, code, now.replace(second=0, microsecond=0))
        with self._guard:
            if key in self._refusals or len(self._refusals) < _REFUSALS_MAX:
                self._refusals[key] = self._refusals.get(key, 0) + 1

    def write(self, engine: Engine) -> None:
        """Write what was noted."""
        with self._guard:
            checkpoints, self._checkpoints = self._checkpoints, {}
            refusals, self._refusals = self._refusals, {}
        if checkpoints:
            engine.checkpoint(sorted(checkpoints.items()))
        if refusals:
            engine.count_refusals([(*key, count) for key, count in sorted(refusals.items())])
