"""The monthly partitions of the audit tables, on PostgreSQL."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import UUID

import pytest
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction

from apps.audit.models import APIRequest
from apps.audit.partitions import MONTHS_AHEAD, PARTITIONED, ensure_partitions, month_start
from apps.billing.ledger.commands import Held
from apps.billing.ledger.store import Engine
from apps.core.ids import uuid7, uuid7_lower_bound
from tests.support.databases import Database
from tests.support.processes import wait_until
from tests.support.world import Gateway, make_world

MOVE_MONTH = (Path(__file__).resolve().parents[3] / "docker" / "move_month.sql").read_text()
FAR = datetime(2031, 11, 30, 23, 59, 59, tzinfo=UTC)


@pytest.mark.parametrize(
    ("at", "later", "expected"),
    [
        (datetime(2026, 11, 21, 12, tzinfo=UTC), 0, datetime(2026, 11, 1, tzinfo=UTC)),
        (
            datetime(2026, 11, 30, 23, 59, 59, 999_999, tzinfo=UTC),
            1,
            datetime(2026, 12, 1, tzinfo=UTC),
        ),
        (datetime(2026, 12, 1, tzinfo=UTC), 0, datetime(2026, 12, 1, tzinfo=UTC)),
        (datetime(2026, 12, 31, tzinfo=UTC), 1, datetime(2027, 1, 1, tzinfo=UTC)),
        (datetime(2028, 1, 31, tzinfo=UTC), 1, datetime(2028, 2, 1, tzinfo=UTC)),
        (datetime(2026, 11, 1, tzinfo=UTC), 14, datetime(2028, 1, 1, tzinfo=UTC)),
    ],
)
def test_a_month_starts_at_its_first_moment_in_utc(
    at: datetime, later: int, expected: datetime
) -> None:
    assert month_start(at, later) == expected


def make(now: datetime) -> int:
    with transaction.atomic(), connection.cursor() as cursor:
        return ensure_partitions(cursor, now=now)


def partitions(table: str) -> list[str]:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass "
            "ORDER BY 1",
            (table,),
        )
        return [row[0] for row in cursor.fetchall()]


def partition_of(request_id: UUID) -> str:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT tableoid::regclass::text FROM audit_apirequest WHERE id = %s", (request_id,)
        )
        ((name,),) = cursor.fetchall()
    return str(name)


def id_at(moment: datetime) -> UUID:
    return uuid7(int(moment.timestamp() * 1000), b"\x01" * 10)


def record(gateway: Gateway, moment: datetime) -> UUID:
    """Record a call whose id was made at `moment`."""
    held = gateway.hold(1_000, request_id=id_at(moment), at=moment)
    assert isinstance(held, Held)
    gateway.resolve(held, 1, at=moment)
    return held.request_id


@pytest.mark.postgres
def test_a_new_database_has_this_month_and_the_next_ones(db: None) -> None:
    now = datetime.now(UTC)
    months = [month_start(now, later) for later in range(MONTHS_AHEAD + 1)]

    for table in PARTITIONED:
        expected = [f"{table}_{month:%Y_%m}" for month in months]
        assert partitions(table) == sorted([*expected, f"{table}_default"])


@pytest.mark.postgres
def test_making_partitions_twice_makes_them_once(db: None) -> None:
    first = make(FAR)
    second = make(FAR)

    assert (first, second) == (9, 0)


@pytest.mark.postgres
def test_the_next_month_is_made_when_its_turn_comes(db: None) -> None:
    make(FAR)

    later = make(FAR + timedelta(seconds=1))

    assert later == 3
    assert partitions("audit_apirequest")[-2:] == [
        "audit_apirequest_2032_02",
        "audit_apirequest_default",
    ]


@pytest.mark.postgres
@pytest.mark.parametrize(
    ("moment", "expected"),
    [
        (datetime(2031, 11, 1, tzinfo=UTC), "audit_apirequest_2031_11"),
        (datetime(2031, 11, 30, 23, 59, 59, 999_000, tzinfo=UTC), "audit_apirequest_2031_11"),
        (datetime(2031, 12, 1, tzinfo=UTC), "audit_apirequest_2031_12"),
        (datetime(2032, 1, 31, 23, 59, 59, 999_000, tzinfo=UTC), "audit_apirequest_2032_01"),
        (datetime(2032, 6, 1, tzinfo=UTC), "audit_apirequest_default"),
        (datetime(2020, 1, 1, tzinfo=UTC), "audit_apirequest_default"),
    ],
)
def test_a_row_lands_in_the_month_of_its_id(
    ledger_connect: Callable[[], Engine], moment: datetime, expected: str
) -> None:
    make(FAR)
    gateway = Gateway(make_world(), ledger_connect())

    request_id = record(gateway, moment)

    assert partition_of(request_id) == expected


@pytest.mark.postgres
def test_the_gateway_s_connection_makes_partitions_too(
    ledger_connect: Callable[[], Engine],
) -> None:
    ledger_connect().make_partitions(FAR)

    assert "audit_payload_2031_11" in partitions("audit_payload")


@pytest.mark.postgres
def test_who_waited_for_another_gateway_makes_nothing_twice(committed_db: Database) -> None:
    make(FAR)
    next_month = FAR + timedelta(seconds=1)

    with (
        closing(committed_db.connect()) as first,
        closing(committed_db.connect()) as second,
        ThreadPoolExecutor(1) as thread,
    ):
        first.execute("BEGIN")
        made = ensure_partitions(first.cursor(), now=next_month)
        second.execute("BEGIN")
        waiting = thread.submit(ensure_partitions, second.cursor(), now=next_month)
        wait_until(somebody_waits, timeout_seconds=10, what="the second gateway's wait")

        first.execute("COMMIT")

        assert (made, waiting.result(timeout=10)) == (3, 0)
        second.execute("COMMIT")
    assert len(partitions("audit_attempt")) == 8


def somebody_waits(locktype: str = "advisory") -> bool:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT 1 FROM pg_locks JOIN pg_database ON pg_database.oid = pg_locks.database "
            "WHERE locktype = %s AND NOT granted AND datname = current_database()",
            (locktype,),
        )
        return cursor.fetchone() is not None


SKIPPED = (
    "not made, because the default partition has rows of the month: audit_apirequest_2031_11 "
    "(docs/operations.md, Partitions)"
)


@pytest.mark.postgres
def test_a_month_with_rows_in_the_default_partition_keeps_no_other_from_being_made(
    ledger_connect: Callable[[], Engine], caplog: pytest.LogCaptureFixture
) -> None:
    request_id = record(Gateway(make_world(), ledger_connect()), FAR)
    caplog.set_level(logging.WARNING, "apps.audit.partitions")

    made = [make(FAR), make(FAR)]

    assert made == [8, 0]
    assert partition_of(request_id) == "audit_apirequest_default"
    assert partitions("audit_apirequest")[-3:] == [
        "audit_apirequest_2031_12",
        "audit_apirequest_2032_01",
        "audit_apirequest_default",
    ]
    assert "audit_attempt_2031_11" in partitions("audit_attempt")
    assert [record.getMessage() for record in caplog.records] == [SKIPPED, SKIPPED]


@pytest.mark.postgres
def test_a_row_that_comes_while_its_month_is_made_keeps_no_other_from_being_made(
    committed_db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "apps.audit.partitions")

    with (
        closing(committed_db.connect()) as writer,
        closing(committed_db.connect()) as maker,
        ThreadPoolExecutor(1) as thread,
    ):
        writer.execute("BEGIN")
        writer.execute(
            "INSERT INTO audit_payload (request_id, salt, request_body, response_body, "
            "is_request_truncated, is_response_truncated) VALUES (%s, '', '', '', false, false)",
            (id_at(FAR),),
        )
        maker.execute("BEGIN")
        waiting = thread.submit(ensure_partitions, maker.cursor(), now=FAR)
        wait_until(
            lambda: somebody_waits("relation"), timeout_seconds=10, what="the wait for the writer"
        )

        writer.execute("COMMIT")

        assert waiting.result(timeout=10) == 8
        maker.execute("COMMIT")
    assert "audit_payload_2031_11" not in partitions("audit_payload")
    assert "audit_payload_2031_12" in partitions("audit_payload")
    assert len(caplog.records) == 1
    assert "audit_payload_2031_11 " in caplog.records[0].getMessage()


@pytest.mark.postgres
def test_an_operator_moves_the_rows_of_a_month_out_of_the_default_partition(
    ledger_connect: Callable[[], Engine],
) -> None:
    gateway = Gateway(make_world(), ledger_connect())
    moved, other = record(gateway, FAR), record(gateway, FAR + timedelta(days=90))
    before = list(APIRequest.objects.order_by("id").values())

    for _ in range(2):
        with transaction.atomic():
            execute("SET LOCAL auditing.month = '2031-11-01'")
            execute(MOVE_MONTH)

    assert list(APIRequest.objects.order_by("id").values()) == before
    assert partition_of(moved) == "audit_apirequest_2031_11"
    assert partition_of(other) == "audit_apirequest_default"
    bounds = bounds_of("audit_attempt_2031_11")
    assert make(FAR) == 6
    assert bounds == bounds_of("audit_payload_2031_11")
    assert f"FROM ('{bound_of(FAR)}') TO ('{bound_of(FAR + timedelta(days=1))}')" in bounds
    for name in ("audit_apirequest_default", "audit_apirequest_2031_11"):
        for statement in (f"DELETE FROM {name}", f"TRUNCATE {name}"):  # noqa: S608 (constants)
            with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
                execute(statement)


def execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)


def bound_of(moment: datetime) -> UUID:
    return uuid7_lower_bound(month_start(moment))


def bounds_of(partition: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT pg_get_expr(relpartbound, oid) FROM pg_class WHERE relname = %s", (partition,)
        )
        ((bounds,),) = cursor.fetchall()
    return str(bounds)


@pytest.mark.postgres
def test_partitions_refuse_to_be_truncated_by_name(committed_db: Database) -> None:
    def list_refusing() -> list[str]:
        refusing = []
        for name in [*partitions("audit_apirequest"), *partitions("audit_attempt")]:
            try:
                with transaction.atomic():
                    execute(f"TRUNCATE {name}")
                    transaction.set_rollback(True)
            except DatabaseError:
                refusing.append(name)
        return refusing

    make(FAR)
    everything = [*partitions("audit_apirequest"), *partitions("audit_attempt")]
    before = list_refusing()
    call_command("migrate", "audit", "0009", verbosity=0)
    undone = list_refusing()
    call_command("migrate", "audit", verbosity=0)

    assert len(everything) == 14
    assert (before, undone, list_refusing()) == (everything, [], everything)


@pytest.mark.postgres
def test_requests_are_found_across_partitions(ledger_connect: Callable[[], Engine]) -> None:
    make(FAR)
    gateway = Gateway(make_world(), ledger_connect())

    ids = [record(gateway, FAR), record(gateway, FAR + timedelta(days=20))]

    assert list(APIRequest.objects.order_by("id").values_list("id", flat=True)) == ids


@pytest.mark.sqlite
def test_without_partitions_making_them_does_nothing(
    ledger_connect: Callable[[], Engine],
) -> None:
    gateway = Gateway(make_world(), ledger_connect())

    gateway.engine.make_partitions(FAR)

    assert record(gateway, FAR) == APIRequest.objects.get().pk
