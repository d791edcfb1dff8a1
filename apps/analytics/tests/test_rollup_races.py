"""Runs that add to the rollups at once, as with two beats, each on a connection of its own.

The control is the same crowd without the lock of the mark, which must go wrong.
"""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from typing import Final

from django.db import connection, transaction
from django.db.models import Sum

from apps.analytics import rolling
from apps.analytics.models import RolledUp, Rollup
from apps.analytics.rolling import Piece, roll_up
from apps.analytics.tests.kit import record, start_incarnation
from apps.billing.models import Incarnation
from tests.support.databases import Database
from tests.support.races import BARRIER_SECONDS, CROWD, at_once, race

STARTED_AT: Final = datetime(2026, 11, 1, tzinfo=UTC)
CALLS: Final = 40
CHARGE_NANOS: Final = 5


def _record(gateway: Incarnation) -> None:
    for number in range(CALLS):
        record(gateway, user_id=number % 7, started_at=STARTED_AT, charge_nanos=CHARGE_NANOS)


def _sums() -> dict[str, int]:
    return Rollup.objects.aggregate(calls=Sum("requests"), charge=Sum("charge_nanos"))


def test_eight_runs_at_once_add_each_call_once(committed_db: Database) -> None:
    gateway = start_incarnation()
    _record(gateway)
    roll_up(seconds=60)
    _record(gateway)

    def run(barrier: threading.Barrier, number: int) -> bool:
        connection.ensure_connection()
        barrier.wait()
        return roll_up(seconds=60)

    assert race(CROWD, run) == [True] * CROWD
    assert _sums() == {"calls": 2 * CALLS, "charge": 2 * CALLS * CHARGE_NANOS}
    assert RolledUp.objects.get().sequence == 2 * CALLS


def test_control_eight_that_read_the_mark_without_its_lock_add_each_call_eight_times(
    committed_db: Database,
) -> None:
    gateway = start_incarnation()
    _record(gateway)
    RolledUp.objects.create(incarnation_id=gateway.pk, sequence=0)
    barrier = threading.Barrier(CROWD, timeout=BARRIER_SECONDS)

    def run(number: int) -> None:
        mark = RolledUp.objects.get()
        barrier.wait()
        with transaction.atomic():
            rolling._add(Piece(gateway.pk, mark.sequence, CALLS))

    at_once(CROWD, run)

    assert _sums() == {"calls": CROWD * CALLS, "charge": CROWD * CALLS * CHARGE_NANOS}
