"""Indexes for the filters of recorded calls, events and refusals.

The table of calls is partitioned on PostgreSQL, where an index of the whole cannot be built
concurrently: this locks out writers while it runs, so stop the gateways for it once there are
many millions of calls. It may take as long as it needs.
"""

from django.db import migrations, models

from apps.core.indexes import AddIndexPatiently


class Migration(migrations.Migration):

    dependencies = [
        ('audit', '0002_append_only'),
    ]

    operations = [
        AddIndexPatiently(
            model_name='adminevent',
            index=models.Index(fields=['actor_id', '-id'], name='audit_event_actor'),
        ),
        AddIndexPatiently(
            model_name='adminevent',
            index=models.Index(fields=['action'], name='audit_event_action', opclasses=['varchar_pattern_ops']),
        ),
        AddIndexPatiently(
            model_name='apirequest',
            index=models.Index(fields=['requested_model', '-started_at'], name='audit_request_model'),
        ),
        AddIndexPatiently(
            model_name='apirequest',
            index=models.Index(fields=['provider_id', '-started_at'], name='audit_request_provider'),
        ),
        AddIndexPatiently(
            model_name='apirequest',
            index=models.Index(condition=models.Q(('status_code__gte', 400), models.Q(('state', 'completed'), _negated=True), ('error_code__gt', ''), ('attempt_count__gt', 1), _connector='OR'), fields=['-started_at', '-id'], name='audit_request_failures'),
        ),
        AddIndexPatiently(
            model_name='refusalcount',
            index=models.Index(fields=['minute'], name='audit_refusal_minute'),
        ),
    ]
