"""Stored answers are of the app `audit` now, and so is their table."""

from django.db import migrations


class Migration(migrations.Migration):
    dependencies = [
        ("proxy", "0011_stamp_budgets"),
        ("audit", "0009_stored_answers"),
    ]

    operations = [
        migrations.SeparateDatabaseAndState(
            state_operations=[migrations.DeleteModel("StoredAnswer")]
        )
    ]
