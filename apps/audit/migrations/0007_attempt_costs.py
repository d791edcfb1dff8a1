"""What a provider bills for an attempt stands beside it; null where nobody told it.

A column that may be null: no row is written, however many attempts there are, also on a partitioned table. SQLite would
copy the table for Django's own statement.
"""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('audit', '0006_idempotency_keys'),
    ]

    operations = [
        migrations.RunSQL(
            sql="ALTER TABLE audit_attempt ADD COLUMN cost_nanos bigint NULL",
            reverse_sql="ALTER TABLE audit_attempt DROP COLUMN cost_nanos",
            state_operations=[
                migrations.AddField(
                    model_name='attempt',
                    name='cost_nanos',
                    field=models.BigIntegerField(help_text='What the provider bills for it; null: it is not known.', null=True),
                ),
            ],
        ),
    ]
