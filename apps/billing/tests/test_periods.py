"""Days and months of UTC, and what counts in them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from apps.billing.ledger.commands import Cap
from apps.billing.periods import Budget, bounds_of, day_of, is_month, month_of


@pytest.mark.parametrize(
    ("at", "day", "month"),
    [
        (datetime(2026, 11, 30, 23, 59, 59, 999_999, tzinfo=UTC), "2026-11-30", "2026-11"),
        (datetime(2026, 12, 1, tzinfo=UTC), "2026-12-01", "2026-12"),
        (datetime(2027, 1, 1, 8, tzinfo=timezone(timedelta(hours=9))), "2026-12-31", "2026-12"),
        (datetime(2028, 2, 29, 23, tzinfo=timezone(-timedelta(hours=1))), "2028-03-01", "2028-03"),
    ],
)
def test_a_moment_belongs_to_a_day_and_a_month_of_utc(at: datetime, day: str, month: str) -> None:
    assert (day_of(at), month_of(at)) == (day, month)


@pytest.mark.parametrize(
    ("period", "begins_on", "ends_on"),
    [
        ("2026-11-30", "2026-11-30", "2026-12-01"),
        ("2028-02-28", "2028-02-28", "2028-02-29"),
        ("2026-12", "2026-12-01", "2027-01-01"),
        ("2027-02", "2027-02-01", "2027-03-01"),
        ("2028-02", "2028-02-01", "2028-03-01"),
        ("2026-11", "2026-11-01", "2026-12-01"),
    ],
)
def test_a_period_ends_where_the_next_one_begins(period: str, begins_on: str, ends_on: str) -> None:
    bounds = bounds_of(period)

    assert [bound.isoformat() for bound in bounds] == [
        f"{begins_on}T00:00:00+00:00",
        f"{ends_on}T00:00:00+00:00",
    ]
    name = month_of if is_month(period) else day_of
    assert [name(at) == period for at in (bounds[0], bounds[1] - timedelta(microseconds=1))] == [
        True,
        True,
    ]
    assert name(bounds[1]) != period


@pytest.mark.parametrize(
    ("day", "month", "caps"),
    [
        (5, None, (Cap("user", 7, 5, "2026-11-30"),)),
        (None, 9, (Cap("user", 7, 9, "2026-11"),)),
        (0, 9, (Cap("user", 7, 0, "2026-11-30"), Cap("user", 7, 9, "2026-11"))),
        (None, None, ()),
    ],
)
def test_a_budget_caps_the_periods_of_a_call(
    day: int | None, month: int | None, caps: tuple[Cap, ...]
) -> None:
    at = datetime(2026, 11, 30, 23, 59, tzinfo=UTC)

    assert Budget("user", 7, day, month).caps_at(at) == caps


def test_a_period_has_a_counter_of_its_own() -> None:
    keys = [Cap("user_group", 7, 5, period).key for period in ("", "2026-11", "2026-11-30")]

    assert keys == [("user_group", 7), ("user_group:2026-11", 7), ("user_group:2026-11-30", 7)]
