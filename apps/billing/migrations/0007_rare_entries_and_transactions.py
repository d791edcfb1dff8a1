"""Indexes for the few entries and transactions that are not of calls; the ledger goes on meanwhile."""

from django.db import migrations, models

from apps.core.indexes import AddIndexWhileServing


class Migration(migrations.Migration):

    # What is built concurrently is built outside transactions.
    atomic = False

    dependencies = [
        ('billing', '0006_verifications'),
    ]

    operations = [
        AddIndexWhileServing(
            model_name='entry',
            index=models.Index(condition=models.Q(('kind__in', ['charge', 'revenue']), _negated=True), fields=['kind', '-id'], name='billing_entry_rare'),
        ),
        AddIndexWhileServing(
            model_name='transaction',
            index=models.Index(condition=models.Q(('kind', 'settlement'), _negated=True), fields=['kind', '-created_at'], name='billing_transaction_rare'),
        ),
        AddIndexWhileServing(
            model_name='transaction',
            index=models.Index(condition=models.Q(('actor_id__isnull', False)), fields=['actor_id', '-created_at'], name='billing_transaction_actor'),
        ),
    ]
