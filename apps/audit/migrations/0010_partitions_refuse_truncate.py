"""Partitions of history refuse to be truncated by their own names: PostgreSQL clones only the
triggers for rows. Nothing is read or written; each partition is locked for a moment.
"""

from typing import Any

from django.db import migrations

from apps.core.triggers import drop_no_truncate, no_truncate

# Payloads may be erased.
TABLES = ("audit_apirequest", "audit_attempt")


def install(apps: Any, schema_editor: Any) -> None:
    for name in list_partitions(schema_editor):
        schema_editor.execute(drop_no_truncate(name), None)
        schema_editor.execute(no_truncate(name), None)


def remove(apps: Any, schema_editor: Any) -> None:
    for name in list_partitions(schema_editor):
        schema_editor.execute(drop_no_truncate(name), None)


def list_partitions(schema_editor: Any) -> list[str]:
    if schema_editor.connection.vendor != "postgresql":
        return []
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(
            "SELECT child.relname FROM pg_inherits JOIN pg_class child ON child.oid = inhrelid "
            "WHERE inhparent = ANY (%s::regclass[]) ORDER BY 1",
            [list(TABLES)],
        )
        return [name for (name,) in cursor.fetchall()]


class Migration(migrations.Migration):
    dependencies = [("audit", "0009_stored_answers")]

    operations = [migrations.RunPython(install, remove)]
