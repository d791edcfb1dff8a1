"""Beat as a process of the worker (`celery worker -B`): when it dies, the worker ends too.

Celery does not see to that. A beat beside the worker costs 85 MB, which a fork of it shares.
"""

from __future__ import annotations

import logging
import os
import threading
from typing import Any, Final

from celery import bootsteps
from celery.platforms import EX_FAILURE
from celery.worker import state

logger = logging.getLogger(__name__)

_WATCH_SECONDS: Final = 1.0
# What a task may still take after beat has died: every task is safe to repeat.
_STOP_SECONDS: Final = 5.0
# Celery's types know only what these flags are before anything stops.
WORKER_STATE: Final[Any] = state


class BeatWatch(bootsteps.StartStopStep):
    """Ends a worker whose beat has died, so that whoever keeps the worker starts both anew."""

    requires = ("celery.worker.components:Beat", "celery.worker.components:Timer")
    _watch: Any

    def include_if(self, parent: Any) -> bool:
        """Return whether the worker has a beat at all."""
        return parent.beat is not None

    def start(self, parent: Any) -> None:
        """Look after beat until the worker stops; beat has been started just before."""
        self._watch = parent.timer.call_repeatedly(_WATCH_SECONDS, _end_without, (parent.beat,))

    def stop(self, parent: Any) -> None:
        """Look away: the worker ends its beat next."""
        self._watch.cancel()

    terminate = stop


def _end_without(beat: Any) -> None:
    # A signal to the whole group ends beat at once and the worker a little later.
    if beat.is_alive() or _is_stopping():
        return
    logger.error("beat has died; the worker ends, so that both are started again")
    end_worker()


def end_worker() -> None:
    """End this process as failed: in order, or after _STOP_SECONDS however it stands."""
    WORKER_STATE.should_stop = EX_FAILURE
    bound = threading.Timer(_STOP_SECONDS, os._exit, (EX_FAILURE,))
    bound.daemon = True
    bound.start()


def _is_stopping() -> bool:
    # The flags hold an exit status, which may be 0.
    flags = (WORKER_STATE.should_stop, WORKER_STATE.should_terminate)
    return any(flag is not None and flag is not False for flag in flags)
