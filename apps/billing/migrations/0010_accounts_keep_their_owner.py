"""An account keeps its owner and its kind: the hash chain of its entries names neither."""

from typing import Any

from django.db import migrations

from apps.core.triggers import drop_fixed_columns, fixed_columns

TABLE = "billing_account"


def install(apps: Any, schema_editor: Any) -> None:
    for statement in fixed_columns(schema_editor.connection.vendor, TABLE, ("customer_id", "kind")):
        schema_editor.execute(statement, None)


def remove(apps: Any, schema_editor: Any) -> None:
    for statement in drop_fixed_columns(schema_editor.connection.vendor, TABLE):
        schema_editor.execute(statement, None)


class Migration(migrations.Migration):
    dependencies = [("billing", "0009_proposed_adjustments")]

    operations = [migrations.RunPython(install, remove)]
