"""Compares the host's clock with the database's.

Prices begin, keys expire and tokens run out by the host's clock: where it is off, calls and people
are refused for no reason that anybody sees.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from apps.billing.ledger.store import Engine

OFF_SECONDS: Final = 5.0

logger = logging.getLogger(__name__)


class HostClock:
    """Says once that the clock is off, and once that it is right again."""

    def __init__(self, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        self._now = now
        self._is_off = False
        # Seconds ahead of the database's, below 0 behind: as many as are certain.
        self.offset_seconds = 0.0

    def compare_clocks(self, engine: Engine) -> None:
        """Ask the database for its time. On SQLite that is the host's own."""
        before = self._now()
        asked = engine.ask_time()
        after = self._now()
        # The answer may have taken any part of the way there or back.
        least, most = (before - asked).total_seconds(), (after - asked).total_seconds()
        self.offset_seconds = max(least, 0.0) or min(most, 0.0)
        is_off = abs(self.offset_seconds) > OFF_SECONDS
        if is_off and not self._is_off:
            logger.error(
                "the clock of this host is %.0f s %s that of the database",
                abs(self.offset_seconds),
                "ahead of" if self.offset_seconds > 0 else "behind",
            )
        elif self._is_off and not is_off:
            logger.warning("the clock of this host and that of the database agree again")
        self._is_off = is_off
