"""Periodic work on the audit tables. Scheduled in `auditing.celery`."""

from __future__ import annotations

from datetime import UTC, datetime

from celery import shared_task
from django.db import connection, transaction

from apps.audit.partitions import ensure_partitions


@shared_task(name="audit.make_partitions")
def make_partitions() -> None:
    """Make the partitions of the coming months, on PostgreSQL."""
    if connection.vendor == "postgresql":
        with transaction.atomic(), connection.cursor() as cursor:
            ensure_partitions(cursor, now=datetime.now(UTC))
