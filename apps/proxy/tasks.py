"""Periodic work for gateways. Scheduled in `auditing.celery`."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Final

from celery import shared_task

from apps.proxy.checks import check_provider, list_due_providers
from apps.proxy.rests import database_now, prune_rests
from apps.proxy.stored_answers import prune_stored_answers as prune

# Each question takes ten seconds at most; what is left is due at the next run.
CHECKS_MAX: Final = 50
RUN_SECONDS_MAX: Final = 60.0


@shared_task(name="proxy.check_resting")
def check_resting() -> int:
    """Ask providers of which routes rest and return how many are well again."""
    until = time.monotonic() + RUN_SECONDS_MAX
    prune_rests(now=database_now())
    well = 0
    for provider in list_due_providers(now=database_now())[:CHECKS_MAX]:
        if time.monotonic() > until:
            break
        well += check_provider(provider=provider, now=database_now())
    return well


@shared_task(name="proxy.prune_stored_answers")
def prune_stored_answers() -> int:
    """Forget where answers lie that their providers keep no longer and return how many."""
    return prune(now=datetime.now(UTC))
