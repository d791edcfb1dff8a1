"""What users have used: all of it once, then what each incarnation has added."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import connection
from django.test.utils import CaptureQueriesContext

from apps.billing.ledger.commands import Held
from apps.billing.ledger.store import Engine
from apps.billing.models import Incarnation
from apps.proxy import used
from apps.proxy.used import Used, UsedTotals
from tests.support.calls import record_call
from tests.support.world import Gateway, make_world

pytestmark = pytest.mark.usefixtures("committed_db")
USER, OTHER = 7, 8


def make_incarnation(quiet: timedelta = timedelta(0)) -> Incarnation:
    now = datetime.now(UTC)
    return Incarnation.objects.create(
        kind="gateway",
        host="h",
        pid=1,
        started_at=now - quiet,
        renewed_at=now - quiet,
        expires_at=now,
    )


def record(incarnation: Incarnation, charge: int, user_id: int = USER, **values: Any) -> None:
    """Record a call as the ledger does: with the next sequence of its incarnation."""
    incarnation.sequence += 1
    incarnation.save()
    record_call(
        user_id=user_id,
        charge_nanos=charge,
        input_tokens=2,
        reasoning_tokens=3,
        output_tokens=4,
        incarnation_id=incarnation.pk,
        sequence=incarnation.sequence,
        **values,
    )


def test_who_has_called_nothing_has_used_nothing() -> None:
    assert UsedTotals().read(USER) == Used(0, 0, 0, 0)


def test_what_comes_later_is_added_once() -> None:
    totals, first = UsedTotals(), make_incarnation()
    record(first, 5)
    record(first, 1_000, OTHER)
    assert totals.read(USER) == Used(1, 2, 7, 5)

    record(first, 7)
    record(make_incarnation(), 9)

    assert totals.read(USER) == Used(3, 6, 21, 21)
    assert totals.read(USER) == Used(3, 6, 21, 21)
    assert totals.read(OTHER) == Used(1, 2, 7, 1_000)
    assert UsedTotals().read(USER) == totals.read(USER)


def test_what_was_read_is_not_read_again() -> None:
    totals, first = UsedTotals(), make_incarnation()
    record(first, 5)
    totals.read(USER)
    record(first, 7)

    with CaptureQueriesContext(connection) as later:
        totals.read(USER)
    with CaptureQueriesContext(connection) as idle:
        totals.read(USER)

    sums = [query["sql"] for query in later if "audit_apirequest" in query["sql"]]
    assert len(sums) == 1
    assert "sequence" in sums[0]
    assert not [query for query in idle if "audit_apirequest" in query["sql"]]


def test_one_that_was_quiet_for_hours_and_writes_again_is_counted_once() -> None:
    quiet, totals = make_incarnation(timedelta(hours=2)), UsedTotals()
    record(quiet, 5)
    assert totals.read(USER).charge_nanos == 5

    quiet.renewed_at = datetime.now(UTC)
    record(quiet, 7)

    assert totals.read(USER).charge_nanos == 12


def test_one_that_is_known_and_falls_quiet_is_still_known() -> None:
    live, totals = make_incarnation(), UsedTotals()
    record(live, 5)
    assert totals.read(USER).charge_nanos == 5
    live.renewed_at = datetime.now(UTC) - timedelta(hours=2)
    record(live, 7)
    assert totals.read(USER).charge_nanos == 5  # It has not renewed its lease: nobody looks.

    live.renewed_at = datetime.now(UTC)
    live.save()

    assert totals.read(USER).charge_nanos == 12


def test_a_gateway_whose_clock_is_hours_ahead_counts_what_comes() -> None:
    # Leases are by the database's clock, three hours behind.
    totals, live = UsedTotals(), make_incarnation(timedelta(hours=3))
    record(live, 5)
    assert totals.read(USER).charge_nanos == 5

    live.renewed_at += timedelta(seconds=10)
    record(live, 7)
    late = make_incarnation(timedelta(hours=3) - timedelta(seconds=20))
    record(late, 11)

    assert totals.read(USER) == Used(3, 6, 21, 23)


def test_a_lease_of_a_clock_that_was_set_back_hides_no_other() -> None:
    totals, live = UsedTotals(), make_incarnation()
    make_incarnation(timedelta(hours=-5))
    record(live, 5)
    assert totals.read(USER).charge_nanos == 5

    record(live, 7)

    assert totals.read(USER).charge_nanos == 12


def test_what_was_charged_late_is_used_as_well(ledger_connect: Callable[[], Engine]) -> None:
    world = make_world(10_000)
    owner, other = (Gateway(world, ledger_connect()) for _ in range(2))
    totals, user_id = UsedTotals(), world.user.pk
    held = owner.hold(8_000)
    assert isinstance(held, Held)
    other.resolve(held, 1, state="interrupted")
    assert totals.read(user_id).charge_nanos == 1_000

    # More than the wallet has left: a part of it is owed.
    late = owner.resolve(held, 11)

    assert late.charged_nanos == 10_000
    assert totals.read(user_id) == Used(1, 1, 0, 11_000)
    assert UsedTotals().read(user_id) == Used(1, 1, 0, 11_000)
    assert UsedTotals().read(user_id + 1).charge_nanos == 0


def test_who_asked_last_is_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(used, "USERS_MAX", 1)
    totals, first = UsedTotals(), make_incarnation()
    record(first, 5)
    record(first, 6, OTHER)

    assert [totals.read(user).charge_nanos for user in (USER, OTHER, USER)] == [5, 6, 5]
    assert list(totals._known) == [USER]
