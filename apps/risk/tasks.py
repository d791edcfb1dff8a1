"""Periodic work on findings. Scheduled in `auditing.celery`."""

from __future__ import annotations

from datetime import UTC, datetime

from celery import shared_task

from apps.risk.findings import prune_findings as prune


@shared_task(name="risk.prune_findings")
def prune_findings() -> int:
    """Delete findings that are older than 90 days and return how many."""
    return prune(now=datetime.now(UTC))
