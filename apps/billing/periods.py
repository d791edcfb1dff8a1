"""Budgets of a day and of a month: what somebody may spend from one midnight to another. Pure.

Days and months are those of UTC, written `2026-11-29` and `2026-11`. A call counts in the day and
in the month in which it began, as its record says (`started_at`), whenever it ends.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from apps.billing.ledger.commands import Cap, CapScope

_MONTH_LENGTH: Final = len("2026-11")


@dataclass(frozen=True, slots=True)
class Budget:
    """What somebody may spend in a day and in a month, in nanos; None: anything."""

    scope: CapScope
    scope_id: int
    day_nanos: int | None
    month_nanos: int | None

    def caps_at(self, at: datetime) -> tuple[Cap, ...]:
        """Return the caps of the periods in which a call counts that begins then."""
        budgets = ((day_of(at), self.day_nanos), (month_of(at), self.month_nanos))
        return tuple(
            Cap(self.scope, self.scope_id, nanos, period)
            for period, nanos in budgets
            if nanos is not None
        )


def make_budget(
    scope: CapScope, scope_id: int, day_nanos: int | None, month_nanos: int | None
) -> Budget | None:
    """Return a budget, None where anything may be spent."""
    if day_nanos is None and month_nanos is None:
        return None
    return Budget(scope, scope_id, day_nanos, month_nanos)


def day_of(at: datetime) -> str:
    """Return the day of a moment."""
    return at.astimezone(UTC).date().isoformat()


def month_of(at: datetime) -> str:
    """Return the month of a moment."""
    return day_of(at)[:_MONTH_LENGTH]


def is_month(period: str) -> bool:
    """Return whether a period is a month, and not a day."""
    return len(period) == _MONTH_LENGTH


def bounds_of(period: str) -> tuple[datetime, datetime]:
    """Return when a period begins, and when the next one does."""
    if not is_month(period):
        begins_at = datetime.fromisoformat(period).replace(tzinfo=UTC)
        return begins_at, begins_at + timedelta(days=1)
    begins_at = datetime.fromisoformat(f"{period}-01").replace(tzinfo=UTC)
    # The month after has begun 31 days later, whatever the length of this one.
    return begins_at, (begins_at + timedelta(days=31)).replace(day=1)
