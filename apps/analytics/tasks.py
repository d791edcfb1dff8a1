"""Periodic work for statistics. Scheduled in `auditing.celery`."""

from __future__ import annotations

import logging
from typing import Final

from celery import shared_task

from apps.analytics.rolling import roll_up as roll

# It runs every minute: a run that takes longer is gone on with by the next one.
RUN_SECONDS: Final = 50.0

logger = logging.getLogger(__name__)


@shared_task(name="analytics.roll_up")
def roll_up() -> bool:
    """Add what was recorded to the rollups and return whether that is all."""
    is_complete = roll(seconds=RUN_SECONDS)
    if not is_complete:
        logger.warning("the rollups are behind: statistics read the rest call by call")
    return is_complete
