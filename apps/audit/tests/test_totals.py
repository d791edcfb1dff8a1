"""Tests of sums over recorded calls."""

from __future__ import annotations

from dataclasses import asdict, replace
from datetime import UTC, date, datetime

from apps.audit.models import APIRequest
from apps.audit.totals import (
    DaySums,
    GroupSums,
    Sums,
    Totals,
    sum_requests,
    sum_requests_by,
    sum_requests_by_day,
)
from apps.core.usage import TOKEN_CLASSES
from tests.support.calls import record_call

NOTHING = Totals(0, 0, 0, 0, 0, 0, 0, 0)


def test_no_calls_sum_to_nothing(db: None) -> None:
    totals = sum_requests(APIRequest.objects.all())

    assert totals == NOTHING
    assert (totals.success_rate, totals.margin_nanos) == (None, 0)
    assert sum_requests_by_day(APIRequest.objects.all()) == []
    assert (
        sum_requests_by(APIRequest.objects.all(), column="user_id", name_column="user_name") == []
    )


def test_all_token_classes_are_summed_into_input_or_output(db: None) -> None:
    # One bit each: a class that is missing or counted twice shows.
    record_call(**{f"{name}_tokens": 1 << place for place, name in enumerate(TOKEN_CLASSES)})

    totals = sum_requests(APIRequest.objects.all())

    # input 1, cache 2 + 4 + 8, audio in 64, image in 256; output 16, reasoning 32, 128, 512.
    assert (totals.input_tokens, totals.output_tokens) == (335, 688)


def test_sums_are_exact_beyond_what_a_float_holds(db: None) -> None:
    for nanos in (2**53, 1, 2**53, 1):
        record_call(charge_nanos=nanos, cost_nanos=nanos - 1, user_id=nanos % 2)

    totals = sum_requests(APIRequest.objects.all())

    assert totals == Totals(4, 4, 0, 0, 18_014_398_509_481_986, 18_014_398_509_481_982, 0, 2)
    assert {type(getattr(totals, name)) for name in asdict(totals)} == {int}
    assert totals.margin_nanos == 4


def test_only_completed_calls_are_successes_and_unknown_costs_are_counted(db: None) -> None:
    record_call(charge_nanos=100, cost_nanos=60)
    record_call(charge_nanos=50, cost_nanos=None, user_id=2)
    record_call(charge_nanos=0, cost_nanos=0, state="failed", status_code=502)

    totals = sum_requests(APIRequest.objects.all())

    assert totals == Totals(3, 2, 0, 0, 150, 60, 1, 2)
    assert (totals.success_rate, totals.margin_nanos) == ("0.6667", 90)


def test_a_day_begins_and_ends_at_midnight_in_utc(db: None) -> None:
    for moment in (
        datetime(2026, 10, 31, 23, 59, 59, 999_999, UTC),
        datetime(2026, 11, 1, 0, 0, 0, 0, UTC),
        datetime(2026, 11, 1, 23, 59, 59, 999_999, UTC),
        datetime.fromisoformat("2026-11-02T01:00:00+14:00"),
    ):
        record_call(started_at=moment, settled_at=datetime(2026, 11, 3, tzinfo=UTC))

    one = Sums(1, 1, 0, 0, 1, 0, 1)
    assert sum_requests_by_day(APIRequest.objects.all()) == [
        DaySums(date(2026, 10, 31), one),
        DaySums(date(2026, 11, 1), replace(one, **_times(3))),
    ]
    assert [
        (day.date, day.sums.requests)
        for day in sum_requests_by_day(APIRequest.objects.all(), moment="settled_at")
    ] == [(date(2026, 11, 3), 4)]


def _times(count: int) -> dict[str, int]:
    return {
        "requests": count,
        "successes": count,
        "charge_nanos": count,
        "requests_without_cost": count,
    }


def test_groups_come_with_the_largest_first_and_at_most_so_many(db: None) -> None:
    for user_id, charge in ((1, 5), (1, 5), (2, 100), (3, 1), (3, 1), (3, 1)):
        record_call(user_id=user_id, user_name=f"user {user_id}", charge_nanos=charge)

    calls = APIRequest.objects.all()
    by_requests = sum_requests_by(calls, column="user_id", name_column="user_name", limit=2)
    by_charge = sum_requests_by(
        calls, column="user_id", name_column="user_name", largest="charge", limit=1
    )

    assert [(group.id, group.name, group.sums.requests) for group in by_requests] == [
        (3, "user 3", 3),
        (1, "user 1", 2),
    ]
    assert by_charge == [GroupSums(2, "user 2", Sums(1, 1, 0, 0, 100, 0, 1))]


def test_calls_that_no_provider_answered_are_a_group_too(db: None) -> None:
    record_call(provider_id=None, provider_name="")
    record_call(provider_id=7, provider_name="somewhere")

    groups = sum_requests_by(
        APIRequest.objects.all(), column="provider_id", name_column="provider_name"
    )

    assert [(group.id, group.name) for group in groups] == [(7, "somewhere"), (None, "")]
