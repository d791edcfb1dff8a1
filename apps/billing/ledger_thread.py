"""The thread that owns the ledger's connection: it flushes what gathered as soon as it can.

A batch is what came while the previous one committed, and where that is little, what those who were
answered by it ask for next. The same thread renews the lease and does the `Duties`. Where the
connection breaks, it opens another one at once; what was in flight is found out and done again.

Bounds: BATCH_ROWS and BATCH_BYTES a batch, GATHER_SECONDS for a small one, and the times of `Pace`.

Over 400 lines because it is one loop over one state, which no other thread may touch.
"""

from __future__ import annotations

import logging
import os
import queue
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple
from uuid import UUID

from apps.billing import reaper
from apps.billing.duties import BATCH_BYTES, BATCH_ROWS, Duties, Duty
from apps.billing.flushing import LOCKED_SECONDS, Flusher, Locked, Outcome, Trouble
from apps.billing.journal import Journal
from apps.billing.ledger.commands import PlaceHold, Resolve
from apps.billing.ledger.store import Engine, IncarnationEnded
from apps.billing.pending import Notes, Pace, Pending
from apps.core.instruments import Histogram

_BATCH_BOUNDS: Final = (1, 2, 5, 10, 20, 50, 100, 200, BATCH_ROWS)
_COMMIT_BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 10)
# A batch of fewer commands waits until those who were answered last have asked for more, at most so
# long: two small batches take longer than one, and the database twice as long.
SMALL_BATCH: Final = 24
GATHER_SECONDS: Final = 0.003
_OWN_HOLDS_MAX: Final = 20_000
_RECONNECT_SECONDS: Final = 0.25
CONNECT_TRIES: Final = 3  # before a server that is not there counts as away

logger = logging.getLogger(__name__)


class _Unusable(NamedTuple):
    """Why there is no connection."""

    error: Exception
    is_reached: bool  # the server took the connection, which broke while it was taken up


class LedgerThread:
    """Flushes, and tells `deliver` (in this thread) what became of each command."""

    def __init__(
        self,
        *,
        connect: Callable[[], Engine],
        journal: Journal,
        is_only_owner: bool,
        kind: str,
        pace: Pace,
        deliver: Callable[[list[tuple[Pending, Outcome]]], None],
    ) -> None:
        self._connect = connect
        self._journal = journal
        self._kind = kind
        self._pace = pace
        self._deliver = deliver
        self._inbox: queue.SimpleQueue[Pending | None] = queue.SimpleQueue()
        self._resolves: deque[Pending] = deque()
        self._holds: deque[Pending] = deque()
        # Settlements on accounts that somebody else keeps locked, with when to try them again.
        self._aside: deque[tuple[float, Pending]] = deque()
        self._engine: Engine | None = None
        self._flusher: Flusher
        self._quarantined: set[UUID] = set()
        self._busy_since: float | None = None
        self._renewed_at = 0.0
        self._next_duty = 0.0
        self._is_away = True
        self._has_warned = False
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="ledger-writer", daemon=True)
        self.notes = Notes()
        self.is_quiet = threading.Event()  # nobody is still busy with the last answers
        self.is_quiet.set()
        self.known: set[UUID] = set()  # the calls of this process that may have a hold
        self.incarnation_id = 0
        self.answered_at = 0.0  # monotonic; when the database last answered
        self.batch_commands = Histogram(_BATCH_BOUNDS)
        self.commit_seconds = Histogram(_COMMIT_BOUNDS)
        self.failure: str | None = None  # why this database can never be used, e.g. fsync = off
        self._duties = Duties(
            journal=journal,
            notes=self.notes,
            pace=pace,
            is_only_owner=is_only_owner,
            known=self.known,
            quarantined=self._quarantined,
            breathe=self._breathe,
        )

    # ---- for the other threads

    @property
    def clock_offset_seconds(self) -> float:
        """How far the host's clock is ahead of the database's; below 0 behind."""
        return self._duties.clock.offset_seconds

    def start(self) -> None:
        """Start; it connects by itself and keeps trying."""
        self._thread.start()

    def put(self, pending: Pending) -> None:
        """Hand a command over."""
        self._inbox.put(pending)

    def stop(self, timeout_seconds: float) -> None:
        """Flush what is waiting, end the lease and stop. Blocks."""
        self._is_stopping = True
        self._inbox.put(None)
        self._thread.join(timeout_seconds)

    @property
    def is_available(self) -> bool:
        """Whether holds can be placed now: connected, or about to be, and no statement hangs."""
        began = self._busy_since
        return not self._is_away and (began is None or time.monotonic() - began < self._pace.hold)

    @property
    def quarantined_count(self) -> int:
        """How many settlements the database took in no form."""
        return len(self._quarantined)

    def cut_if_hanging(self) -> None:
        """Cut the connection under a statement that does not return.

        A database that is frozen, or behind a network that swallows everything, never answers, and
        its kernel goes on acknowledging.
        """
        began, engine = self._busy_since, self._engine
        if began is None or engine is None or time.monotonic() - began < self._pace.hang:
            return
        self._busy_since = time.monotonic()
        self._is_away = True
        logger.error("the ledger's database does not answer; its connection is cut")
        engine.abort()

    # ---- the thread

    def _run(self) -> None:
        is_done = False
        while not is_done:
            try:
                is_done = self._turn()
            except Exception:  # whatever it is, the thread goes on
                # A bug must not end the thread: every call waits for it. What was in flight is
                # refused (holds) or goes to the journal (settlements) when its time is up.
                logger.exception("the ledger writer stumbled")
                self._close()
                self._is_away = True
                time.sleep(_RECONNECT_SECONDS)
        if self._engine is not None:
            self._write_last_notes(self._engine)
            self._flusher.end_lease()
            self._close()

    def _write_last_notes(self, engine: Engine) -> None:
        """Write what was noted since the last heartbeat."""
        for write in (self.notes.write_checkpoints, self.notes.write_refusals):
            try:
                write(engine)
            except Exception as error:  # noqa: BLE001 (whatever it is, the lease has to be ended)
                logger.warning(
                    "%s was not done: %s: %s", write.__name__, type(error).__name__, error
                )

    def _turn(self) -> bool:
        """Do one round of work and return whether to stop."""
        if self._engine is not None:
            is_idle = not self._resolves and not self._holds
            until = min(self._next_duty, self.answered_at + self._pace.probe)
            if self._aside:
                until = min(until, self._aside[0][0])
            self._collect(max(0.0, until - time.monotonic()) if is_idle else 0.0)
        else:
            self._collect(0.0)
        if self._engine is None:
            self._reconnect()
        while self._aside and self._aside[0][0] <= time.monotonic():
            self._resolves.append(self._aside.popleft()[1])
        if self._engine is not None and not self._work():
            is_refusing = self._answers(self._engine)
            self._close()
            if is_refusing:
                time.sleep(_RECONNECT_SECONDS)  # It is there and takes no writes: a full disk.
        if self._engine is not None and time.monotonic() >= self._next_duty:
            self._next_duty = time.monotonic() + self._pace.duty
            if not self._do_duties():
                self._close()
        elif self._engine is not None and not self._probe(self._engine):
            self._close()
        is_empty = not self._resolves and not self._holds and self._inbox.empty()
        return self._is_stopping and (is_empty or self._engine is None)

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

    def _reconnect(self) -> None:
        """Connect and take up what was left, or refuse all holds that wait.

        A server that is not there is asked CONNECT_TRIES times. One that is, and whose connections
        break one after the other, is given half of the time that a hold may wait.
        """
        began = self._busy_since = time.monotonic()
        patience = 0.0 if self._is_away else self._pace.hold / 2
        unreached = 0
        try:
            while (trouble := self._connect_once()) is not None:
                unreached += not trouble.is_reached
                is_late = time.monotonic() - began >= patience
                if is_late or unreached == CONNECT_TRIES:
                    break
        finally:
            self._busy_since = None
        if trouble is not None:
            what = "was reached but cannot be used" if trouble.is_reached else "cannot be reached"
            self._warn_once(what, trouble.error)
        if self._engine is None:
            self._is_away = True
            self._hand_over([(pending, Trouble()) for pending in self._holds])
            self._holds.clear()
            time.sleep(_RECONNECT_SECONDS)

    def _connect_once(self) -> _Unusable | None:
        """Open a connection and take up what was left; return what went wrong, if anything."""
        try:
            self._engine = self._connect()
            self._is_away = not self._take_up(self._engine)
        except Exception as error:  # noqa: BLE001 (drivers raise what they like; each means: away)
            is_reached = self._engine is not None
            self._close()
            return _Unusable(error, is_reached)
        return None

    def _warn_once(self, what: str, error: Exception) -> None:
        """Log the beginning of an outage, not each attempt to end it."""
        if not self._has_warned:
            self._has_warned = True
            logger.error("the ledger's database %s: %s: %s", what, type(error).__name__, error)

    def _take_up(self, engine: Engine) -> bool:
        failure = engine.check_durability()
        if failure and failure != self.failure:
            logger.critical(failure)
        self.failure = failure
        if failure:
            self._close()
            return False
        self._flusher = Flusher(
            engine, keep=self._journal.quarantine, quarantined=self._quarantined
        )
        if self.incarnation_id == 0 or not engine.renew(self.incarnation_id, self._pace.lease):
            self._open_lease(engine)
            self._refuse_doubtful()
        self._flusher.use_lease(self.incarnation_id)
        self._duties.use(self._flusher)
        self._find_doubtful(engine)
        if self._has_warned:
            self._has_warned = False
            logger.warning("the ledger's database is reached again")
        self._next_duty = 0.0
        self.answered_at = time.monotonic()
        return True

    def _open_lease(self, engine: Engine) -> None:
        self.incarnation_id = engine.open_incarnation(
            kind=self._kind,
            host=socket.gethostname(),
            pid=os.getpid(),
            lease_seconds=self._pace.lease,
        )
        self._flusher.use_lease(self.incarnation_id)

    def _refuse_doubtful(self) -> None:
        """Refuse the holds of which nobody knows whether they were committed before others ended
        the lease: they may have been resolved since, and then must not be placed again.
        """
        doubtful = [pending for pending in self._holds if pending.is_doubtful]
        self._holds = deque(pending for pending in self._holds if not pending.is_doubtful)
        self._hand_over([(pending, Trouble()) for pending in doubtful])

    def _find_doubtful(self, engine: Engine) -> None:
        """Answer the holds that had been committed when the connection broke; repeat the others."""
        doubtful = [pending for pending in self._holds if pending.is_doubtful]
        if not doubtful:
            return
        placed = {
            row["request_id"]: row for row in engine.orphans(self.incarnation_id, _OWN_HOLDS_MAX)
        }
        self._holds = deque(p for p in self._holds if p.command.request_id not in placed)
        found: list[tuple[Pending, Outcome]] = [
            (pending, reaper.held_of(placed[pending.command.request_id]))
            for pending in doubtful
            if pending.command.request_id in placed
        ]
        self._hand_over(found)

    def _close(self) -> None:
        engine, self._engine = self._engine, None
        if engine is None:
            return
        try:
            engine.close()
        except Exception as error:  # noqa: BLE001 (a broken connection may fail to close in any way)
            logger.debug("closing a broken connection failed: %s", type(error).__name__)

    # ---- flushing

    def _work(self) -> bool:
        """Flush until nothing waits or duties do; return False where the connection broke."""
        while self._resolves or self._holds:
            self._gather()
            resolves, holds = self._next_batch()
            if not resolves and not holds:
                return True
            if not self._flush(resolves, holds):
                return False
            self._collect(0.0)
            if time.monotonic() >= self._next_duty:
                break  # Under a load that never ends the lease has to be renewed, too.
        return True

    def _gather(self) -> None:
        """Let a small batch grow while the last answers are still being worked on."""
        if len(self._resolves) + len(self._holds) < SMALL_BATCH:
            self.is_quiet.wait(GATHER_SECONDS)
            self._collect(0.0)

    def _next_batch(self) -> tuple[list[Pending], list[Pending]]:
        resolves: list[Pending] = []
        size = 0
        while self._resolves and len(resolves) < BATCH_ROWS and size < BATCH_BYTES:
            pending = self._resolves.popleft()
            if pending.is_journaled:
                continue
            resolves.append(pending)
            assert isinstance(pending.command, Resolve)  # noqa: S101 (narrows the type)
            size += pending.command.size()
        holds: list[Pending] = []
        while self._holds and len(resolves) + len(holds) < BATCH_ROWS:
            pending = self._holds.popleft()
            if not pending.future.done():
                holds.append(pending)
            else:
                self.known.discard(pending.command.request_id)
        return resolves, holds

    def _flush(self, resolves: list[Pending], holds: list[Pending]) -> bool:
        self._busy_since = began = time.monotonic()
        try:
            ended, held = self._flusher.flush(
                [p.command for p in resolves if isinstance(p.command, Resolve)],
                [p.command for p in holds if isinstance(p.command, PlaceHold)],
            )
        except IncarnationEnded:
            self._resolves.extendleft(reversed(resolves))
            self._holds.extendleft(reversed(holds))
            self._replace_lease()
            return True
        finally:
            self._busy_since = None
        outcomes: list[tuple[Pending, Outcome]] = []
        kept: list[Pending] = []
        for pending, outcome in zip(resolves + holds, ended + held, strict=True):
            if isinstance(outcome, Locked) and isinstance(pending.command, Resolve):
                self._aside.append((time.monotonic() + LOCKED_SECONDS, pending))
            elif isinstance(outcome, Trouble):
                pending.is_doubtful = True
                kept.append(pending)  # It is tried again with the next connection.
            else:
                outcomes.append((pending, outcome))
        self._resolves.extendleft(p for p in reversed(kept) if isinstance(p.command, Resolve))
        self._holds.extendleft(p for p in reversed(kept) if isinstance(p.command, PlaceHold))
        self._hand_over(outcomes)
        if not self._flusher.is_broken:
            self.answered_at = time.monotonic()
            self.commit_seconds.observe(self.answered_at - began)
            self.batch_commands.observe(len(resolves) + len(holds))
            self._is_away = False  # Also after a statement that had been given up returned at last.
        return not self._flusher.is_broken

    def _replace_lease(self) -> None:
        assert self._engine is not None  # noqa: S101 (called with a connection only)
        logger.warning("lease %d was ended by others; taking a new one", self.incarnation_id)
        self._open_lease(self._engine)

    def _hand_over(self, outcomes: list[tuple[Pending, Outcome]]) -> None:
        if outcomes:
            self.is_quiet.clear()
            self._deliver(outcomes)

    # ---- duties

    def _answers(self, engine: Engine) -> bool:
        """Return whether a connection on which a batch failed is whole."""
        self._busy_since = time.monotonic()
        try:
            engine.ping()
        except Exception:  # noqa: BLE001 (drivers raise what they like; each means: broken)
            return False
        finally:
            self._busy_since = None
        return True

    def _probe(self, engine: Engine) -> bool:
        """Ask a database that had nothing to do; return False where the connection broke.

        So an idle process knows within a second that its database is gone, and takes no calls.
        """
        if time.monotonic() < self.answered_at + self._pace.probe:
            return True
        self._busy_since = time.monotonic()
        try:
            engine.ping()
        except Exception as error:  # noqa: BLE001 (drivers raise what they like; each means: away)
            self._warn_once("does not answer", error)
            return False
        finally:
            self._busy_since = None
        self.answered_at = time.monotonic()
        self._is_away = False  # Also after a probe that had been given up returned at last.
        return True

    def _do_duties(self) -> bool:
        """Renew the lease and do what is due; return False where the connection broke."""
        engine = self._engine
        assert engine is not None  # noqa: S101 (called with a connection only)
        self._busy_since = time.monotonic()
        try:
            self._renew(engine)
            self.answered_at = time.monotonic()
            for duty in self._duties.list_due():
                self._try_duty(duty, engine)
                self._let_through()
        except Exception as error:  # noqa: BLE001 (whatever it is: with a fresh connection, again)
            logger.warning("the ledger's connection broke: %s: %s", type(error).__name__, error)
            time.sleep(_RECONNECT_SECONDS)
            return False
        finally:
            self._busy_since = None
        if not self._flusher.is_broken:
            self.answered_at = time.monotonic()
            self._is_away = False
        return not self._flusher.is_broken

    def _renew(self, engine: Engine) -> None:
        self._renewed_at = time.monotonic()
        if not engine.renew(self.incarnation_id, self._pace.lease):
            self._replace_lease()

    def _try_duty(self, duty: Duty, engine: Engine) -> None:
        """Do one duty. Where it fails the others are done; raises only for a broken connection."""
        try:
            duty(engine)
        except Exception as error:  # noqa: BLE001 (one duty must not stop the others)
            name = getattr(duty, "__name__", "a duty")
            logger.error("%s was not done: %s: %s", name, type(error).__name__, error)
            engine.ping()

    def _let_through(self) -> None:
        """Flush one batch between two duties: over a slow connection all of them take seconds."""
        self._collect(0.0)
        resolves, holds = self._next_batch()
        if (resolves or holds) and not self._flush(resolves, holds):
            raise ConnectionError("the connection broke")
        self._busy_since = time.monotonic()

    def _breathe(self) -> None:
        """Let running calls through in the middle of a long clean-up."""
        self._collect(0.0)
        if not self._work() or self._engine is None:
            raise ConnectionError("the connection broke")
        self.answered_at = time.monotonic()
        self._busy_since = time.monotonic()
        if time.monotonic() - self._renewed_at > self._pace.duty:
            self._renew(self._engine)
