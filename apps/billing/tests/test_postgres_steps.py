"""Steps that become one statement, and rows that go as parameters."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import psycopg
import pytest

from apps.audit.models import RequestState
from apps.billing.ledger.pipeline import Pipeline, Statement, integers, text
from apps.billing.ledger.postgres_rows import insert
from apps.billing.ledger.postgres_steps import SHAPES_MAX, Merger, Step, alone

ONE = UUID("01890000-0000-7000-8000-000000000001")
AT = datetime(2026, 11, 30, 23, 53, 41, 7, tzinfo=UTC)


def of_accounts(ids: list[int], rows: int | None) -> Step:
    return Step(
        "SELECT 1 FROM billing_account WHERE id = ANY($1::bigint[])", (integers(ids),), rows
    )


def test_each_step_has_its_own_parameters() -> None:
    steps = [
        Step("UPDATE a SET b = $2 WHERE id = $1 RETURNING 1", (b"7", b"8"), 1),
        Step("SELECT 1 FROM c WHERE id = $1", (b"9",), 0),
        Step("INSERT INTO d VALUES ($1, $2)", (b"10", None)),
        Step("DELETE FROM e WHERE id = ANY($1) RETURNING 1", (b"{11,12}",), 2),
    ]

    merged = Merger().merge(steps)

    assert merged == (
        "WITH step_0 AS (UPDATE a SET b = $2 WHERE id = $1 RETURNING 1), "
        "step_1 AS (SELECT 1 FROM c WHERE id = $3), "
        "step_2 AS (INSERT INTO d VALUES ($4, $5)), "
        "step_3 AS (DELETE FROM e WHERE id = ANY($6) RETURNING 1) "
        "SELECT 1 / ((SELECT count(*) FROM (SELECT FROM step_0 UNION ALL SELECT FROM step_3)"
        " AS found) = $7::bigint AND NOT EXISTS (SELECT FROM step_1))::int",
        [b"7", b"8", b"9", b"10", None, b"{11,12}", b"3"],
    )


def test_shapes_are_kept_up_to_a_bound() -> None:
    merger = Merger()
    shapes = [[Step(f"SELECT {number}", (), 1)] for number in range(SHAPES_MAX + 1)]

    merged = [merger.merge(shape) for shape in shapes]

    assert [statement is None for statement in merged] == [False] * SHAPES_MAX + [True]
    assert merger.merge(shapes[0]) == merged[0]


def run(raw: psycopg.Connection[Any], steps: list[Step]) -> None:
    pipeline = Pipeline(raw, prepares=True)
    merged = cast(Statement, Merger().merge(steps))
    for statements in ([merged], list(map(alone, steps))):
        pipeline.run(statements)


@pytest.mark.postgres
def test_as_many_rows_as_are_wanted_pass(raw: psycopg.Connection[Any]) -> None:
    ids = [row[0] for row in raw.execute("SELECT id FROM billing_account ORDER BY id LIMIT 2")]

    run(raw, [of_accounts(ids, len(ids)), of_accounts([-1], 0)])


@pytest.mark.postgres
@pytest.mark.parametrize(("ids", "rows"), [([-1], 1), ([1, 2, 3, 4, 5], 0)])
@pytest.mark.parametrize("is_merged", [True, False])
def test_more_or_less_end_it_all(
    raw: psycopg.Connection[Any], ids: list[int], rows: int, is_merged: bool
) -> None:
    noted = Step(
        "INSERT INTO billing_spendcounter (scope, scope_id, spent_nanos, held_nanos) "
        "VALUES ('test', $1, 0, 0)",
        (b"1",),
    )
    steps = [of_accounts(ids, rows), noted]
    merged = cast(Statement, Merger().merge(steps))
    statements = [merged] if is_merged else [("BEGIN", ()), *map(alone, steps), ("COMMIT", ())]

    with pytest.raises(psycopg.errors.DivisionByZero):
        Pipeline(raw, prepares=True).run(statements)

    raw.rollback()
    assert raw.execute("SELECT count(*) FROM billing_spendcounter").fetchone() == (0,)


@pytest.mark.postgres
def test_what_fails_with_the_commit_of_a_single_statement_is_an_error(
    raw: psycopg.Connection[Any],
) -> None:
    """Foreign keys are checked with the commit, after the statement has had its result."""
    entry = {
        "transaction_id": ONE,
        "account_id": -1,
        "request_id": None,
        "kind": "charge",
        "amount_nanos": 0,
        "sequence": 1,
        "balance_after_nanos": 0,
        "corrects_id": None,
        "hash": b"\x01",
    }
    merged = cast(Statement, Merger().merge([insert("billing_entry", [entry])]))

    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        Pipeline(raw, prepares=True).run([merged])

    assert raw.execute("SELECT count(*) FROM billing_entry").fetchone() == (0,)


HOLD = {
    "request_id": ONE,
    "incarnation_id": 3,
    "customer_id": 4,
    "amount_nanos": 2**62,
    "legs": '[[1, 2]]\\n"\t',
    "counters": "",
    "detail": "%s 你好 $1",
    "checkpoint": None,
    "placed_at": AT,
}


@pytest.mark.postgres
@pytest.mark.parametrize("count", [1, 2])
def test_rows_arrive_as_they_are(raw: psycopg.Connection[Any], count: int) -> None:
    rows = [HOLD | {"request_id": UUID(int=ONE.int + number)} for number in range(count)]

    Pipeline(raw, prepares=True).run([alone(insert("billing_hold", rows))])

    columns = [name for name in HOLD if name != "placed_at"]
    found = raw.execute(f"SELECT {', '.join(columns)} FROM billing_hold ORDER BY request_id")  # noqa: S608 (constants)
    assert [dict(zip(columns, row, strict=True)) for row in found] == [
        {name: row[name] for name in columns} for row in rows
    ]
    # The database's own clock says when it was placed.
    assert raw.execute(
        "SELECT count(*) FROM billing_hold WHERE placed_at = %s", (AT,)
    ).fetchone() == (0,)


def test_values_are_written_as_postgresql_reads_them() -> None:
    row = {
        "id": ONE,
        "kind": RequestState.VOIDED,
        "idempotency_key": b"\x00\xff",
        "actor_id": None,
        "actor_name": "",
        "reason": True,
        "created_at": AT,
    }

    step = insert("billing_transaction", [row])

    assert step.values == [
        str(ONE).encode(),
        b"voided",
        b"\\x00ff",
        None,
        b"",
        b"True",
        b"2026-11-30 23:53:41.000007+00:00",
    ]


@pytest.mark.postgres
def test_a_zero_byte_is_refused_and_not_cut_off(raw: psycopg.Connection[Any]) -> None:
    step = insert("billing_hold", [HOLD | {"detail": "before\x00after"}])

    with pytest.raises(psycopg.DataError):
        Pipeline(raw, prepares=True).run([alone(step)])


@pytest.mark.parametrize("value", [["a"], {"a": 1}, 1.5])
def test_what_has_another_text_here_goes_as_json(value: object) -> None:
    step = insert("billing_hold", [HOLD | {"detail": value}])

    assert len(step.values) == 1


def test_rows_of_more_than_one_call_go_as_json() -> None:
    assert len(insert("billing_hold", [HOLD], as_values=False).values) == 1


@pytest.mark.postgres
def test_what_was_parsed_is_kept_when_it_fails(raw: psycopg.Connection[Any]) -> None:
    """Else each failure would leave another copy with its plan in the database."""
    pipeline = Pipeline(raw, prepares=True)
    refused = ("SELECT 1 / $1::int", (b"0",))

    for _ in range(3):
        with pytest.raises(psycopg.errors.DivisionByZero):
            pipeline.run([refused, ("SELECT 2", ())])

    (result,) = pipeline.run([("SELECT 2", ())])
    assert text(result.get_value(0, 0)) == "2"
    found = raw.execute("SELECT statement FROM pg_prepared_statements ORDER BY 1").fetchall()
    assert found == [("SELECT 1 / $1::int",), ("SELECT 2",)]


@pytest.mark.postgres
def test_times_and_truths_arrive(raw: psycopg.Connection[Any]) -> None:
    step = Step("SELECT $1::timestamptz = $2::timestamptz AND $3::boolean", (), 1)
    values = insert(
        "billing_transaction",
        [
            {
                "id": ONE,
                "kind": AT,
                "idempotency_key": AT.isoformat(),
                "actor_id": True,
                "actor_name": "",
                "reason": "",
                "created_at": AT,
            }
        ],
    ).values

    (result,) = Pipeline(raw, prepares=True).run([(step.sql, values[1:4])])

    assert text(result.get_value(0, 0)) == "t"
