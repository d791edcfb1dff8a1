"""Rollups, and sums that are read from them: what reading every call comes to, at every moment."""

from __future__ import annotations

import random
from datetime import timedelta
from typing import Final

import pytest
from django.db import DatabaseError, connection
from django.test.utils import CaptureQueriesContext

from apps.analytics import rolling
from apps.analytics.call_sums import CallSums, Largest, Moment
from apps.analytics.models import RolledUp, Rollup
from apps.analytics.ranges import Range
from apps.analytics.rolling import list_new, roll_up
from apps.analytics.tests.kit import DAY, MIDNIGHT, WEEK, make_up, record, start_incarnation
from apps.audit.models import APIRequest
from apps.audit.totals import sum_requests, sum_requests_by, sum_requests_by_day
from tests.support.databases import Database

RANGES: Final = (
    WEEK,
    Range(MIDNIGHT, MIDNIGHT + DAY),
    Range(MIDNIGHT + timedelta(hours=5), MIDNIGHT + timedelta(hours=7)),
    Range(MIDNIGHT - timedelta(hours=7), MIDNIGHT + 2 * DAY + timedelta(hours=3)),
    Range(MIDNIGHT, MIDNIGHT),
)
SUBJECTS: Final[tuple[dict[str, int], ...]] = (
    {},
    {"user_id": 1},
    {"api_key_id": 12},
    {"provider_id": 3},
)
GROUPS: Final = (
    ("user_id", "user_name"),
    ("model_id", "requested_model"),
    ("provider_id", "provider_name"),
)
MOMENTS: Final[tuple[Moment, ...]] = ("started_at", "settled_at")
LARGEST: Final[tuple[Largest, ...]] = ("requests", "charge")


def check(source: random.Random) -> None:
    """Compare sums with those of all calls: of some ranges and subjects, every kind."""
    new = list_new()
    for over in RANGES:
        moment, subject = source.choice(MOMENTS), source.choice(SUBJECTS)
        column, name = source.choice(GROUPS)
        largest = source.choice(LARGEST)
        within = {f"{moment}__gte": over.start, f"{moment}__lt": over.end}
        calls = APIRequest.objects.filter(**subject, **within)

        sums = CallSums(over, subject, new=new, moment=moment)

        assert sums.total() == sum_requests(calls)
        assert sums.by_day() == sum_requests_by_day(calls, moment=moment)
        assert sums.by(column, name, largest=largest) == sum_requests_by(
            calls, column=column, name_column=name, largest=largest
        )


def test_sums_are_those_of_all_calls_however_far_rollups_go(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = random.Random(1)
    gateways = [start_incarnation() for _ in range(3)]
    for _ in range(60):
        record(source.choice(gateways), **make_up(source))
    check(source)
    monkeypatch.setattr(rolling, "PIECE_ROWS", dict.fromkeys(rolling.PIECE_ROWS, 7))

    assert roll_up(seconds=0) is False
    assert 0 < sum(Rollup.objects.values_list("requests", flat=True)) <= 7
    check(source)
    assert roll_up(seconds=60) is True
    check(source)
    for _ in range(40):
        record(source.choice(gateways), **make_up(source))
    record(start_incarnation(), **make_up(source))
    check(source)
    assert roll_up(seconds=60) is True

    assert list_new() == []
    assert sum(Rollup.objects.values_list("requests", flat=True)) == 101
    check(source)


def test_calls_in_rollups_are_not_read_where_days_are_whole(db: None) -> None:
    gateway = start_incarnation()
    for number in range(3):
        record(gateway, started_at=MIDNIGHT, charge_nanos=number)
    roll_up(seconds=60)
    sums = CallSums(WEEK, {}, new=list_new())

    with CaptureQueriesContext(connection) as seen:
        found = [sums.total().charge_nanos, sums.by_day()[0].sums.charge_nanos]
        found += [group.sums.charge_nanos for group in sums.by("user_id", "user_name")]

    assert found == [3, 3, 3]
    assert [query["sql"] for query in seen if "audit_apirequest" in query["sql"]] == []


def test_what_nothing_rolled_up_is_read_call_by_call(db: None) -> None:
    source = random.Random(2)
    for _ in range(20):  # More chains than are read one by one.
        record(start_incarnation(), **make_up(source))

    check(source)


def test_the_largest_groups_are_found_among_all(db: None) -> None:
    gateway = start_incarnation()
    for user in range(1, 131):
        record(gateway, user_id=user, started_at=MIDNIGHT, charge_nanos=user)
    roll_up(seconds=60)
    for user in (1, 2, 200):
        record(gateway, user_id=user, started_at=MIDNIGHT, charge_nanos=1_000 + user)

    found = CallSums(WEEK, {}, new=list_new()).by("user_id", "user_name", largest="charge")

    assert len(found) == 100
    assert [group.id for group in found[:5]] == [200, 2, 1, 130, 129]
    assert [group.sums.requests for group in found[:4]] == [1, 2, 2, 1]


def test_what_fails_halfway_is_not_added_twice(
    committed_db: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    gateway = start_incarnation()
    record(gateway, started_at=MIDNIGHT, charge_nanos=5)

    def fail(*_: object, **__: object) -> None:
        raise DatabaseError("away")

    with monkeypatch.context() as patched:
        patched.setattr(RolledUp, "save", fail)
        with pytest.raises(DatabaseError, match="away"):
            roll_up(seconds=60)

    assert not Rollup.objects.exists()
    assert roll_up(seconds=60)
    assert roll_up(seconds=60)
    assert [(row.requests, row.charge_nanos) for row in Rollup.objects.all()] == [(1, 5)]
    assert RolledUp.objects.get().sequence == 1


def test_days_are_those_in_utc(db: None) -> None:
    gateway = start_incarnation()
    for moment in (MIDNIGHT - timedelta(microseconds=1), MIDNIGHT):
        record(gateway, started_at=moment, settled_at=moment)
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SET LOCAL TIME ZONE 'Asia/Shanghai'")

    roll_up(seconds=60)

    days = Rollup.objects.order_by("started_on").values_list("started_on", "settled_on")
    assert list(days) == [
        ((MIDNIGHT - DAY).date(), (MIDNIGHT - DAY).date()),
        (MIDNIGHT.date(), MIDNIGHT.date()),
    ]
