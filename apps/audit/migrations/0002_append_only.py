"""History is written once: triggers refuse changes, and PostgreSQL gets its first partitions."""

from typing import Any

from django.db import migrations

from apps.audit.operations import make_first_partitions
from apps.core.triggers import append_only, drop_append_only

# Payloads may be erased by rule, but not edited.
TABLES = {"audit_apirequest": False, "audit_attempt": False, "audit_adminevent": False, "audit_payload": True}


def install(apps: Any, schema_editor: Any) -> None:
    for table, may_delete in TABLES.items():
        for statement in append_only(schema_editor.connection.vendor, table, may_delete=may_delete):
            schema_editor.execute(statement, None)


def remove(apps: Any, schema_editor: Any) -> None:
    for table, may_delete in TABLES.items():
        for statement in drop_append_only(schema_editor.connection.vendor, table, may_delete=may_delete):
            schema_editor.execute(statement, None)


class Migration(migrations.Migration):
    dependencies = [("audit", "0001_initial")]

    operations = [
        migrations.RunPython(make_first_partitions, migrations.RunPython.noop),
        migrations.RunPython(install, remove),
    ]
