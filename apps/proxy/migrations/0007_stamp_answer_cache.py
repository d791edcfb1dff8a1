"""For how long answers are kept, and at which share of the price, is configuration, too."""

from django.db import migrations

from apps.core.triggers import watch_columns

watch, forget = watch_columns({
    "ai_models_aimodel": ("cache_seconds", "cache_share_millionths"),
    "api_keys_apikey": ("cache_seconds",),
})  # fmt: skip


class Migration(migrations.Migration):
    dependencies = [
        ("proxy", "0006_stamp_routing"),
        ("ai_models", "0005_answer_cache"),
        ("api_keys", "0005_answer_cache"),
    ]

    operations = [migrations.RunPython(watch, forget)]
