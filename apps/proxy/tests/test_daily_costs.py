"""What providers billed today: all of it once, then what each incarnation has added."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.audit.models import Attempt
from apps.audit.partitions import ensure_partitions
from apps.billing.models import Incarnation
from apps.proxy.daily_costs import DailyCosts, find_limited, read_daily_costs
from apps.proxy.snapshot import Catalogue
from tests.support.calls import record_call

pytestmark = pytest.mark.usefixtures("committed_db")
NOW = datetime(2026, 6, 2, 12, tzinfo=UTC)
YESTERDAY = NOW - timedelta(days=1)


def make_incarnation(renewed_at: datetime = NOW) -> Incarnation:
    return Incarnation.objects.create(
        kind="gateway", host="h", pid=1, started_at=YESTERDAY, renewed_at=renewed_at, expires_at=NOW
    )


def record(incarnation: Incarnation, provider_id: int, cost: int | None, **values: Any) -> None:
    """Record a call as the ledger does: with the next sequence of its incarnation."""
    incarnation.sequence += 1
    incarnation.save()
    key_id = values.pop("key_id", None)
    row = record_call(
        provider_id=provider_id,
        cost_nanos=cost,
        incarnation_id=incarnation.pk,
        sequence=incarnation.sequence,
        attempt_count=2 if key_id else 0,
        **{"started_at": NOW, **values},
    )
    for number in (1, 2) if key_id else ():
        Attempt.objects.create(
            request_id=row.pk, number=number, route_id=1, provider_id=provider_id,
            provider_name="p", provider_key_id=99 if number == 1 else key_id, upstream_model="u",
            started_at=NOW, duration_ms=1, outcome="answered", error_text="",
            upstream_request_id="",
        )  # fmt: skip


def read(known: DailyCosts | None = None, now: datetime = NOW, *, keys: bool = False) -> DailyCosts:
    return read_daily_costs(known, now, has_keys=keys)


def test_all_of_today_is_summed_by_provider() -> None:
    first, second = make_incarnation(), make_incarnation()
    record(first, 1, 5)
    record(second, 1, 7)
    record(second, 2, 11)
    record(first, 1, 1_000, started_at=YESTERDAY)

    costs = read()

    assert costs.day == date(2026, 6, 2)
    assert costs.nanos == {("provider", 1): 12, ("provider", 2): 11}


def test_a_cost_that_is_not_known_counts_as_what_was_charged() -> None:
    record(make_incarnation(), 1, None, charge_nanos=30)

    assert read().nanos == {("provider", 1): 30}


def test_what_comes_later_is_added_once() -> None:
    first = make_incarnation()
    record(first, 1, 5)
    before = read()
    record(first, 1, 7)
    record(make_incarnation(), 1, 9)

    after = read(before)
    again = read(after)

    assert before.nanos == {("provider", 1): 5}
    assert after.nanos == again.nanos == {("provider", 1): 21}


def test_where_nothing_was_added_no_call_is_read() -> None:
    record(make_incarnation(), 1, 5)
    known = read()

    with CaptureQueriesContext(
        connection,
    ) as queries:
        read(known)

    assert [q["sql"] for q in queries if "audit_apirequest" in q["sql"]] == []


def test_an_incarnation_that_was_quiet_is_read_from_its_beginning() -> None:
    frozen = make_incarnation(renewed_at=YESTERDAY)
    record(frozen, 1, 1_000, started_at=YESTERDAY)
    known = read()
    frozen.renewed_at = NOW
    record(frozen, 1, 5)

    assert read(known).nanos == {("provider", 1): 5}


def test_a_new_day_begins_at_nothing() -> None:
    incarnation = make_incarnation()
    record(incarnation, 1, 5)
    known = read()
    tomorrow = NOW + timedelta(days=1)

    costs = read(known, tomorrow)

    assert costs.day == date(2026, 6, 3)
    assert costs.nanos == {}


def test_the_key_that_answered_is_billed() -> None:
    incarnation = make_incarnation()
    record(incarnation, 1, 5, key_id=7)
    known = read(keys=True)
    record(incarnation, 1, 6, key_id=7)

    assert known.nanos == {("provider", 1): 5, ("provider_key", 7): 5}
    assert read(known, keys=True).nanos == {("provider", 1): 11, ("provider_key", 7): 11}


@pytest.mark.postgres
def test_attempts_of_earlier_months_are_not_looked_through() -> None:
    with connection.cursor() as cursor:
        ensure_partitions(cursor, now=datetime(2026, 4, 1, tzinfo=UTC))
    record(make_incarnation(), 1, 5, key_id=7)

    with CaptureQueriesContext(connection) as queries:
        costs = read(keys=True)

    (sql,) = [query["sql"] for query in queries if "audit_attempt" in query["sql"]]
    with connection.cursor() as cursor:
        cursor.execute(f"EXPLAIN {sql}")
        plan = "\n".join(line for (line,) in cursor.fetchall())
    assert costs.nanos["provider_key", 7] == 5
    # Of the second of June, and a day for the clocks.
    assert "audit_attempt_2026_06" in plan
    assert "audit_attempt_2026_05" not in plan
    assert "audit_attempt_2026_04" not in plan


def test_keys_are_summed_from_the_start_of_the_day_when_the_first_gets_a_limit() -> None:
    record(make_incarnation(), 1, 5, key_id=7)
    known = read()

    assert known.nanos == {("provider", 1): 5}
    assert read(known, keys=True).nanos == {("provider", 1): 5, ("provider_key", 7): 5}


def test_without_limits_nothing_is_to_be_read() -> None:
    assert find_limited(Catalogue(models={}, user_groups={})) == (False, False)


def test_a_limit_is_reached_by_its_last_nano() -> None:
    costs = DailyCosts(NOW.date(), has_keys=False)
    costs.nanos["provider", 1] = 10

    assert not costs.is_spent(("provider", 1), 11)
    assert costs.is_spent(("provider", 1), 10)
    assert not costs.is_spent(("provider", 1), None)
    assert costs.is_spent(("provider", 2), 0)
