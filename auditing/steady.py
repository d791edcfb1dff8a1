"""The scheduler of beat, which neither a wall clock that is set back nor a full disk stops.

Celery's own waits until the clock is again where it was, however long that is and over restarts,
and ends where the file cannot be written in which it keeps when each task ran last.
"""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from typing import Any, Final

from celery.beat import ScheduleEntry, Scheduler
from celery.schedules import schedstate, schedule

logger = logging.getLogger(__name__)

FIRST_SECONDS: Final = 60.0
# An hour of tasks. What waits takes memory of Redis, also when it has long expired.
QUEUE_MAX: Final = 1_000


class SteadyScheduler(Scheduler):
    """Waits by the monotonic clock, and never longer than a task's period.

    Nothing is kept on disk. After a start each task runs within FIRST_SECONDS: with half a day
    between two runs, one would never come in a worker that is started anew every day.
    """

    _is_holding_back = False

    def setup_schedule(self) -> None:
        """Make the table of what is to be run."""
        super().setup_schedule()
        for entry in self.schedule.values():
            spared = (_period_of(entry) or 0) - FIRST_SECONDS
            if spared > 0:
                entry.last_run_at = entry.default_now() - timedelta(seconds=spared)

    def apply_entry(self, entry: ScheduleEntry, producer: Any = None) -> None:
        """Send a task, unless so many wait that no worker can be there."""
        waiting = self._count_waiting()
        if waiting >= QUEUE_MAX:
            if not self._is_holding_back:
                logger.warning(
                    "%d tasks wait in the queue: no more are sent until a worker takes them",
                    waiting,
                )
            self._is_holding_back = True
            return
        if self._is_holding_back:
            logger.info("tasks are sent again")
        self._is_holding_back = False
        super().apply_entry(entry, producer=producer)

    def is_due(self, entry: ScheduleEntry) -> tuple[bool, float]:
        """Return whether the task is due, and the seconds until it has to be looked at again."""
        due, seconds = super().is_due(entry)
        period = _period_of(entry)
        if period is not None and seconds > period:
            # Its last run lies in the future: the clock has been set back since.
            return schedstate(is_due=True, next=period)
        return due, seconds

    def _when(self, entry: ScheduleEntry, next_time_to_run: float, mktime: Any = None) -> float:
        """Return the place in the queue of what is to be looked at in so many seconds."""
        period = _period_of(entry)
        if period is not None and next_time_to_run > period:
            next_time_to_run = 0
        return time.monotonic() + (self.adjust(next_time_to_run) or 0)  # type: ignore[arg-type]  # Seconds.

    def _count_waiting(self) -> int:
        """Return how many tasks wait; 0 where the broker does not say, as sending then will."""
        broker: Any = self.connection
        try:
            # A channel of its own: that of the producer is closed after a failure.
            with broker.channel() as channel:
                found = channel.queue_declare(queue=self.app.conf.task_default_queue)
        except (*broker.connection_errors, *broker.channel_errors):
            return 0
        return int(found.message_count)


def _period_of(entry: ScheduleEntry) -> float | None:
    """Return the seconds between two runs, or None for a time of day."""
    return entry.schedule.seconds if isinstance(entry.schedule, schedule) else None
