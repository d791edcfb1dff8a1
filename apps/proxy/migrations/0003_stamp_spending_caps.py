"""Spending caps are configuration: a change of one is stamped like any other.

On SQLite the triggers had also been lost with the tables that were rebuilt for the constraints on caps.
"""

from typing import Any

from django.db import migrations

from apps.core.triggers import drop_stamps_configuration, stamps_configuration

LIMITS = ("rpm", "tpm", "concurrency")
BEFORE: dict[str, tuple[str, ...]] = {
    "users_user": ("username", "is_active", "user_group_id", "customer_id", *LIMITS),
    "users_usergroup": ("name", "multiplier_millionths", *LIMITS),
    "providers_provider": (
        "name", "base_url", "dialect", "is_active", "payload_mode", "connect_timeout_seconds",
        "first_byte_timeout_seconds", "idle_timeout_seconds", "total_timeout_seconds",
    ),
}  # fmt: skip


def watch(apps: Any, schema_editor: Any) -> None:
    _install(schema_editor, "cap_nanos")


def forget(apps: Any, schema_editor: Any) -> None:
    _install(schema_editor)


def _install(schema_editor: Any, *more: str) -> None:
    vendor = schema_editor.connection.vendor
    for table, columns in BEFORE.items():
        statements = drop_stamps_configuration(vendor, table)
        statements += stamps_configuration(vendor, table, columns=(*columns, *more))
        for statement in statements:
            schema_editor.execute(statement, None)


class Migration(migrations.Migration):
    dependencies = [
        ("proxy", "0002_stamp_configuration"),
        ("users", "0003_spending_caps"),
        ("providers", "0002_spending_cap"),
    ]

    operations = [migrations.RunPython(watch, forget)]
