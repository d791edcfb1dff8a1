"""Indexes of the ledger are built while it is written, and after an interrupted try."""

from __future__ import annotations

import io

import pytest
from django.core.management import call_command
from django.db import connection

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
