"""Indexes of the ledger are built while it is written, and after an interrupted try."""

from __future__ import annotations

import io
from datetime import UTC, datetime

import pytest
from django.core.management import call_command
from django.db import ProgrammingError, connection, transaction
from django.test.utils import CaptureQueriesContext

from apps.audit.models import APIRequest
from apps.audit.partitions import ensure_partitions
from apps.billing.models import Entry
from tests.support.calls import record_call
from tests.support.databases import Database


@pytest.mark.postgres
def test_no_index_of_the_ledger_locks_out_its_writer(committed_db: Database) -> None:
    out = io.StringIO()

    call_command("sqlmigrate", "billing", "0007", stdout=out)

    statements = [line for line in out.getvalue().splitlines() if "INDEX" in line]
    assert len([line for line in statements if line.startswith("CREATE")]) == 3
    assert all(" INDEX CONCURRENTLY " in line for line in statements)


def test_what_an_interrupted_run_has_left_is_built_again(committed_db: Database) -> None:
    call_command("migrate", "billing", "0006", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute("CREATE INDEX billing_entry_rare ON billing_entry (id)")

    call_command("migrate", "billing", "0007", verbosity=0)

    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, Entry._meta.db_table)
    assert found["billing_entry_rare"]["columns"] == ["kind", "id"]


@pytest.mark.postgres
def test_an_index_that_locks_out_writers_may_take_long_and_no_wait_for_its_lock(
    committed_db: Database,
) -> None:
    out = io.StringIO()

    call_command("sqlmigrate", "audit", "0003", stdout=out)

    lines = [line for line in out.getvalue().splitlines() if not line.startswith("--")]
    around = [(lines[at - 1], lines[at + 1]) for at, line in enumerate(lines) if "INDEX" in line]
    assert around == [("SET statement_timeout = '12h';", "RESET statement_timeout;")] * 6


@pytest.mark.postgres
def test_after_a_migration_statements_are_as_short_as_before(committed_db: Database) -> None:
    def timeouts() -> list[str]:
        found = []
        with connection.cursor() as cursor:
            for name in ("statement_timeout", "lock_timeout"):
                cursor.execute(f"SHOW {name}")
                found.append(cursor.fetchone()[0])
        return found

    call_command("migrate", "audit", "0002", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute("CREATE TABLE audit_request_model (id int)")  # Takes the index's name.
    with pytest.raises(ProgrammingError, match="already exists"):
        call_command("migrate", "audit", "0003", verbosity=0)
    failed = timeouts()
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE audit_request_model")

    call_command("migrate", "audit", "0003", verbosity=0)

    assert failed == timeouts() == ["30s", "5s"]


FILL = """INSERT INTO audit_apirequest ({columns}) SELECT {values}
    FROM generate_series(1, 50000) AS number, audit_apirequest AS one"""


def fill() -> None:
    """Record 50,000 calls, one in ten minutes."""
    at = "timestamptz '2026-01-01 00:00Z' + number * interval '10 minutes'"
    changed = {"id": "gen_random_uuid()", "settled_at": at, "customer_id": "number"}
    record_call()
    columns = [field.attname for field in APIRequest._meta.local_concrete_fields]
    values = [changed.get(name, f"one.{name}") for name in columns]
    with connection.cursor() as cursor:
        cursor.execute(FILL.format(columns=", ".join(columns), values=", ".join(values)))
        cursor.execute("VACUUM ANALYZE audit_apirequest")


def plan_of_a_day() -> str:
    """Return how PostgreSQL finds the calls that were settled on one day."""
    with connection.cursor() as cursor:
        cursor.execute(
            "EXPLAIN SELECT sum(charge_nanos) FROM audit_apirequest "
            "WHERE settled_at >= '2026-02-01Z' AND settled_at < '2026-02-02Z'"
        )
        return "\n".join(line for (line,) in cursor.fetchall())


def list_ranges() -> list[tuple[str, bool]]:
    """Return the indexes of block ranges of times of settlement, and whether each is complete."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT relname, indisvalid FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid "
            "WHERE pg_get_indexdef(indexrelid) LIKE '%USING brin (settled_at)%' ORDER BY 1"
        )
        return list(cursor.fetchall())


@pytest.mark.postgres
def test_calls_settled_on_a_day_are_found_by_their_block_ranges(committed_db: Database) -> None:
    fill()

    assert "Bitmap Index Scan on audit_apirequest_default_settled_at_brin" in plan_of_a_day()


@pytest.mark.postgres
def test_block_ranges_are_built_while_serving_and_after_an_interrupted_run(
    committed_db: Database,
) -> None:
    complete = list_ranges()
    call_command("migrate", "audit", "0010", verbosity=0)
    undone = list_ranges()
    with connection.cursor() as cursor:
        cursor.execute(
            "CREATE INDEX audit_request_settled ON ONLY audit_apirequest USING brin (settled_at)"
        )
        cursor.execute(
            "CREATE INDEX audit_apirequest_default_settled_at_brin "
            "ON audit_apirequest_default USING brin (settled_at)"
        )
    interrupted = list_ranges()

    with CaptureQueriesContext(connection) as queries:
        call_command("migrate", "audit", verbosity=0)

    built = [query["sql"] for query in queries if query["sql"].startswith("CREATE INDEX")]
    assert [sql.split('"')[0] for sql in built] == [
        "CREATE INDEX ",
        *["CREATE INDEX CONCURRENTLY "] * 4,
    ]
    assert " ON ONLY " in built[0]
    assert undone == []
    assert interrupted == [
        ("audit_apirequest_default_settled_at_brin", True),
        ("audit_request_settled", False),
    ]
    assert list_ranges() == complete
    assert len(complete) == 5
    assert all(is_valid for _, is_valid in complete)


@pytest.mark.postgres
def test_a_new_partition_gets_block_ranges_by_itself(committed_db: Database) -> None:
    with transaction.atomic(), connection.cursor() as cursor:
        ensure_partitions(cursor, now=datetime(2031, 1, 1, tzinfo=UTC))

    assert ("audit_apirequest_2031_03_settled_at_idx", True) in list_ranges()
