"""Statistics of money find the calls that were settled in a stretch of time; calls go on meanwhile."""

from django.db import migrations

from apps.core.indexes import AddBlockRangeIndex


class Migration(migrations.Migration):
    # What is built concurrently is built outside transactions.
    atomic = False

    dependencies = [("audit", "0010_partitions_refuse_truncate")]

    operations = [
        AddBlockRangeIndex("audit_apirequest", "settled_at", "audit_request_settled"),
    ]
