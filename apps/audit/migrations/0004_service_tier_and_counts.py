"""What decides a charge beside tokens. Empty in all calls on record: these were charged without."""

from django.db import migrations, models

from apps.audit.operations import AddTextColumn


class Migration(migrations.Migration):

    dependencies = [
        ('audit', '0003_history_filters'),
    ]

    operations = [
        AddTextColumn(
            model_name='apirequest',
            name='counts',
            field=models.CharField(blank=True, db_default='', default='', help_text='What was counted by the piece, as compact JSON without zeros; empty: nothing.', max_length=200),
        ),
        AddTextColumn(
            model_name='apirequest',
            name='service_tier',
            field=models.CharField(blank=True, db_default='', default='', help_text='At whose prices it was charged; empty: the usual ones.', max_length=32),
        ),
    ]
