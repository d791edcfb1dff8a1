"""Tests of ranges of time."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from apps.analytics.ranges import Range, RangeInvalid, day_of, make_range

NOW = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)
TONIGHT = datetime(2026, 11, 22, tzinfo=UTC)


@pytest.mark.parametrize(
    ("start", "end", "expected"),
    [
        (None, None, Range(datetime(2026, 10, 23, tzinfo=UTC), TONIGHT)),
        (None, datetime(2026, 1, 31, tzinfo=UTC), Range(datetime(2026, 1, 1, tzinfo=UTC),
                                                        datetime(2026, 1, 31, tzinfo=UTC))),
        (datetime(2026, 11, 1, tzinfo=UTC), None, Range(datetime(2026, 11, 1, tzinfo=UTC),
                                                        TONIGHT)),
        (NOW, NOW, Range(NOW, NOW)),
        (NOW - timedelta(days=400), NOW, Range(NOW - timedelta(days=400), NOW)),
    ],
)  # fmt: skip
def test_a_range_ends_tonight_and_is_30_days_long_unless_told_otherwise(
    start: datetime | None, end: datetime | None, expected: Range
) -> None:
    assert make_range(start=start, end=end, now=NOW) == expected


@pytest.mark.parametrize(
    ("start", "end"),
    [
        (NOW, NOW - timedelta(microseconds=1)),
        (NOW + timedelta(days=1), None),
        (NOW - timedelta(days=400, microseconds=1), NOW),
    ],
)
def test_a_range_that_is_turned_round_or_too_long_is_refused(
    start: datetime, end: datetime | None
) -> None:
    with pytest.raises(RangeInvalid):
        make_range(start=start, end=end, now=NOW)


@pytest.mark.parametrize(
    ("now", "day"),
    [
        ("2026-11-21T00:00:00+00:00", 21),
        ("2026-11-21T23:59:59.999999+00:00", 21),
        ("2026-11-22T01:00:00+14:00", 21),
        ("2026-11-20T13:00:00-12:00", 21),
    ],
)
def test_today_is_the_day_in_utc(now: str, day: int) -> None:
    today = day_of(datetime.fromisoformat(now))

    assert today == Range(
        datetime(2026, 11, day, tzinfo=UTC), datetime(2026, 11, day + 1, tzinfo=UTC)
    )
