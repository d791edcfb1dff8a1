"""Entries and transactions are only ever added, and the entries of a transaction sum to zero.

All entries of a transaction are inserted by one statement, which is what the PostgreSQL trigger checks.
SQLite has no statement triggers; there the ledger asserts the sum before it writes.
"""

from typing import Any

from django.db import migrations

from apps.core.triggers import append_only, drop_append_only

TABLES = ("billing_entry", "billing_transaction")
BALANCED = [
    """CREATE FUNCTION billing_check_balanced() RETURNS trigger LANGUAGE plpgsql AS $$
       BEGIN
         IF EXISTS (SELECT 1 FROM added GROUP BY transaction_id HAVING SUM(amount_nanos) <> 0) THEN
           RAISE EXCEPTION 'the entries of a transaction do not sum to zero' USING ERRCODE = '23514';
         END IF;
         RETURN NULL;
       END $$""",
    """CREATE TRIGGER billing_entry_balanced AFTER INSERT ON billing_entry
       REFERENCING NEW TABLE AS added FOR EACH STATEMENT EXECUTE FUNCTION billing_check_balanced()""",
]
UNBALANCED = [
    "DROP TRIGGER billing_entry_balanced ON billing_entry",
    "DROP FUNCTION billing_check_balanced()",
]


def install(apps: Any, schema_editor: Any) -> None:
    vendor = schema_editor.connection.vendor
    statements = [line for table in TABLES for line in append_only(vendor, table)]
    for statement in statements + (BALANCED if vendor == "postgresql" else []):
        schema_editor.execute(statement, None)


def remove(apps: Any, schema_editor: Any) -> None:
    vendor = schema_editor.connection.vendor
    statements = [line for table in TABLES for line in drop_append_only(vendor, table)]
    for statement in statements + (UNBALANCED if vendor == "postgresql" else []):
        schema_editor.execute(statement, None)


class Migration(migrations.Migration):
    dependencies = [("billing", "0002_links"), ("audit", "0002_append_only")]

    operations = [migrations.RunPython(install, remove)]
