"""Where a provider wants its key is configuration, stamped like the rest."""

from django.db import migrations

from apps.core.triggers import watch_columns

watch, forget = watch_columns({"providers_provider": ("key_header",)})


class Migration(migrations.Migration):
    dependencies = [
        ("proxy", "0007_stamp_answer_cache"),
        ("providers", "0006_key_header_and_dialects"),
    ]

    operations = [migrations.RunPython(watch, forget)]
