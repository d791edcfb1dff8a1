"""Where an answer came from. Empty in all calls on record: providers gave theirs."""

from django.db import migrations, models

from apps.audit.operations import AddTextColumn


class Migration(migrations.Migration):

    dependencies = [
        ('audit', '0007_attempt_costs'),
    ]

    operations = [
        AddTextColumn(
            model_name='apirequest',
            name='answered_from',
            field=models.CharField(blank=True, choices=[('cache', 'the cache: it had been given to the same request before')], db_default='', default='', help_text='Where the answer was kept; empty: a provider gave it.', max_length=16),
        ),
    ]
