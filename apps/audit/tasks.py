"""Periodic work on the audit tables. Scheduled in `auditing.celery`."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import Final

from celery import shared_task
from django.conf import settings
from django.db import connection, transaction

from apps.audit.partitions import ensure_partitions
from apps.audit.retention import Selection
from apps.audit.retention import erase_payloads as erase
from apps.audit.retention import prune_idempotency_keys as prune
from apps.audit.retention import prune_refusals as forget_refusals

logger = logging.getLogger(__name__)

# Well under the time limit of a task; the next run goes on.
RUN_SECONDS_MAX: Final = 300.0


@shared_task(name="audit.make_partitions")
def make_partitions() -> None:
    """Make the partitions of the coming months, on PostgreSQL."""
    if connection.vendor == "postgresql":
        with transaction.atomic(), connection.cursor() as cursor:
            ensure_partitions(cursor, now=datetime.now(UTC))


@shared_task(name="audit.erase_payloads")
def erase_payloads() -> int:
    """Erase bodies older than PAYLOAD_DAYS and return how many; 0 days keeps them for ever."""
    if not settings.PAYLOAD_DAYS:
        return 0
    before = datetime.now(UTC) - timedelta(days=settings.PAYLOAD_DAYS)
    done = erase(
        Selection(before=before),
        reason=f"PAYLOAD_DAYS={settings.PAYLOAD_DAYS}",
        seconds_max=RUN_SECONDS_MAX,
    )
    if not done.is_complete:
        logger.warning(
            "bodies older than PAYLOAD_DAYS=%d are left: %d were erased in %.0f seconds, and the "
            "next run goes on",
            settings.PAYLOAD_DAYS,
            done.count,
            RUN_SECONDS_MAX,
        )
    return done.count


@shared_task(name="audit.prune_idempotency_keys")
def prune_idempotency_keys() -> int:
    """Forget the idempotency keys of calls that are older than a day and return how many."""
    return prune(now=datetime.now(UTC), seconds_max=RUN_SECONDS_MAX)


@shared_task(name="audit.prune_refusals")
def prune_refusals() -> int:
    """Forget how many calls were refused more than 400 days ago and return how many counts."""
    return forget_refusals(now=datetime.now(UTC))
