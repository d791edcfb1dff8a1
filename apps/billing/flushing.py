"""Flushes batches and survives what the database may answer.

A broken connection ends the attempt (the caller reconnects and tries again). A passing conflict
(deadlock, lock timeout) is tried again. Anything else means that some row is poison: the batch is
halved until that row is alone; a poisonous hold is refused, a poisonous settlement is written
once more without its free texts, and if even that fails it goes to the quarantine file with an
error in the log.
"""

from __future__ import annotations

import logging
import random
import sqlite3
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

import psycopg

from apps.billing.ledger.commands import Batch, Held, HoldRefused, PlaceHold, Resolve, Resolved
from apps.billing.ledger.store import Engine, IncarnationEnded, flush

_TRIES: Final = 4
_TEXTS: Final = (
    "user_agent",
    "finish_reason",
    "upstream_request_id",
    "error_code",
    "upstream_model",
)
_PASSING: Final = (
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
    psycopg.errors.LockNotAvailable,
    psycopg.errors.QueryCanceled,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Trouble:
    """The database could not take this now; nothing was committed as far as is known."""


Outcome = Resolved | Held | HoldRefused | Trouble


class Flusher:
    """Commits batches on one connection under one lease. Belongs to the writer's thread."""

    def __init__(self, engine: Engine, *, previous: Flusher | None = None) -> None:
        self._engine = engine
        self._revenue_ids = engine.revenue_ids()
        self._incarnation_id = 0
        self.is_broken = False
        # Settlements that no form of was accepted. They keep their holds; an operator has to look.
        self.quarantined: list[Resolve] = previous.quarantined if previous else []

    def use_lease(self, incarnation_id: int) -> None:
        """Write under another lease from now on."""
        self._incarnation_id = incarnation_id

    def end_lease(self) -> None:
        """Give up the lease: its owner stops."""
        try:
            self._engine.end(self._incarnation_id)
        except (psycopg.Error, sqlite3.Error):
            logger.warning("lease %d could not be ended; it will run out", self._incarnation_id)

    def flush(
        self, resolves: list[Resolve], holds: list[PlaceHold]
    ) -> tuple[list[Outcome], list[Outcome]]:
        """Commit and return an outcome for each command, in order. Raises IncarnationEnded."""
        try:
            ended, held = self._try(resolves, holds)
            return list(ended), list(held)
        except IncarnationEnded:
            raise
        except (
            psycopg.OperationalError,
            psycopg.InterfaceError,
            sqlite3.OperationalError,
        ) as error:
            logger.warning("a batch of the ledger failed: %s", type(error).__name__)
            self.is_broken = True
            return [Trouble()] * len(resolves), [Trouble()] * len(holds)
        except Exception as error:  # noqa: BLE001 (whatever it is, it must not stop the other rows)
            return self._bisect(resolves, holds, error)

    def _try(
        self, resolves: list[Resolve], holds: list[PlaceHold]
    ) -> tuple[list[Resolved], list[Held | HoldRefused]]:
        for left in range(_TRIES - 1, -1, -1):
            batch = Batch(
                resolves=tuple(resolves),
                holds=tuple(holds),
                revenue_id=self._revenue_ids[self._incarnation_id % len(self._revenue_ids)],
                now=datetime.now(UTC),
            )
            try:
                return flush(self._engine, batch, incarnation_id=self._incarnation_id)
            except _PASSING as error:
                if not left:
                    raise
                logger.info("a batch of the ledger is tried again: %s", type(error).__name__)
                time.sleep(random.uniform(0.005, 0.05))  # noqa: S311 (spreads retries, no secret)
        raise AssertionError("unreachable")

    def _bisect(
        self, resolves: list[Resolve], holds: list[PlaceHold], error: Exception
    ) -> tuple[list[Outcome], list[Outcome]]:
        if len(resolves) + len(holds) == 1:
            if holds:
                logger.error("hold %s is refused by the database: %r", holds[0].request_id, error)
                return [], [HoldRefused("broken")]
            return [self._settle_bare(resolves[0], error)], []
        if resolves and holds:
            ended, _ = self.flush(resolves, [])
            _, held = self.flush([], holds)
            return ended, held
        if resolves:
            middle = len(resolves) // 2
            return self.flush(resolves[:middle], [])[0] + self.flush(resolves[middle:], [])[0], []
        middle = len(holds) // 2
        return [], self.flush([], holds[:middle])[1] + self.flush([], holds[middle:])[1]

    def _settle_bare(self, resolve: Resolve, error: Exception) -> Outcome:
        """Settle without free texts and bodies, so that only numbers can be wrong."""
        logger.error("settlement %s is refused by the database: %r", resolve.request_id, error)
        row = {**resolve.row, **dict.fromkeys(_TEXTS, ""), "payload_digest": None}
        bare = replace(resolve, row=row, attempts=(), payload=None)
        try:
            ended, _ = self._try([bare], [])
        except IncarnationEnded:
            raise
        except (psycopg.OperationalError, psycopg.InterfaceError, sqlite3.OperationalError):
            self.is_broken = True
            return Trouble()
        except Exception:
            logger.exception(
                "settlement %s is quarantined: its hold stays open", resolve.request_id
            )
            self.quarantined.append(resolve)
            return Resolved(resolve.request_id, 0, is_first=False)
        return ended[0]
