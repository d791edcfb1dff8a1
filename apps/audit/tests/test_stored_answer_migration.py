"""The table of stored answers takes its rows along when it changes its app, and back."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.core.management import call_command
from django.db import IntegrityError, connection

from apps.audit.models import StoredAnswer
from tests.support.databases import Database

NOW = datetime(2026, 11, 30, 12, 0, tzinfo=UTC)
ROW = {
    "provider_id": 1,
    "provider_key_id": 2,
    "user_id": 7,
    "model_id": 3,
    "created_at": NOW,
    "expires_at": NOW + timedelta(days=30),
}


def names_of(table: str) -> dict[str, Any]:
    """Return the columns of what has a name of its own in a table."""
    with connection.cursor() as cursor:
        found = connection.introspection.get_constraints(cursor, table)
    return {name: one["columns"] for name, one in found.items() if name.startswith(table)}


def test_rows_names_and_numbers_go_along_and_back(committed_db: Database) -> None:
    first = StoredAnswer.objects.create(digest=b"\x01" * 32, **ROW)
    before = names_of("audit_storedanswer")

    call_command("migrate", "audit", "0008", verbosity=0)

    with connection.cursor() as cursor:
        cursor.execute("SELECT id, user_id FROM proxy_storedanswer")
        assert cursor.fetchall() == [(first.pk, 7)]
    there = names_of("proxy_storedanswer")
    call_command("migrate", "audit", verbosity=0)
    call_command("migrate", "proxy", verbosity=0)
    second = StoredAnswer.objects.create(digest=b"\x02" * 32, **ROW)
    assert before["audit_storedanswer_expires"] == ["expires_at"]
    assert before["audit_storedanswer_id"] == ["digest", "provider_id"]
    assert there == {name.replace("audit", "proxy"): columns for name, columns in before.items()}
    assert names_of("audit_storedanswer") == before
    assert StoredAnswer.objects.get(pk=first.pk).expires_at == ROW["expires_at"]
    assert second.pk == first.pk + 1
    with pytest.raises(IntegrityError):
        StoredAnswer.objects.create(digest=b"\x01" * 32, **ROW)


@pytest.mark.postgres
def test_nothing_of_it_keeps_its_old_name(committed_db: Database) -> None:
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT count(*) FILTER (WHERE relname LIKE 'proxy_storedanswer%'), "
            "count(*) FILTER (WHERE relname LIKE 'audit_storedanswer%') FROM pg_class"
        )
        # The table, its sequence, and the indexes of its key, its constraint and the sweep.
        assert cursor.fetchone() == (0, 5)
