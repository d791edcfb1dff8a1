"""Findings are deleted when their time is up, and never edited."""

from typing import Any

from django.db import migrations

from apps.core.triggers import append_only, drop_append_only

TABLE = "risk_riskfinding"


def protect(apps: Any, schema_editor: Any) -> None:
    for statement in append_only(schema_editor.connection.vendor, TABLE, may_delete=True):
        schema_editor.execute(statement, None)


def release(apps: Any, schema_editor: Any) -> None:
    for statement in drop_append_only(schema_editor.connection.vendor, TABLE, may_delete=True):
        schema_editor.execute(statement, None)


class Migration(migrations.Migration):
    dependencies = [
        ("risk", "0002_stamp_rules"),
    ]

    operations = [migrations.RunPython(protect, release)]
