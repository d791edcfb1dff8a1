"""Stored answers come from the app `proxy`: the ledger writes them with the rows of their calls.

The table keeps its rows under its new name, and so do its constraints and its index.
"""

from functools import partial
from typing import Any

from django.db import migrations, models

BEFORE, AFTER = "proxy_storedanswer", "audit_storedanswer"


def rename(source: str, target: str, apps: Any, schema_editor: Any) -> None:
    if schema_editor.connection.vendor == "sqlite":
        _copy(source, target, schema_editor)
        return
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(
            "SELECT conname FROM pg_constraint WHERE conrelid = %s::regclass", [source]
        )
        constraints = [name for (name,) in cursor.fetchall()]  # PostgreSQL 18 names NOT NULL, too
    for statement in (
        f"ALTER TABLE {source} RENAME TO {target}",
        f"ALTER INDEX {source}_expires RENAME TO {target}_expires",
        f"ALTER SEQUENCE {source}_id_seq RENAME TO {target}_id_seq",
        *(
            f"ALTER TABLE {target} RENAME CONSTRAINT {name} TO {name.replace(source, target)}"
            for name in constraints
        ),
    ):
        schema_editor.execute(statement, None)


def _copy(source: str, target: str, schema_editor: Any) -> None:
    """Make the same table under another name: SQLite renames neither constraints nor indexes."""
    with schema_editor.connection.cursor() as cursor:
        cursor.execute(
            "SELECT sql FROM sqlite_master WHERE tbl_name = %s AND sql IS NOT NULL "
            "ORDER BY type = 'table' DESC",
            [source],
        )
        (table, *indexes) = (sql.replace(source, target) for (sql,) in cursor.fetchall())
    copy = f"INSERT INTO {target} SELECT * FROM {source}"  # noqa: S608 (constants)
    for statement in (table, copy, f"DROP TABLE {source}", *indexes):
        schema_editor.execute(statement, None)


class Migration(migrations.Migration):
    dependencies = [
        ("audit", "0008_answered_from"),
        ("proxy", "0009_stored_answers"),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations=[
                migrations.RunPython(partial(rename, BEFORE, AFTER), partial(rename, AFTER, BEFORE))
            ],
            state_operations=[
                migrations.CreateModel(
                    name="StoredAnswer",
                    fields=[
                        ("id", models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")),
                        ("digest", models.BinaryField(help_text="Of the id.", max_length=32)),
                        ("provider_id", models.BigIntegerField()),
                        ("provider_key_id", models.BigIntegerField()),
                        ("user_id", models.BigIntegerField()),
                        ("model_id", models.BigIntegerField()),
                        ("created_at", models.DateTimeField()),
                        ("expires_at", models.DateTimeField()),
                    ],
                    options={
                        "indexes": [models.Index(fields=["expires_at"], name="audit_storedanswer_expires")],
                        "constraints": [models.UniqueConstraint(fields=("digest", "provider_id"), name="audit_storedanswer_id")],
                    },
                ),
            ],
        ),
    ]
