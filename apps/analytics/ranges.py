"""Ranges of time that statistics are about: UTC, with their first moment and without their last."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

DEFAULT_DAYS: Final = 30
DAYS_MAX: Final = 400


@dataclass(frozen=True, slots=True)
class Range:
    """The moments from `start` on and before `end`."""

    start: datetime
    end: datetime


class RangeInvalid(ValueError):
    """The range ends before it begins, or is longer than DAYS_MAX days."""


def make_range(*, start: datetime | None, end: datetime | None, now: datetime) -> Range:
    """Return the range asked for: without an end until today's, without a start DEFAULT_DAYS long.

    Where neither is given these are whole days, which are summed quickly. Raises RangeInvalid.
    """
    last = day_of(now).end if end is None else end
    found = Range(last - timedelta(days=DEFAULT_DAYS) if start is None else start, last)
    if found.end < found.start:
        raise RangeInvalid("The range ends before it begins.")
    if found.end - found.start > timedelta(days=DAYS_MAX):
        raise RangeInvalid(f"The range is longer than {DAYS_MAX} days.")
    return found


def day_of(now: datetime) -> Range:
    """Return the whole day in UTC that `now` lies in."""
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    return Range(midnight, midnight + timedelta(days=1))
