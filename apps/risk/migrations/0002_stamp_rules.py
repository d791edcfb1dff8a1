"""Risk rules are configuration, stamped like the rest."""

from typing import Any

from django.db import migrations

from apps.core.triggers import drop_stamps_configuration, stamps_configuration

TABLE = "risk_riskrule"
COLUMNS = (
    "name", "kind", "action", "priority", "is_active", "message", "users", "user_groups", "api_keys",
    "models", "model_groups", "networks", "user_agent", "operations", "words", "are_whole_words", "pattern",
)  # fmt: skip


def watch(apps: Any, schema_editor: Any) -> None:
    for statement in stamps_configuration(schema_editor.connection.vendor, TABLE, columns=COLUMNS):
        schema_editor.execute(statement, None)


def forget(apps: Any, schema_editor: Any) -> None:
    for statement in drop_stamps_configuration(schema_editor.connection.vendor, TABLE):
        schema_editor.execute(statement, None)


class Migration(migrations.Migration):
    dependencies = [
        ("risk", "0001_initial"),
        ("proxy", "0002_stamp_configuration"),
    ]

    operations = [migrations.RunPython(watch, forget)]
