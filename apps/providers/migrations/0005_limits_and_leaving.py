from django.db import migrations, models

from apps.core.triggers import keep_triggers

# SQLite rebuilds these tables for columns with a default, and loses their triggers with them.
remember, restore = keep_triggers("providers_provider", "providers_providerkey")


class Migration(migrations.Migration):

    dependencies = [
        ('providers', '0004_key_health'),
    ]

    operations = [
        migrations.RunPython(remember, restore),
        migrations.AddField(
            model_name='provider',
            name='concurrency',
            field=models.PositiveIntegerField(blank=True, help_text='Requests at the same time; empty: no limit.', null=True),
        ),
        migrations.AddField(
            model_name='provider',
            name='daily_cost_nanos',
            field=models.BigIntegerField(blank=True, help_text='What the provider may bill for the calls of one day (UTC), in nano-USD; empty: no limit.', null=True),
        ),
        migrations.AddField(
            model_name='provider',
            name='drain_seconds',
            field=models.FloatField(db_default=30.0, default=30.0, help_text='How long an answer is read on after its client left, where it is.'),
        ),
        migrations.AddField(
            model_name='provider',
            name='headers',
            field=models.JSONField(blank=True, db_default={}, default=dict, help_text='Headers that every request to this provider carries, by name.'),
        ),
        migrations.AddField(
            model_name='provider',
            name='leaving_policy',
            field=models.CharField(choices=[('cancel', 'it is cancelled'), ('drain', 'it is read on, for its exact usage')], db_default='cancel', default='cancel', help_text='What happens to an answer when its client leaves.', max_length=16),
        ),
        migrations.AddField(
            model_name='provider',
            name='rpm',
            field=models.PositiveIntegerField(blank=True, help_text='Requests a minute; empty: no limit.', null=True),
        ),
        migrations.AddField(
            model_name='provider',
            name='tpm',
            field=models.PositiveIntegerField(blank=True, help_text='Tokens a minute; empty: no limit.', null=True),
        ),
        migrations.AddField(
            model_name='providerkey',
            name='concurrency',
            field=models.PositiveIntegerField(blank=True, help_text='Requests at the same time; empty: no limit.', null=True),
        ),
        migrations.AddField(
            model_name='providerkey',
            name='daily_cost_nanos',
            field=models.BigIntegerField(blank=True, help_text='What the provider may bill for the calls of one day (UTC), in nano-USD; empty: no limit.', null=True),
        ),
        migrations.AddField(
            model_name='providerkey',
            name='rpm',
            field=models.PositiveIntegerField(blank=True, help_text='Requests a minute; empty: no limit.', null=True),
        ),
        migrations.AddField(
            model_name='providerkey',
            name='tpm',
            field=models.PositiveIntegerField(blank=True, help_text='Tokens a minute; empty: no limit.', null=True),
        ),
        migrations.AddConstraint(
            model_name='provider',
            constraint=models.CheckConstraint(condition=models.Q(('daily_cost_nanos__isnull', True), ('daily_cost_nanos__gte', 0), _connector='OR'), name='providers_provider_daily_cost'),
        ),
        migrations.AddConstraint(
            model_name='provider',
            constraint=models.CheckConstraint(condition=models.Q(('drain_seconds__gt', 0)), name='providers_provider_drain'),
        ),
        migrations.AddConstraint(
            model_name='providerkey',
            constraint=models.CheckConstraint(condition=models.Q(('daily_cost_nanos__isnull', True), ('daily_cost_nanos__gte', 0), _connector='OR'), name='providers_providerkey_daily_cost'),
        ),
        migrations.RunPython(restore, remember),
    ]
