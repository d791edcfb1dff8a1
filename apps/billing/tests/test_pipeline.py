"""Statements straight over libpq: errors, transactions, and a connection that breaks."""

from __future__ import annotations

import threading
from typing import Any
from uuid import UUID

import psycopg
import pytest
from django.db import connection, transaction

from apps.billing.ledger.pipeline import (
    Pipeline,
    digest,
    digests,
    integer,
    integers,
    labels,
    text,
    uuid,
    uuids,
)
from apps.billing.ledger.postgres import PostgresEngine, connect
from tests.support.databases import Database

pytestmark = pytest.mark.postgres
ONE = UUID("01890000-0000-7000-8000-000000000001")
TWO = UUID("01890000-0000-7000-8000-000000000002")


@pytest.mark.parametrize("prepares", [True, False])
def test_values_arrive_as_they_were_sent(raw: psycopg.Connection[Any], prepares: bool) -> None:
    pipeline = Pipeline(raw, prepares=prepares)
    statements = [
        ("SELECT unnest($1::bigint[])", (integers([1, -2, 2**62]),)),
        ("SELECT unnest($1::uuid[])", (uuids([ONE, TWO]),)),
        ("SELECT unnest($1::bytea[])", (digests([b"", b'\x00\\"{},']),)),
        ("SELECT unnest($1::text[])", (labels(["user", "api_key"]),)),
    ]

    for _ in range(2):  # parsed the first time
        numbers, ids, bytes_, words = pipeline.run(statements)

        assert [integer(numbers.get_value(row, 0)) for row in range(3)] == [1, -2, 2**62]
        assert [uuid(ids.get_value(row, 0)) for row in range(2)] == [ONE, TWO]
        assert [digest(bytes_.get_value(row, 0)) for row in range(2)] == [b"", b'\x00\\"{},']
        assert [text(words.get_value(row, 0)) for row in range(2)] == ["user", "api_key"]


def test_an_error_is_the_driver_s_own_and_the_connection_goes_on(
    raw: psycopg.Connection[Any],
) -> None:
    pipeline = Pipeline(raw, prepares=True)
    good = ("SELECT $1::bigint", (b"7",))
    late = ("SELECT $1::text", (b"parsed behind the error",))

    with pytest.raises(psycopg.errors.DivisionByZero):
        pipeline.run([good, ("SELECT 1 / $1::bigint", (b"0",)), late])

    for _ in range(2):
        first, second = pipeline.run([good, late])
        assert integer(first.get_value(0, 0)) == 7
        assert text(second.get_value(0, 0)) == "parsed behind the error"


def test_no_other_statement_runs_where_a_pooler_changes_the_session(
    raw: psycopg.Connection[Any], committed_db: Database
) -> None:
    """Behind a pooler that gives a session for a transaction, another gateway's names are there."""
    assert committed_db.server is not None
    with connect(committed_db.server.parameters(committed_db.name)) as other:
        ours, theirs = Pipeline(raw, prepares=True), Pipeline(other, prepares=True)
        ours.run([("SELECT $1::bigint", (b"7",))])
        theirs.run([("SELECT $1::bigint + 1", (b"7",))])
        ours._connection = other

        with pytest.raises(psycopg.errors.InvalidSqlStatementName):
            ours.run([("SELECT $1::bigint", (b"7",))])


def test_many_bytes_both_ways_do_not_block(raw: psycopg.Connection[Any]) -> None:
    pipeline = Pipeline(raw, prepares=True)
    large = b"x" * 4_000_000

    results = pipeline.run([("SELECT $1::text", (large,))] * 4)

    assert [len(result.get_value(0, 0) or b"") for result in results] == [4_000_000] * 4


def test_a_connection_that_is_cut_under_a_statement_raises_and_is_closed(
    raw: psycopg.Connection[Any],
) -> None:
    engine = PostgresEngine(raw, is_own=True)
    threading.Timer(0.2, engine.abort).start()

    with pytest.raises(psycopg.OperationalError):
        Pipeline(raw, prepares=True).run([("SELECT pg_sleep(30)", ())])

    assert raw.closed


def test_a_transaction_that_raises_leaves_nothing_and_can_be_repeated(
    raw: psycopg.Connection[Any],
) -> None:
    engine = PostgresEngine(raw, is_own=True)

    def fail() -> None:
        with engine.transaction():
            engine.open_incarnation(kind="test", host="h", pid=1, lease_seconds=1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()

    with engine.transaction(), engine.transaction():
        kept = engine.open_incarnation(kind="test", host="h", pid=2, lease_seconds=1)
    rows = raw.execute("SELECT id, pid FROM billing_incarnation WHERE kind = 'test'").fetchall()
    assert rows == [(kept, 2)]


def test_on_a_connection_of_django_statements_are_part_of_its_transaction(
    committed_db: Database,
) -> None:
    with transaction.atomic():
        PostgresEngine(connection.connection).lock(
            account_ids=(1,),
            receivable_ids=(),
            scopes=(),
            counter_ids=(),
            incarnation_id=None,
            hold_ids=(),
        )
        # The lock is worth nothing if the transaction did not begin with it.
        status = connection.connection.info.transaction_status

    assert status == psycopg.pq.TransactionStatus.INTRANS
