"""Periodic work on providers. Scheduled in `auditing.celery`."""

from __future__ import annotations

import time
from typing import Final

from celery import shared_task
from django.utils import timezone

from apps.providers.health import check_key, list_due_keys

# Each question takes ten seconds at most; what is left is due at the next run.
CHECKS_MAX: Final = 50
RUN_SECONDS_MAX: Final = 60.0


@shared_task(name="providers.check_keys")
def check_keys() -> int:
    """Ask with disabled keys that are due and return how many could be enabled again."""
    until = time.monotonic() + RUN_SECONDS_MAX
    enabled = 0
    for key in list_due_keys(now=timezone.now(), count_max=CHECKS_MAX):
        if time.monotonic() > until:
            break
        enabled += check_key(key=key, now=timezone.now())
    return enabled
