"""Periodic work on people. Scheduled in `auditing.celery`."""

from __future__ import annotations

from datetime import timedelta

from celery import shared_task
from django.utils import timezone

from apps.users.models import Session

# Long enough that a sign-in can still be looked up next to its event.
KEPT = timedelta(days=30)


@shared_task(name="users.prune_sessions")
def prune_sessions() -> int:
    """Remove sessions that ended long ago and return how many there were."""
    deleted, _ = Session.objects.filter(expires_at__lt=timezone.now() - KEPT).delete()
    return deleted
