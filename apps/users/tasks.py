"""Periodic work on people. Scheduled in `auditing.celery`."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from celery import shared_task
from django.utils import timezone

from apps.core.pieces import delete_in_pieces
from apps.users.models import Session

# Long enough that a sign-in can still be looked up next to its event.
KEPT = timedelta(days=30)
# Of those, in one transaction and in one run.
PRUNED_ROWS: Final = 500
PRUNED_MAX: Final = 1_000_000


@shared_task(name="users.prune_sessions")
def prune_sessions() -> int:
    """Remove sessions that ended long ago, some at a time, and return how many there were."""
    rows = Session.objects.filter(expires_at__lt=timezone.now() - KEPT).order_by("expires_at")
    return delete_in_pieces(rows, size=PRUNED_ROWS, rows_max=PRUNED_MAX)
