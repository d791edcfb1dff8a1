"""The data plane's way to the ledger: holds and settlements of one gateway process.

Requests submit commands and wait; a thread with the one connection commits them in batches. One
request alone waits for one commit, a thousand at once share a few.

Bounds: WAITING_MAX holds waiting (then `LedgerBusy`), `Pace.hold` seconds until a waiting hold is
refused, `Pace.journal_after` seconds until a waiting settlement goes to disk instead.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from apps.audit.models import RequestState
from apps.billing import reaper
from apps.billing.flushing import Locked, Outcome, Quarantined, Trouble
from apps.billing.journal import Journal, JournalFull
from apps.billing.ledger.commands import (
    Held,
    HoldRefused,
    PlaceHold,
    Resolve,
    Resolved,
    has_spent,
)
from apps.billing.ledger.store import Engine
from apps.billing.ledger_thread import LedgerThread
from apps.billing.pending import Pace, Pending
from apps.core.instruments import Histogram

WAITING_MAX: Final = 5_000
STOP_SECONDS: Final = 5.0
_TICK_SECONDS: Final = 0.25

logger = logging.getLogger(__name__)


class LedgerUnavailable(Exception):
    """The database does not answer: nothing can be held, so nothing may be sent."""


class LedgerBusy(Exception):
    """Too many holds are waiting already."""


class LedgerWriter:
    """Holds and settles for one gateway process. Methods belong to the event loop."""

    def __init__(
        self,
        *,
        connect: Callable[[], Engine],
        journal: Journal,
        is_only_owner: bool,
        kind: str = "gateway",
        pace: Pace | None = None,
        waiting_max: int = WAITING_MAX,
    ) -> None:
        """`is_only_owner`: nobody else can hold money (SQLite), so all other leases are dead."""
        self._journal = journal
        self._pace = pace or Pace()
        self._waiting_max = waiting_max
        self._waiting: dict[UUID, Pending] = {}
        self._settling: dict[UUID, Pending] = {}
        self._is_journal_full = False
        self._submitted = 0  # commands so far
        self._ticker: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop
        self._thread = LedgerThread(
            connect=connect,
            journal=journal,
            is_only_owner=is_only_owner,
            kind=kind,
            pace=self._pace,
            deliver=self._deliver_from_thread,
        )

    def start(self) -> None:
        """Start the thread; it connects by itself and keeps trying."""
        self._loop = asyncio.get_running_loop()
        self._ticker = self._loop.create_task(self._tick())
        self._thread.start()

    async def stop(self) -> None:
        """Flush what is waiting, end the lease and stop the thread; at most STOP_SECONDS."""
        await self._loop.run_in_executor(None, self._thread.stop, STOP_SECONDS)
        if self._ticker is not None:
            self._ticker.cancel()
        # What was delivered last comes after the thread's end.
        await asyncio.sleep(0)
        left = [pending for pending in self._settling.values() if not pending.is_journaled]
        if left:
            await self._journal_now(left)
        self._journal.close()

    @property
    def is_available(self) -> bool:
        """Whether holds can be placed now."""
        return self._thread.is_available

    @property
    def answer_age(self) -> float:
        """Seconds since the database last answered; many before it ever did."""
        return time.monotonic() - self._thread.answered_at

    @property
    def clock_offset_seconds(self) -> float:
        """How far the host's clock is ahead of the database's, at the last heartbeat."""
        return self._thread.clock_offset_seconds

    @property
    def batch_commands(self) -> Histogram:
        """How many commands went into each transaction."""
        return self._thread.batch_commands

    @property
    def commit_seconds(self) -> Histogram:
        """How long each transaction took."""
        return self._thread.commit_seconds

    @property
    def incarnation_id(self) -> int:
        """The lease under which this process holds money, 0 before the first."""
        return self._thread.incarnation_id

    async def place(self, hold: PlaceHold) -> Held | HoldRefused:
        """Commit a hold. Raises LedgerUnavailable or LedgerBusy; then nothing stays held.

        Where the caller is cancelled or gives up, a hold that commits afterwards is voided.
        """
        if not self.is_available:
            raise LedgerUnavailable
        if len(self._waiting) >= self._waiting_max:
            raise LedgerBusy
        pending = Pending(hold, self._loop.create_future(), time.monotonic())
        self._waiting[hold.request_id] = pending
        self._submitted += 1
        self._thread.known.add(hold.request_id)
        self._thread.put(pending)
        try:
            answer = await pending.future
        except asyncio.CancelledError:
            self._abandon(pending)
            raise
        assert not isinstance(answer, Resolved)  # noqa: S101 (narrows the type)
        return answer

    async def resolve(self, resolve: Resolve) -> None:
        """End a hold and return when that is durable: committed, or fsynced to the journal."""
        await self.submit(resolve)

    def submit(self, resolve: Resolve) -> asyncio.Future[Held | HoldRefused | Resolved]:
        """Hand in the end of a hold; the future is done when it is durable. Never cancel it."""
        self._thread.notes.drop_checkpoint(resolve.request_id)
        pending = Pending(resolve, self._loop.create_future(), time.monotonic())
        self._settling[resolve.request_id] = pending
        self._submitted += 1
        self._thread.put(pending)
        return pending.future

    def disown(self, request_id: UUID) -> None:
        """Have a hold voided that nobody here can end, as one that was left behind."""
        self._thread.notes.drop_checkpoint(request_id)
        self._thread.known.discard(request_id)

    def note_checkpoint(self, request_id: UUID, text: str) -> None:
        """Have the usage so far of a running call written with the next heartbeat."""
        self._thread.notes.add_checkpoint(request_id, text)

    def count_refusal(self, api_key_id: int, code: str, now: datetime) -> None:
        """Have a refused call counted with the next heartbeat."""
        self._thread.notes.add_refusal(api_key_id, code, now)

    def figures(self) -> dict[str, int]:
        """Return queue lengths, for readiness and metrics."""
        return {
            "holds_waiting": len(self._waiting),
            "settlements_waiting": len(self._settling),
            "holds_open": len(self._thread.known),
            "journal": len(self._journal),
            "journal_bytes": self._journal.size_bytes,
            "quarantined": self._thread.quarantined_count + self._journal.unreadable_count,
        }

    # ---- waits that end

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            try:
                await self._end_waits(time.monotonic())
            except Exception:  # without this task no wait would ever end
                logger.exception("the ledger's waits could not be ended")

    async def _end_waits(self, now: float) -> None:
        self._thread.cut_if_hanging()
        for pending in _overdue(self._waiting, now - self._pace.hold):
            self._waiting.pop(pending.command.request_id, None)
            if not pending.future.done():
                pending.future.set_exception(LedgerUnavailable())
        late = [
            pending
            for pending in _overdue(self._settling, now - self._pace.journal_after)
            if not pending.is_journaled
        ]
        if late:
            await self._journal_now(late)

    async def _journal_now(self, late: list[Pending]) -> None:
        commands = [p.command for p in late if isinstance(p.command, Resolve)]
        try:
            await self._loop.run_in_executor(None, self._journal.append, commands)
        except JournalFull as error:
            # Nothing is lost: the settlements stay in memory and their calls keep waiting.
            if not self._is_journal_full:
                logger.critical("the journal is full, settlements wait in memory: %s", error)
            self._is_journal_full = True
            return
        self._is_journal_full = False
        for pending in late:
            pending.is_journaled = True
            self._settling.pop(pending.command.request_id, None)
            if not pending.future.done():
                pending.future.set_result(Resolved(pending.command.request_id, 0))

    # ---- answers

    def _deliver_from_thread(self, outcomes: list[tuple[Pending, Outcome]]) -> None:
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._deliver, outcomes)

    def _deliver(self, outcomes: list[tuple[Pending, Outcome]]) -> None:
        for pending, answer in outcomes:
            request_id, known = pending.command.request_id, self._thread.known
            if isinstance(pending.command, PlaceHold):
                self._waiting.pop(request_id, None)
                spends = pending.command.spends
                if spends is not None and has_spent(pending.command, answer):
                    known.discard(spends.request_id)
                if not isinstance(answer, Held):
                    known.discard(request_id)
                elif pending.future.done():
                    self._give_back(pending.command, answer)
            else:
                self._settling.pop(request_id, None)
                known.discard(request_id)
            if pending.future.done():
                continue
            if isinstance(answer, Trouble | Locked):
                pending.future.set_exception(LedgerUnavailable())
            elif isinstance(answer, Quarantined):
                pending.future.set_result(Resolved(request_id, 0, is_first=False))
            else:
                pending.future.set_result(answer)
        self._loop.call_soon(self._tell_when_quiet, self._submitted)

    def _tell_when_quiet(self, submitted: int) -> None:
        """Tell the thread when those who were answered have asked for all they ask at once."""
        if submitted == self._submitted:
            self._thread.is_quiet.set()
        else:
            self._loop.call_soon(self._tell_when_quiet, self._submitted)

    def _abandon(self, pending: Pending) -> None:
        """Forget a hold whose caller is cancelled; give it back where it had just been granted."""
        self._waiting.pop(pending.command.request_id, None)
        future = pending.future
        if future.done() and not future.cancelled() and future.exception() is None:
            answer = future.result()
            if isinstance(answer, Held) and isinstance(pending.command, PlaceHold):
                self._give_back(pending.command, answer)

    def _give_back(self, hold: PlaceHold, held: Held) -> None:
        """Void a hold that was granted after its caller had gone."""
        now = datetime.now(UTC)
        state, code = RequestState.VOIDED, "hold_abandoned"
        self.submit(reaper.void(hold, held, state=state, error_code=code, now=now))


def _overdue(waiting: dict[UUID, Pending], before: float) -> list[Pending]:
    """Return those that have waited since `before`; they are in the order of their submission."""
    found = []
    for pending in waiting.values():
        if pending.since > before:
            break
        found.append(pending)
    return found
