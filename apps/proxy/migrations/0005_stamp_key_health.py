"""Which key takes a call, when a route rests and which keys are disabled are configuration, too."""

from typing import Any

from django.db import migrations

from apps.core.triggers import drop_stamps_configuration, stamps_configuration

# table → (what was watched before, what is watched as well)
WATCHED: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "providers_provider": (
        (
            "name", "base_url", "dialect", "is_active", "payload_mode", "connect_timeout_seconds",
            "first_byte_timeout_seconds", "idle_timeout_seconds", "total_timeout_seconds", "cap_nanos",
        ),
        ("key_strategy", "failures_max"),
    ),
    "providers_providerkey": (("provider_id", "sealed_secret", "weight", "is_active"), ("disabled_at",)),
}  # fmt: skip


def watch(apps: Any, schema_editor: Any) -> None:
    _install(schema_editor, with_more=True)


def forget(apps: Any, schema_editor: Any) -> None:
    _install(schema_editor, with_more=False)


def _install(schema_editor: Any, *, with_more: bool) -> None:
    vendor = schema_editor.connection.vendor
    for table, (before, more) in WATCHED.items():
        statements = drop_stamps_configuration(vendor, table)
        statements += stamps_configuration(
            vendor, table, columns=(*before, *more) if with_more else before
        )
        for statement in statements:
            schema_editor.execute(statement, None)


class Migration(migrations.Migration):
    dependencies = [
        ("proxy", "0004_circuit_rests"),
        ("providers", "0004_key_health"),
    ]

    operations = [migrations.RunPython(watch, forget)]
