"""The scheduler of beat, which a wall clock that is set back does not stop.

Celery's own waits until the clock is again where it was, however long that is and over restarts.
"""

from __future__ import annotations

import time
from typing import Any

from celery.beat import PersistentScheduler, ScheduleEntry
from celery.schedules import schedstate, schedule


class SteadyScheduler(PersistentScheduler):
    """Waits by the monotonic clock, and never longer than a task's period."""

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


def _period_of(entry: ScheduleEntry) -> float | None:
    """Return the seconds between two runs, or None for a time of day."""
    return entry.schedule.seconds if isinstance(entry.schedule, schedule) else None
