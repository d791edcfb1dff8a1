"""What a key may be used for is configuration, stamped like the rest."""

from django.db import migrations

from apps.core.triggers import watch_columns

watch, forget = watch_columns({"api_keys_apikey": ("allowed_operations",)})


class Migration(migrations.Migration):
    dependencies = [
        ("proxy", "0009_stored_answers"),
        ("api_keys", "0006_allowed_operations"),
    ]

    operations = [migrations.RunPython(watch, forget)]
