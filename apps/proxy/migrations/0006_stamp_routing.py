"""Strategies, overrides, limits of providers and their policies are configuration, stamped like the rest."""

from django.db import migrations

from apps.core.triggers import watch_columns

LIMITS = ("rpm", "tpm", "concurrency", "daily_cost_nanos")
watch, forget = watch_columns({
    "ai_models_aimodel": ("strategy", "is_sticky"),
    "ai_models_route": ("overrides",),
    "providers_provider": (*LIMITS, "leaving_policy", "drain_seconds", "headers"),
    "providers_providerkey": LIMITS,
})  # fmt: skip


class Migration(migrations.Migration):
    dependencies = [
        ("proxy", "0005_stamp_key_health"),
        ("ai_models", "0004_strategies_and_overrides"),
        ("providers", "0005_limits_and_leaving"),
    ]

    operations = [migrations.RunPython(watch, forget)]
