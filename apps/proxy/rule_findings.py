"""What rules found, on its way into the database: beside the calls, and never in their way.

Findings that come within a moment are one transaction, in a thread of this module's own. While the
database is away they wait, up to a bound.

Bounds: of one rule and key OF_ONE_MAX a minute, of all A_MINUTE_MAX, and as many that wait; what is
beyond is counted and dropped. How many calls were refused is counted with all refusals, exactly.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from django.db import DatabaseError, DataError, IntegrityError, InterfaceError

from apps.core.instruments import Counter
from apps.proxy.threads import DeadlineThread
from apps.risk.findings import CallFinding, write_findings

A_MINUTE_MAX: Final = 1_000
OF_ONE_MAX: Final = 20
GATHER_SECONDS: Final = 0.5
WRITE_SECONDS: Final = 5.0
STOP_SECONDS: Final = 2.0
_MINUTE: Final = 60.0
_BATCH: Final = 200

logger = logging.getLogger(__name__)


class RuleFindings:
    """What one process has to write down of findings. Belongs to the event loop."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self.dropped = Counter()
        self._monotonic = monotonic
        self._waiting: list[CallFinding] = []
        self._minute_ends = 0.0
        self._in_minute = 0
        self._of_one: dict[tuple[int, int], int] = {}
        self._writing: asyncio.Task[None] | None = None
        self._thread = DeadlineThread("findings")
        self._is_failing = False

    @property
    def waiting(self) -> Sequence[CallFinding]:
        """What is to be written yet."""
        return tuple(self._waiting)

    def add(self, finding: CallFinding) -> None:
        """Have a finding written down, within the bounds."""
        now = self._monotonic()
        if now >= self._minute_ends:
            self._minute_ends = now + _MINUTE
            self._in_minute = 0
            self._of_one.clear()
        one = (finding.rule_id, finding.api_key_id)
        count = self._of_one.get(one, 0)
        if (
            count >= OF_ONE_MAX
            or self._in_minute >= A_MINUTE_MAX
            or len(self._waiting) >= A_MINUTE_MAX
        ):
            self.dropped.add()
            return
        self._of_one[one] = count + 1
        self._in_minute += 1
        self._waiting.append(finding)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write_all())

    async def stop(self) -> None:
        """Write what waits, once, and no more."""
        if self._writing is not None:
            self._writing.cancel()
        if self._waiting:
            await self._write(self._waiting, STOP_SECONDS)
        self._thread.close()

    async def _write_all(self) -> None:
        """Write what waits, and what comes while that is written."""
        try:
            while self._waiting:
                await asyncio.sleep(GATHER_SECONDS)
                batch = self._waiting[:_BATCH]
                if await self._write(batch):
                    del self._waiting[: len(batch)]
        finally:
            self._writing = None

    async def _write(self, batch: list[CallFinding], seconds: float = WRITE_SECONDS) -> bool:
        """Write findings; return whether they are done with, written or not."""
        try:
            await self._thread.run(seconds, write_findings, batch)
        except (DataError, IntegrityError) as error:
            # No database would ever take them. Its words would tell what is in them.
            logger.error("%d findings of rules are lost: %s", len(batch), type(error).__name__)
            self._drop(batch)
        except (DatabaseError, InterfaceError, OSError) as error:
            if not self._is_failing:
                logger.warning("findings of rules have to wait: %s", type(error).__name__)
            self._is_failing = True
            return False
        except Exception:  # a bug, logged whole: nothing may be tried for ever
            logger.exception("%d findings of rules cannot be written", len(batch))
            self._drop(batch)
        self._is_failing = False
        return True

    def _drop(self, batch: Sequence[CallFinding]) -> None:
        for _ in batch:
            self.dropped.add()
