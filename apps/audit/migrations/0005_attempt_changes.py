"""What a route's overrides changed of a request stands beside the attempt.

A column with a constant default: no row is written, however many attempts there are. SQLite would copy the table for
Django's own statement.
"""

from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('audit', '0004_service_tier_and_counts'),
    ]

    operations = [
        migrations.RunSQL(
            sql="ALTER TABLE audit_attempt ADD COLUMN changes varchar(500) DEFAULT '' NOT NULL",
            reverse_sql="ALTER TABLE audit_attempt DROP COLUMN changes",
            state_operations=[
                migrations.AddField(
                    model_name='attempt',
                    name='changes',
                    field=models.CharField(db_default='', default='', help_text="What the route's overrides changed of the request.", max_length=500),
                ),
            ],
        ),
    ]
