"""A worker that takes no more tasks ends, so that whoever keeps it starts it again.

A connection to the broker that is dead without an error, a beat that hangs, a main thread that
stands still: they look alike from here, and a start mends them. A task that runs long is no
idleness, and the end of a worker never loses one: every task is safe to repeat.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Any, Final

from celery import bootsteps

from auditing.beat import WORKER_STATE, end_worker

logger = logging.getLogger(__name__)

# Beat sends something every 15 seconds, of which each of forty workers gets one in this time.
IDLE_SECONDS_MAX: Final = 600.0
_WATCH_SECONDS: Final = 1.0


class Idleness:
    """Tells since when a worker has had nothing to do. `now` is monotonic, in seconds."""

    def __init__(self, now: float) -> None:
        self._since = now
        self._taken = 0

    def seconds_at(self, now: float, *, taken: int, is_busy: bool) -> float:
        """Return for how long it has had nothing, after so many tasks since its start."""
        if is_busy or taken != self._taken:
            self._since, self._taken = now, taken
        return now - self._since


class IdleWatch(bootsteps.StartStopStep):
    """Ends a worker to which nothing comes."""

    requires = ("celery.worker.components:Pool",)

    def __init__(self, parent: Any, **_: Any) -> None:
        self._is_over = threading.Event()

    def start(self, parent: Any) -> None:
        """Look on from a thread of its own: what hangs may be the worker's own timer."""
        watch = threading.Thread(target=self._watch, name="idleness", daemon=True)
        watch.start()

    def stop(self, parent: Any) -> None:
        """Look away."""
        self._is_over.set()

    terminate = stop

    def _watch(self) -> None:
        idleness = Idleness(time.monotonic())
        while not self._is_over.wait(_WATCH_SECONDS):
            seconds = idleness.seconds_at(
                time.monotonic(),
                taken=WORKER_STATE.all_total_count[0],
                is_busy=bool(WORKER_STATE.active_requests),
            )
            if seconds >= IDLE_SECONDS_MAX:
                logger.error(
                    "no task has come for %.0f s; the worker ends, so that it is started again",
                    seconds,
                )
                end_worker()
                return
