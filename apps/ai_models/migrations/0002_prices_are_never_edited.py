"""A price version explains charges for ever, so it is never edited or deleted."""

from typing import Any

from django.db import migrations

from apps.core.triggers import append_only, drop_append_only

TABLE = "ai_models_priceversion"


def install(apps: Any, schema_editor: Any) -> None:
    for statement in append_only(schema_editor.connection.vendor, TABLE):
        schema_editor.execute(statement, None)


def remove(apps: Any, schema_editor: Any) -> None:
    for statement in drop_append_only(schema_editor.connection.vendor, TABLE):
        schema_editor.execute(statement, None)


class Migration(migrations.Migration):
    dependencies = [("ai_models", "0001_initial"), ("audit", "0002_append_only")]

    operations = [migrations.RunPython(install, remove)]
