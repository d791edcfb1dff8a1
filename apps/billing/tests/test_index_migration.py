"""Indexes of the ledger are built while it is written, and after an interrupted try."""

from __future__ import annotations

import io

import pytest
from django.core.management import call_command
from django.db import ProgrammingError, connection

from apps.billing.models import Entry
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
