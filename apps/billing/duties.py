"""What the ledger's thread does between batches, beside renewing its lease.

It writes what was noted, settles what the journal holds, resolves what dead processes left and what
no call here knows, makes partitions, deletes counters of periods that are long over, and compares
the host's clock with the database's. Each duty flushes through the thread's own `Flusher`, and lets
running calls through in between.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from apps.billing import reaper
from apps.billing.flushing import Flusher, Locked, Trouble
from apps.billing.host_clock import HostClock
from apps.billing.journal import Journal
from apps.billing.ledger.store import SWEPT_MAX, Engine
from apps.billing.pending import Notes, Pace

BATCH_ROWS: Final = 500
BATCH_BYTES: Final = 4 << 20
PARTITION_SECONDS: Final = 6 * 3600.0
SWEEP_SECONDS: Final = 6 * 3600.0
# How long the counter of a day or a month is kept from its beginning: the last one is still there.
PERIOD_KEPT: Final = timedelta(days=62)

logger = logging.getLogger(__name__)

Duty = Callable[[Engine], None]


class Duties:
    """The duties of one ledger's thread, with what they know from one round to the next."""

    def __init__(
        self,
        *,
        journal: Journal,
        notes: Notes,
        pace: Pace,
        is_only_owner: bool,
        known: set[UUID],
        quarantined: set[UUID],
        breathe: Callable[[], None],
    ) -> None:
        """`known`: the calls of this process that may have a hold. `breathe` lets running calls
        through in the middle of a long clean-up; it raises where the connection breaks.
        """
        self._journal = journal
        self._notes = notes
        self._pace = pace
        self._is_only_owner = is_only_owner
        self._known = known
        self._quarantined = quarantined
        self._breathe = breathe
        self._rounds = 0  # with the present connection
        self._flusher: Flusher
        self.clock = HostClock()

    def use(self, flusher: Flusher) -> None:
        """Work with a new connection from now on."""
        self._flusher = flusher
        self._rounds = 0

    def list_due(self) -> tuple[Duty, ...]:
        """Return the duties of a round, in order; the lease has just been renewed."""
        self._rounds += 1
        return (
            self.clock.compare_clocks,
            self._notes.write_checkpoints,
            self._notes.write_refusals,
            self._settle_journal,
            self._reap,
            self._partition,
            self._sweep,
        )

    def _settle_journal(self, engine: Engine) -> None:
        if self._journal.adopt_abandoned():
            self._breathe()
        if self._replay_journal():
            self._void_strangers(engine)

    def _partition(self, engine: Engine) -> None:
        if self._is_round_of(PARTITION_SECONDS):
            engine.make_partitions(datetime.now(UTC))

    def _sweep(self, engine: Engine) -> None:
        if not self._is_round_of(SWEEP_SECONDS):
            return
        # Ends: nobody makes counters of periods that are over.
        while engine.sweep_counters(PERIOD_KEPT) == SWEPT_MAX:
            self._breathe()

    def _is_round_of(self, seconds: float) -> bool:
        """Return whether it is time for what is done so often, and first with a connection."""
        return self._rounds % int(seconds / self._pace.duty) == 1

    def _replay_journal(self) -> bool:
        """Settle what the journal holds and return whether nothing is left in it."""
        while part := self._journal.read(BATCH_ROWS, BATCH_BYTES):
            logger.warning("replaying %d of %d settlements", len(part), len(self._journal))
            ended, _ = self._flusher.flush(part, [])
            if any(isinstance(outcome, Trouble | Locked) for outcome in ended):
                return False  # What had been committed adds nothing the next time.
            self._journal.discard(len(part))
            self._known.difference_update(resolve.request_id for resolve in part)
            self._breathe()
        return True

    def _void_strangers(self, engine: Engine) -> None:
        own = engine.own_holds(self._flusher.lease_id, self._pace.stranger)
        strangers = [row for row in own if not self._is_known(row["request_id"])]
        now = datetime.now(UTC)
        for start in range(0, len(strangers), reaper.REAP_BATCH):
            part = strangers[start : start + reaper.REAP_BATCH]
            logger.warning("voiding %d holds that no call here knows", len(part))
            self._flusher.flush([reaper.resolve_stranger(hold, now=now) for hold in part], [])

    def _is_known(self, request_id: UUID) -> bool:
        return request_id in self._known or request_id in self._quarantined

    def _reap(self, engine: Engine) -> None:
        # After an outage every lease is old; living owners get time to renew theirs first.
        if not self._is_only_owner and self._rounds < 2:
            return
        dead = reaper.list_dead(
            engine, own_id=self._flusher.lease_id, all_others=self._is_only_owner
        )
        now = datetime.now(UTC)
        reaper.resolve_all(engine, self._flusher, dead, now=now, between=self._breathe)
