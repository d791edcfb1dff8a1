"""Flushes batches and survives what the database may answer.

A broken connection ends the attempt (the caller reconnects and tries again). A passing conflict
(a deadlock) is tried again. An account that somebody else keeps locked is passed over for a
while, so that it does not keep all customers waiting. Anything else means that some row is
poison: the batch is halved until that row is alone; a poisonous hold is refused, a poisonous
settlement is written once more without its free texts, and if even that fails it goes to the
quarantine file with an error in the log.
"""

from __future__ import annotations

import logging
import random
import sqlite3
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

import psycopg

from apps.billing.ledger.commands import (
    Batch,
    ClaimEnd,
    Held,
    HoldRefused,
    PlaceHold,
    Resolve,
    Resolved,
    RowKey,
    spent_by,
)
from apps.billing.ledger.store import Engine, IncarnationEnded, flush

_TRIES: Final = 4
LOCKED_SECONDS: Final = 5.0  # how long an account that was found locked is passed over
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
    psycopg.errors.QueryCanceled,
)
_ABOUT_A_ROW: Final = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.errors.RaiseException,  # a trigger that refuses the row
    sqlite3.DataError,
    sqlite3.IntegrityError,
    sqlite3.InterfaceError,  # a value of a type that cannot be bound
    sqlite3.ProgrammingError,
)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Trouble:
    """The database could not take this now; nothing was committed as far as is known."""


@dataclass(frozen=True, slots=True)
class Locked:
    """Somebody else keeps an account or a counter that this needs locked; nothing was committed."""


@dataclass(frozen=True, slots=True)
class Quarantined:
    """No form of this settlement was accepted. It keeps its hold; an operator has to look."""

    request_id: UUID


Outcome = Resolved | Held | HoldRefused | Trouble | Locked | Quarantined


class Flusher:
    """Commits batches on one connection under one lease. Belongs to the writer's thread."""

    def __init__(
        self,
        engine: Engine,
        *,
        keep: Callable[[Resolve], None] | None = None,
        quarantined: set[UUID] | None = None,
    ) -> None:
        """`keep` is told of each settlement that joins `quarantined`, once."""
        self._engine = engine
        self._keep = keep
        self._revenue_ids = engine.revenue_ids()
        self._incarnation_id = 0
        self._revenue_shift = 0
        self._locked: dict[RowKey, float] = {}  # until when it is passed over
        self.is_broken = False
        # A few at most: each is an accident that has been logged.
        self._quarantined: set[UUID] = set() if quarantined is None else quarantined

    @property
    def lease_id(self) -> int:
        """The lease under which it writes."""
        return self._incarnation_id

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
        if self._locked and self._touches_locked(resolves, holds):
            return self._flush_others(resolves, holds)
        try:
            ended, held = self._try(resolves, holds)
            return list(ended), list(held)
        except IncarnationEnded:
            raise
        except psycopg.errors.LockNotAvailable:
            if self._find_locked(resolves, holds):
                return self.flush(resolves, holds)
            self.is_broken = True
            return [Trouble()] * len(resolves), [Trouble()] * len(holds)
        except Exception as error:  # noqa: BLE001 (whatever it is, it must not stop the other rows)
            if _is_about_a_row(error):
                return self._bisect(resolves, holds, error)
            logger.warning("a batch of the ledger failed: %s", type(error).__name__)
            self.is_broken = True
            return [Trouble()] * len(resolves), [Trouble()] * len(holds)

    # ---- accounts and counters that somebody else keeps locked

    def _find_locked(self, resolves: list[Resolve], holds: list[PlaceHold]) -> bool:
        """Note which rows of a batch are locked, and return whether that explains anything."""
        revenue = ("account", self._revenue_id)
        try:
            locked = self._engine.find_locked({revenue, *_rows_of(resolves, holds)})
        except psycopg.Error:
            return False  # The whole table is locked, or the connection broke.
        if revenue in locked:
            self._revenue_shift += 1
            if self._revenue_shift >= len(self._revenue_ids):
                return False
        until = time.monotonic() + LOCKED_SECONDS
        known = len(self._locked)
        self._locked.update(dict.fromkeys(locked, until))
        if len(self._locked) > known:
            logger.error("rows %s are locked by somebody else", sorted(locked))
        return bool(locked)

    def _touches_locked(self, resolves: list[Resolve], holds: list[PlaceHold]) -> bool:
        now = time.monotonic()
        self._locked = {key: until for key, until in self._locked.items() if until > now}
        return not self._locked.keys().isdisjoint(_rows_of(resolves, holds))

    def _flush_others(
        self, resolves: list[Resolve], holds: list[PlaceHold]
    ) -> tuple[list[Outcome], list[Outcome]]:
        """Commit what needs no locked row; the rest does not keep it waiting."""
        locked = self._locked.keys()
        free_resolves = [r for r in resolves if locked.isdisjoint(_rows_of([r], []))]
        free_holds = [h for h in holds if locked.isdisjoint(_rows_of([], [h]))]
        ended: dict[UUID, Outcome] = {}
        held: dict[UUID, Outcome] = {}
        if free_resolves or free_holds:
            done, placed = self.flush(free_resolves, free_holds)
            ended = {r.request_id: o for r, o in zip(free_resolves, done, strict=True)}
            held = {h.request_id: o for h, o in zip(free_holds, placed, strict=True)}
        return (
            [ended.get(resolve.request_id, Locked()) for resolve in resolves],
            [held.get(hold.request_id, Locked()) for hold in holds],
        )

    @property
    def _revenue_id(self) -> int:
        return self._revenue_ids[
            (self._incarnation_id + self._revenue_shift) % len(self._revenue_ids)
        ]

    def _try(
        self, resolves: list[Resolve], holds: list[PlaceHold]
    ) -> tuple[list[Resolved], list[Held | HoldRefused]]:
        for left in range(_TRIES - 1, -1, -1):
            try:
                batch = Batch(
                    resolves=tuple(resolves),
                    holds=tuple(holds),
                    revenue_id=self._revenue_id,
                    now=datetime.now(UTC),
                    keys_now=self._engine.now() if _has_keys(resolves, holds) else None,
                )
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
                logger.error("hold %s is refused: %s", holds[0].request_id, _describe(error))
                return [], [HoldRefused("broken")]
            return [self._settle_bare(resolves[0], error)], []
        if resolves and holds:
            ended, _ = self.flush(resolves, [])
            _, held = self._flush_rest([], holds)
            return ended, held
        middle = max(len(resolves), len(holds)) // 2
        ended, held = self.flush(resolves[:middle], holds[:middle])
        more_ended, more_held = self._flush_rest(resolves[middle:], holds[middle:])
        return ended + more_ended, held + more_held

    def _flush_rest(
        self, resolves: list[Resolve], holds: list[PlaceHold]
    ) -> tuple[list[Outcome], list[Outcome]]:
        """Commit what is left of a batch of which some is committed: that must not be done again,
        so a lease that ended in between is trouble of the rest alone, and found anew with it.
        """
        try:
            return self.flush(resolves, holds)
        except IncarnationEnded:
            return [Trouble()] * len(resolves), [Trouble()] * len(holds)

    def _settle_bare(self, resolve: Resolve, error: Exception) -> Outcome:
        """Settle without free texts, bodies and what may be missing, so that only numbers can be
        wrong.
        """
        logger.error("settlement %s is refused: %s", resolve.request_id, _describe(error))
        row = {**resolve.row, **dict.fromkeys(_TEXTS, ""), "payload_digest": None}
        bare = resolve._replace(
            row=row,
            attempts=(),
            payload=None,
            claim_end=_without_body(resolve.claim_end),
            stored=None,
        )
        try:
            ended, _ = self._try([bare], [])
        except IncarnationEnded:
            raise
        except Exception as again:  # noqa: BLE001 (one row must not stop the others, whatever it is)
            if not _is_about_a_row(again):
                self.is_broken = True
                return Trouble()
            logger.error("its bare form is refused, too: %s", _describe(again))
            self._quarantine(resolve)
            return Quarantined(resolve.request_id)
        return ended[0]

    def _quarantine(self, resolve: Resolve) -> None:
        if resolve.request_id in self._quarantined:
            return
        logger.critical(
            "settlement %s of %d nanos is quarantined: its hold stays open",
            resolve.request_id,
            resolve.charge_nanos,
        )
        self._quarantined.add(resolve.request_id)
        if self._keep is not None:
            self._keep(resolve)


def _without_body(end: ClaimEnd | None) -> ClaimEnd | None:
    if end is None or end.answer is None:
        return end
    return end._replace(answer=end.answer._replace(headers="[]", body=None))


def _describe(error: Exception) -> str:
    """Return what the database refused, without the row: prompts may stand in it."""
    if isinstance(error, psycopg.Error):
        diagnosis = error.diag
        named = (diagnosis.table_name, diagnosis.column_name, diagnosis.constraint_name)
        return " ".join([type(error).__name__, *filter(None, named)])
    return f"{type(error).__name__}: {error}"


def _has_keys(resolves: list[Resolve], holds: list[PlaceHold]) -> bool:
    """Return whether anything here has an idempotency key."""
    return any(hold.claim is not None for hold in holds) or any(
        resolve.claim_end is not None for resolve in resolves
    )


def _rows_of(resolves: Sequence[Resolve], holds: Sequence[PlaceHold]) -> set[RowKey]:
    """Return the accounts of customers and the counters that these may change."""
    ends = (*resolves, *spent_by(holds))
    accounts = {account_id for resolve in ends for account_id, _ in resolve.legs}
    found: set[RowKey] = set()
    for resolve in ends:
        if resolve.charge_nanos:
            # Also within the hold: where somebody else has ended that, the charge falls on these.
            accounts.update((resolve.wallet_id, resolve.receivable_id))
        found.update(("counter", counter_id) for counter_id in resolve.counters)
    for hold in holds:
        accounts.update(hold.buckets)
        found.update(cap.key for cap in (*hold.caps, *hold.spare_caps))
    found.update(("account", account_id) for account_id in accounts)
    return found


def _is_about_a_row(error: Exception) -> bool:
    """Return whether an error is the fault of what was to be written.

    Anything else that a database says (read-only after a failover, a missing grant, a column that a
    deployment has not made yet, a damaged file) concerns all rows alike and may pass.
    """
    if isinstance(error, psycopg.Error | sqlite3.Error):
        return isinstance(error, _ABOUT_A_ROW)
    return True
