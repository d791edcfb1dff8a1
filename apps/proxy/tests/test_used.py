"""What users have used: all of it once, then what each incarnation has added."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import OperationalError, connection
from django.test.utils import CaptureQueriesContext

from apps.audit.models import APIRequest
from apps.billing.ledger.commands import Held
from apps.billing.ledger.store import Engine
from apps.billing.models import Incarnation
from apps.proxy import used
from apps.proxy.used import StillSumming, Used, UsedTotals
from tests.support.calls import record_call
from tests.support.world import Gateway, make_world

pytestmark = pytest.mark.usefixtures("committed_db")
USER, OTHER = 7, 8
LONG_AGO = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)


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


# ---- in pieces


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a statement read two calls, and nobody wait for a second one."""
    monkeypatch.setattr(used, "PIECE_ROWS", 2)
    monkeypatch.setattr(used, "SECONDS", 0.0)


def at(seconds: int) -> datetime:
    return LONG_AGO + timedelta(seconds=seconds)


def ask_until_told(totals: UsedTotals, between: Callable[[], None] | None = None) -> list[Used]:
    """Return what is told at last, behind one entry of nothing for each time that it was not."""
    told: list[Used] = []
    for _ in range(100):
        try:
            return [*told, totals.read(USER)]
        except StillSumming:
            told.append(Used(0, 0, 0, 0))
            if between is not None:
                between()
    raise AssertionError("the sum does not end")


def test_many_calls_are_summed_in_pieces_that_are_not_read_twice(impatient: None) -> None:
    totals, first = UsedTotals(), make_incarnation()
    # Several began at the same moment, where a piece ends as well.
    for number, seconds in enumerate((1, 1, 1, 2, 2, 3, 4)):
        record(first, 10**number, started_at=at(seconds))
        record(first, 5, OTHER, started_at=at(seconds))

    with CaptureQueriesContext(connection) as queries:
        told = ask_until_told(totals)

    assert told == [*[Used(0, 0, 0, 0)] * 3, Used(7, 14, 49, 1_111_111)]
    sums = [query["sql"] for query in queries if "charge_nanos" in query["sql"]]
    assert len([sql for sql in sums if "audit_apirequest" in sql]) == 4
    assert totals.read(USER) == Used(7, 14, 49, 1_111_111)


def test_who_waits_gets_all_pieces_with_one_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(used, "PIECE_ROWS", 2)
    totals, first = UsedTotals(), make_incarnation()
    for number in range(7):
        record(first, 1, started_at=at(number))

    assert totals.read(USER) == Used(7, 14, 49, 7)


def test_what_is_recorded_between_pieces_is_counted_once_wherever_it_stands(
    impatient: None,
) -> None:
    totals, first = UsedTotals(), make_incarnation()
    for number in range(6):
        record(first, 1, started_at=at(10 + number))
    later: list[Incarnation] = []

    def call() -> None:
        # Long streams that began before what has been summed, short ones, those of a new process.
        if not later:
            later.append(make_incarnation())
            for incarnation in (first, later[0]):
                for seconds in (1, 12, 30):
                    record(incarnation, 100, started_at=at(seconds))

    told = ask_until_told(totals, call)

    assert told[-1] == Used(12, 24, 84, 606)
    assert ask_until_told(UsedTotals())[-1] == Used(12, 24, 84, 606)


def test_one_that_writes_again_while_pieces_are_summed_is_counted_once(impatient: None) -> None:
    quiet, first, totals = make_incarnation(timedelta(hours=2)), make_incarnation(), UsedTotals()
    for number in range(4):
        record(first, 1, started_at=at(number))
        record(quiet, 10, started_at=at(number))
    woken: list[bool] = []

    def wake() -> None:
        if not woken:
            woken.append(True)
            quiet.renewed_at = datetime.now(UTC)
            record(quiet, 100, started_at=at(0))

    assert ask_until_told(totals, wake)[-1] == Used(9, 18, 63, 144)


def test_however_calls_come_between_pieces_the_sum_is_exact(impatient: None) -> None:
    draw = random.Random(4)
    for _ in range(10):
        start = APIRequest.objects.filter(user_id=USER).count()
        totals, alive = UsedTotals(), [make_incarnation(), make_incarnation()]

        def call(alive: list[Incarnation] = alive) -> None:
            if draw.random() < 0.2:
                alive.append(make_incarnation())
            for _ in range(draw.randrange(4)):
                owner = USER if draw.random() < 0.7 else OTHER
                record(draw.choice(alive), 1, owner, started_at=at(draw.randrange(5)))

        for _ in range(3):
            call()
        for _ in range(6):
            try:
                found = totals.read(USER).requests
            except StillSumming:
                call()
                continue
            assert found == APIRequest.objects.filter(user_id=USER).count()
            call()
        count = APIRequest.objects.filter(user_id=USER).count()
        assert count > start
        assert ask_until_told(totals)[-1] == Used(count, 2 * count, 7 * count, count)


def test_a_failure_keeps_what_was_summed_before_it(impatient: None) -> None:
    totals, first = UsedTotals(), make_incarnation()
    for number in range(5):
        record(first, 1, started_at=at(number))
    with pytest.raises(StillSumming):
        totals.read(USER)

    def fail(*_: Any) -> None:
        raise OperationalError("canceling statement due to statement timeout")

    with connection.execute_wrapper(fail), pytest.raises(OperationalError):
        totals.read(USER)

    assert ask_until_told(totals) == [Used(0, 0, 0, 0), Used(5, 10, 35, 5)]


def test_who_comes_back_after_much_was_recorded_is_told_in_pieces(impatient: None) -> None:
    totals, first, second = UsedTotals(), make_incarnation(), make_incarnation()
    for number in range(6):
        record(first, 1, started_at=at(number))
    ask_until_told(totals)
    for number in range(2):
        record(second, 10, started_at=at(number))
        record(first, 10, started_at=at(number))

    # No more than his own calls: only what was added is read.
    with CaptureQueriesContext(connection) as queries:
        told = ask_until_told(totals)

    assert told == [Used(0, 0, 0, 0), Used(10, 20, 70, 46)]
    sums = [query["sql"] for query in queries if "audit_apirequest" in query["sql"]]
    assert len(sums) == 2
    assert all('"sequence" <=' in sql for sql in sums)


def test_who_called_little_is_not_sought_among_all_that_others_called(impatient: None) -> None:
    totals, first = UsedTotals(), make_incarnation()
    record(first, 1)
    assert totals.read(USER).requests == 1
    for _ in range(30):
        record(first, 100, OTHER)
    record(first, 10)

    told = ask_until_told(totals)

    assert told == [Used(0, 0, 0, 0), Used(2, 4, 14, 11)]
