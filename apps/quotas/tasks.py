"""Periodic work on quotas. Scheduled in `auditing.celery`."""

from __future__ import annotations

from celery import shared_task
from django.utils import timezone

from apps.quotas.leftovers import take_back_expired
from apps.quotas.repeats import prune


@shared_task(name="quotas.prune_idempotency_keys")
def prune_idempotency_keys() -> int:
    """Forget idempotency keys that nobody repeats any more and return how many there were."""
    return prune(now=timezone.now())


@shared_task(name="quotas.end_expired")
def end_expired() -> int:
    """Take back what expired quotas have left and return how many had something."""
    return take_back_expired()
