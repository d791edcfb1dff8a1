"""The data plane's way to the ledger: one thread, one connection, batches without a timer.

Requests submit holds and settlements; the thread flushes whatever has gathered as soon as the
previous commit returns. One request alone waits for one commit, a thousand at once share a few.
The same thread renews the lease, notes checkpoints, resolves what dead processes left, and
replays the journal.

Bounds: BATCH_ROWS and BATCH_BYTES a batch, WAITING_MAX holds waiting (then `LedgerBusy`),
HOLD_SECONDS until a waiting hold is refused, JOURNAL_AFTER_SECONDS until a waiting settlement
goes to disk instead.
"""

from __future__ import annotations

import asyncio
import logging
import os
import queue
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final
from uuid import UUID

from apps.audit.models import RequestState
from apps.billing import reaper
from apps.billing.flushing import Flusher, Outcome, Trouble
from apps.billing.journal import Journal, JournalFull
from apps.billing.ledger.commands import Held, HoldRefused, PlaceHold, Resolve, Resolved
from apps.billing.ledger.store import Engine, IncarnationEnded

BATCH_ROWS: Final = 500
BATCH_BYTES: Final = 4 << 20
WAITING_MAX: Final = 5_000
HOLD_SECONDS: Final = 2.0
JOURNAL_AFTER_SECONDS: Final = 2.0
LEASE_SECONDS: Final = 30
DUTY_SECONDS: Final = 10.0
STRANGER_SECONDS: Final = 10.0
PARTITION_SECONDS: Final = 6 * 3600.0
_RECONNECT_SECONDS: Final = 0.25
_TICK_SECONDS: Final = 0.25

logger = logging.getLogger(__name__)


class LedgerUnavailable(Exception):
    """The database does not answer: nothing can be held, so nothing may be sent."""


class LedgerBusy(Exception):
    """Too many holds are waiting already."""


@dataclass(slots=True)
class _Pending:
    command: PlaceHold | Resolve
    future: asyncio.Future[Held | HoldRefused | Resolved]
    since: float  # monotonic
    is_journaled: bool = False


class LedgerWriter:
    """Holds and settles for one gateway process. Methods belong to the event loop unless said."""

    def __init__(
        self,
        *,
        connect: Callable[[], Engine],
        journal: Journal,
        is_only_owner: bool,
        kind: str = "gateway",
    ) -> None:
        """`is_only_owner`: no other process can hold money (SQLite), so all other leases are
        dead.
        """
        self._connect = connect
        self._journal = journal
        self._is_only_owner = is_only_owner
        self._kind = kind
        self._inbox: queue.SimpleQueue[_Pending | None] = queue.SimpleQueue()
        self._resolves: deque[_Pending] = deque()
        self._holds: deque[_Pending] = deque()
        self._waiting: dict[UUID, _Pending] = {}
        self._settling: dict[UUID, _Pending] = {}
        self._known: set[UUID] = set()
        self._checkpoints: dict[UUID, str] = {}
        self._refusals: dict[tuple[int, str, datetime], int] = {}
        self._guard = threading.Lock()
        self._busy_since: float | None = None
        self._renewals = 0
        self._next_duty = 0.0
        self._is_away = True
        self._is_stopping = False
        self._ticker: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self._flusher: Flusher | None = None
        self.incarnation_id = 0
        self.failure: str | None = None  # why this writer can never work, for example fsync = off

    # ---- the event loop's side

    def start(self) -> None:
        """Start the thread; it connects by itself and keeps trying."""
        self._loop = asyncio.get_running_loop()
        self._ticker = self._loop.create_task(self._tick())
        self._thread.start()

    async def stop(self) -> None:
        """Flush what is waiting, end the lease and stop the thread; at most 5 s."""
        self._is_stopping = True
        self._inbox.put(None)
        await self._loop.run_in_executor(None, self._thread.join, 5.0)
        if self._ticker is not None:
            self._ticker.cancel()
        left = [pending for pending in self._settling.values() if not pending.is_journaled]
        if left:
            await self._journal_now(left)
        self._journal.close()

    @property
    def is_available(self) -> bool:
        """Whether holds can be placed now: connected, and no commit hangs."""
        began = self._busy_since
        return not self._is_away and (began is None or time.monotonic() - began < HOLD_SECONDS)

    async def place(self, hold: PlaceHold) -> Held | HoldRefused:
        """Commit a hold. Raises LedgerUnavailable or LedgerBusy; then nothing stays held.

        Where the caller is cancelled or gives up, a hold that commits afterwards is voided.
        """
        if not self.is_available:
            raise LedgerUnavailable
        if len(self._waiting) >= WAITING_MAX:
            raise LedgerBusy
        pending = _Pending(hold, self._loop.create_future(), time.monotonic())
        self._waiting[hold.request_id] = pending
        self._known.add(hold.request_id)
        self._inbox.put(pending)
        answer = await pending.future
        assert not isinstance(answer, Resolved)  # noqa: S101 (narrows the type)
        return answer

    async def resolve(self, resolve: Resolve) -> None:
        """End a hold and return when that is durable: committed, or fsynced to the journal."""
        await self.submit(resolve)

    def submit(self, resolve: Resolve) -> asyncio.Future[Held | HoldRefused | Resolved]:
        """Hand in the end of a hold.

        The future is done when it is durable. It must not be cancelled.
        """
        self._checkpoints.pop(resolve.request_id, None)
        pending = _Pending(resolve, self._loop.create_future(), time.monotonic())
        self._settling[resolve.request_id] = pending
        self._inbox.put(pending)
        return pending.future

    def note_checkpoint(self, request_id: UUID, text: str) -> None:
        """Have the usage so far of a running call written with the next heartbeat."""
        with self._guard:
            self._checkpoints[request_id] = text

    def count_refusal(self, api_key_id: int, code: str, now: datetime) -> None:
        """Count a refused call; at most 10,000 different counts wait for the next heartbeat."""
        key = (api_key_id, code, now.replace(second=0, microsecond=0))
        with self._guard:
            if key in self._refusals or len(self._refusals) < 10_000:
                self._refusals[key] = self._refusals.get(key, 0) + 1

    def figures(self) -> dict[str, int]:
        """Return queue lengths, for readiness and metrics."""
        return {
            "holds_waiting": len(self._waiting),
            "settlements_waiting": len(self._settling),
            "journal": len(self._journal),
            "incarnation": self.incarnation_id,
        }

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            now = time.monotonic()
            for pending in _overdue(self._waiting, now - HOLD_SECONDS):
                self._waiting.pop(pending.command.request_id, None)
                if not pending.future.done():
                    pending.future.set_exception(LedgerUnavailable())
            late = [
                pending
                for pending in _overdue(self._settling, now - JOURNAL_AFTER_SECONDS)
                if not pending.is_journaled
            ]
            if late:
                await self._journal_now(late)

    async def _journal_now(self, late: list[_Pending]) -> None:
        commands = [p.command for p in late if isinstance(p.command, Resolve)]
        try:
            await self._loop.run_in_executor(None, self._journal.append, commands)
        except JournalFull:
            # Nothing is lost: the settlements stay in memory and their calls keep waiting.
            logger.error("the settlement journal cannot be written; settlements wait in memory")
            return
        for pending in late:
            pending.is_journaled = True
            self._settling.pop(pending.command.request_id, None)
            if not pending.future.done():
                pending.future.set_result(Resolved(pending.command.request_id, 0))

    def _deliver(self, outcomes: list[tuple[_Pending, Outcome]]) -> None:
        for pending, answer in outcomes:
            request_id = pending.command.request_id
            if isinstance(pending.command, PlaceHold):
                self._waiting.pop(request_id, None)
                if pending.future.done():
                    self._give_back(pending.command, answer)
                    continue
                if not isinstance(answer, Held):
                    self._known.discard(request_id)
            else:
                self._settling.pop(request_id, None)
                self._known.discard(request_id)
            if pending.future.done():
                continue
            if isinstance(answer, Trouble):
                pending.future.set_exception(LedgerUnavailable())
            else:
                pending.future.set_result(answer)

    def _give_back(self, hold: PlaceHold, answer: Outcome) -> None:
        """Void a hold that was granted after its caller had gone."""
        if not isinstance(answer, Held):
            self._known.discard(hold.request_id)
            return
        now = datetime.now(UTC)
        self.submit(
            reaper.void(
                hold, answer, state=RequestState.VOIDED, error_code="hold_abandoned", now=now
            )
        )

    # ---- the thread's side

    def _run(self) -> None:
        engine: Engine | None = None
        self._next_duty = 0.0
        while True:
            try:
                engine, is_done = self._turn(engine)
            except Exception:
                # A bug must not end the thread: every call waits for it. The connection starts
                # afresh.
                logger.exception("the ledger writer stumbled")
                engine, is_done = _close(engine) if engine else None, False
                self._is_away = True
                time.sleep(_RECONNECT_SECONDS)
            if is_done:
                break
        if engine is not None:
            if self._flusher is not None:
                self._flusher.end_lease()
            engine.close()

    def _turn(self, engine: Engine | None) -> tuple[Engine | None, bool]:
        """Do one round of work and return the connection, if it still stands, and whether to
        stop.
        """
        is_idle = not self._resolves and not self._holds
        wait = max(0.0, min(self._next_duty - time.monotonic(), 1.0)) if is_idle else 0.0
        self._collect(wait if engine else _RECONNECT_SECONDS)
        if engine is None:
            engine = self._try_connect()
            self._next_duty = 0.0
        if engine is not None and not self._work(engine):
            engine = _close(engine)
        if engine is not None and time.monotonic() >= self._next_duty:
            self._next_duty = time.monotonic() + DUTY_SECONDS
            if not self._do_duties(engine):
                engine = _close(engine)
        if engine is None:
            self._is_away = True
            self._fail_holds()
        is_empty = not self._resolves and not self._holds and self._inbox.empty()
        return engine, self._is_stopping and (is_empty or engine is None)

    def _collect(self, wait: float) -> None:
        """Move what has been submitted into the queues."""
        try:
            pending = self._inbox.get(timeout=wait) if wait > 0 else self._inbox.get_nowait()
            while True:
                if pending is None:
                    pass  # It only wakes the thread, to stop.
                elif isinstance(pending.command, Resolve):
                    self._resolves.append(pending)
                else:
                    self._holds.append(pending)
                pending = self._inbox.get_nowait()
        except queue.Empty:
            return

    def _try_connect(self) -> Engine | None:
        try:
            engine = self._connect()
        except Exception as error:  # noqa: BLE001 (drivers raise what they like; each means: away)
            logger.warning("the ledger's database cannot be reached: %s", type(error).__name__)
            time.sleep(_RECONNECT_SECONDS)
            return None
        try:
            self.failure = engine.check_durability()
            if self.failure:
                logger.critical(self.failure)
                return _close(engine)
            self._flusher = Flusher(engine, previous=self._flusher)
            if self.incarnation_id == 0 or not engine.renew(self.incarnation_id, LEASE_SECONDS):
                self._open_lease(engine)
            self._flusher.use_lease(self.incarnation_id)
            self._journal.adopt_abandoned()
            self._replay_journal()
            self._renewals = 0
        except Exception:
            logger.exception("the ledger's database was reached but cannot be used")
            return _close(engine)
        self._is_away = False
        return engine

    def _open_lease(self, engine: Engine) -> None:
        self.incarnation_id = engine.open_incarnation(
            kind=self._kind, host=socket.gethostname(), pid=os.getpid(), lease_seconds=LEASE_SECONDS
        )

    def _work(self, engine: Engine) -> bool:
        """Flush batches until nothing waits and return False where the connection broke."""
        while self._resolves or self._holds:
            resolves, holds = self._next_batch()
            if not resolves and not holds:
                return True
            if not self._flush(engine, resolves, holds):
                return False
            self._collect(0.0)
        return True

    def _next_batch(self) -> tuple[list[_Pending], list[_Pending]]:
        resolves: list[_Pending] = []
        size = 0
        while self._resolves and len(resolves) < BATCH_ROWS and size < BATCH_BYTES:
            pending = self._resolves.popleft()
            if pending.is_journaled:
                continue
            resolves.append(pending)
            assert isinstance(pending.command, Resolve)  # noqa: S101 (narrows the type)
            size += pending.command.size()
        holds: list[_Pending] = []
        while self._holds and len(resolves) + len(holds) < BATCH_ROWS:
            pending = self._holds.popleft()
            if not pending.future.done():
                holds.append(pending)
            else:
                self._known.discard(pending.command.request_id)
        return resolves, holds

    def _flush(self, engine: Engine, resolves: list[_Pending], holds: list[_Pending]) -> bool:
        assert self._flusher is not None  # noqa: S101 (set when connected)
        self._busy_since = time.monotonic()
        try:
            ended, held = self._flusher.flush(
                [p.command for p in resolves if isinstance(p.command, Resolve)],
                [p.command for p in holds if isinstance(p.command, PlaceHold)],
            )
        except IncarnationEnded:
            logger.warning("lease %s was ended by others; taking a new one", self.incarnation_id)
            self._resolves.extendleft(reversed(resolves))
            self._holds.extendleft(reversed(holds))
            self._open_lease(engine)
            self._flusher.use_lease(self.incarnation_id)
            return True
        finally:
            self._busy_since = None
        outcomes: list[tuple[_Pending, Outcome]] = []
        kept: list[_Pending] = []
        for pending, outcome in zip(resolves + holds, ended + held, strict=True):
            if isinstance(outcome, Trouble) and isinstance(pending.command, Resolve):
                kept.append(pending)  # A settlement is never dropped: it is tried again.
            else:
                outcomes.append((pending, outcome))
        self._resolves.extendleft(reversed(kept))
        self._hand_over(outcomes)
        return not self._flusher.is_broken

    def _hand_over(self, outcomes: list[tuple[_Pending, Outcome]]) -> None:
        if outcomes and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._deliver, outcomes)

    def _fail_holds(self) -> None:
        failed = [(pending, Trouble()) for pending in self._holds]
        self._holds.clear()
        self._hand_over(list(failed))

    def _do_duties(self, engine: Engine) -> bool:
        """Renew the lease and do what is due; return False where the connection broke."""
        self._busy_since = time.monotonic()
        try:
            if not engine.renew(self.incarnation_id, LEASE_SECONDS):
                logger.warning(
                    "lease %s was ended by others; taking a new one", self.incarnation_id
                )
                self._open_lease(engine)
                assert self._flusher is not None  # noqa: S101 (set when connected)
                self._flusher.use_lease(self.incarnation_id)
            self._write_notes(engine)
            if self._replay_journal():
                self._void_strangers(engine)
            self._renewals += 1
            # After an outage every lease is old; living owners get time to renew theirs first.
            if self._is_only_owner or self._renewals > 1:
                self._reap(engine)
            if self._renewals % int(PARTITION_SECONDS / DUTY_SECONDS) == 1:
                engine.make_partitions(datetime.now(UTC))
        except Exception:
            logger.exception("the ledger writer could not do its duties")
            return False
        finally:
            self._busy_since = None
        return True

    def _write_notes(self, engine: Engine) -> None:
        with self._guard:
            checkpoints, self._checkpoints = self._checkpoints, {}
            refusals, self._refusals = self._refusals, {}
        if checkpoints:
            engine.checkpoint(sorted(checkpoints.items()))
        if refusals:
            engine.count_refusals([(*key, count) for key, count in sorted(refusals.items())])

    def _replay_journal(self) -> bool:
        """Settle what the journal holds and return whether nothing is left in it."""
        if not len(self._journal):
            return True
        assert self._flusher is not None  # noqa: S101 (set when connected)
        found = self._journal.read()
        logger.warning("replaying %d settlements from the journal", len(found))
        for start in range(0, len(found), BATCH_ROWS):
            part = found[start : start + BATCH_ROWS]
            ended, _ = self._flusher.flush(part, [])
            if any(isinstance(outcome, Trouble) for outcome in ended):
                return False  # What had been committed adds nothing the next time.
            self._journal.discard(len(part))
            self._known.difference_update(resolve.request_id for resolve in part)
        return True

    def _void_strangers(self, engine: Engine) -> None:
        assert self._flusher is not None  # noqa: S101 (set when connected)
        own = engine.own_holds(self.incarnation_id, STRANGER_SECONDS)
        known = self._known
        strangers = [hold for hold in own if hold["request_id"] not in known]
        now = datetime.now(UTC)
        for start in range(0, len(strangers), reaper.REAP_BATCH):
            part = strangers[start : start + reaper.REAP_BATCH]
            self._flusher.flush([reaper.resolve_stranger(hold, now=now) for hold in part], [])

    def _reap(self, engine: Engine) -> None:
        assert self._flusher is not None  # noqa: S101 (set when connected)
        dead = reaper.list_dead(
            engine, own_id=self.incarnation_id, all_others=self._is_only_owner, grace_seconds=0
        )
        for incarnation_id in dead:
            ends = reaper.resolve_dead(engine, incarnation_id, now=datetime.now(UTC))
            while ends:
                outcomes, _ = self._flusher.flush(ends, [])
                resolved = sum(isinstance(outcome, Resolved) for outcome in outcomes)
                logger.warning("resolved %d holds of dead incarnation %d", resolved, incarnation_id)
                if resolved < len(ends):
                    break
                # Running calls do not wait for a long clean-up.
                self._collect(0.0)
                if not self._work(engine):
                    raise ConnectionError("the connection broke while reaping")
                self._busy_since = time.monotonic()
                ends = reaper.resolve_dead(engine, incarnation_id, now=datetime.now(UTC))


def _overdue(waiting: dict[UUID, _Pending], before: float) -> list[_Pending]:
    """Return those that have waited since `before`; they are in the order of their submission."""
    found = []
    for pending in waiting.values():
        if pending.since > before:
            break
        found.append(pending)
    return found


def _close(engine: Engine) -> None:
    try:
        engine.close()
    except Exception as error:  # noqa: BLE001 (a broken connection may fail to close in any way)
        logger.debug("closing a broken connection failed: %s", type(error).__name__)
    return None
