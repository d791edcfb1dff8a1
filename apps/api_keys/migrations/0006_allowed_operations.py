from django.db import migrations, models

from apps.core.triggers import keep_triggers

# SQLite rebuilds the table for a column with a default, and loses its triggers with it.
remember, restore = keep_triggers("api_keys_apikey")


class Migration(migrations.Migration):

    dependencies = [
        ('api_keys', '0005_answer_cache'),
    ]

    operations = [
        migrations.RunPython(remember, restore),
        migrations.AddField(
            model_name='apikey',
            name='allowed_operations',
            field=models.JSONField(blank=True, db_default=[], default=list, help_text='What the key may be used for; empty: everything.'),
        ),
        migrations.RunPython(restore, remember),
    ]
