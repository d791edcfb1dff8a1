from django.db import migrations, models

from apps.core.triggers import keep_triggers

# SQLite rebuilds these tables for columns with a default, and loses their triggers with them.
remember, restore = keep_triggers("ai_models_aimodel", "ai_models_route")


class Migration(migrations.Migration):

    dependencies = [
        ('ai_models', '0003_counts_minimum_and_terms'),
    ]

    operations = [
        migrations.RunPython(remember, restore),
        migrations.AddField(
            model_name='aimodel',
            name='is_sticky',
            field=models.BooleanField(db_default=False, default=False, help_text='Calls of one conversation go to the same route and provider key.'),
        ),
        migrations.AddField(
            model_name='aimodel',
            name='strategy',
            field=models.CharField(choices=[('priority', 'at random by weight'), ('least_latency', 'the quickest first byte first'), ('least_cost', 'the lowest cost first')], db_default='priority', default='priority', help_text='Orders the routes of one priority; a lower priority always goes first.', max_length=16),
        ),
        migrations.AddField(
            model_name='route',
            name='overrides',
            field=models.JSONField(blank=True, db_default={}, default=dict, help_text='What is changed of requests on this route; see docs/routing.md.'),
        ),
        migrations.RunPython(restore, remember),
    ]
