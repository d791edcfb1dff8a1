"""Counts of attempts in a window of time: in Redis where there is one, else in the process.

A failing Redis must neither open a door nor shut it: the process counts meanwhile, and after three
failures in a row asks Redis once in five seconds only, so that one that hangs keeps few waiting.
What the process keeps is bounded, and no flood of new counters makes it forget one that locks
somebody out.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Final, NamedTuple

from django.core.cache import BaseCache, caches
from django.core.cache.backends.redis import RedisCache
from redis.exceptions import RedisError

from apps.core.breaker import Breaker

logger = logging.getLogger(__name__)

ENTRIES_MAX: Final = 200_000
_FIRST_SWEEP: Final = 1_024
_STUCK_SECONDS: Final = 1.0


class _Entry(NamedTuple):
    number: int
    locks_at: int
    ends_at: float


class ProcessCounts:
    """Counts of one process, each with an end, for all its threads."""

    def __init__(
        self, entries_max: int = ENTRIES_MAX, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Begin without counts."""
        self._entries_max = entries_max
        self._clock = clock
        self._lock = threading.Lock()
        self.clear()

    def __len__(self) -> int:
        """Return how many counters are kept."""
        return len(self._entries)

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._entries: dict[str, _Entry] = {}
            self._sweep_at = min(_FIRST_SWEEP, self._entries_max)
            self._stuck_until = 0.0

    def count_up(self, counter: str, *, seconds: int, locks_at: int) -> int:
        """Count one more and return how many there are."""
        with self._lock:
            now = self._clock()
            entry = self._entries.get(counter)
            if entry is None or entry.ends_at <= now:
                if entry is None and not self._has_room(now):
                    return 1
                entry = _Entry(0, locks_at, now + seconds)
            entry = entry._replace(number=entry.number + 1, locks_at=locks_at)
            self._entries[counter] = entry
            return entry.number

    def count_down(self, counter: str) -> None:
        """Take one back."""
        with self._lock:
            entry = self._entries.get(counter)
            if entry is None:
                return
            if entry.number > 1:
                self._entries[counter] = entry._replace(number=entry.number - 1)
            else:
                del self._entries[counter]

    def forget(self, counter: str) -> None:
        """Begin anew."""
        with self._lock:
            self._entries.pop(counter, None)

    def _has_room(self, now: float) -> bool:
        """Return whether one more can be kept, after making room where it can be made."""
        if len(self._entries) >= self._sweep_at and now >= self._stuck_until:
            self._sweep(now)
        return len(self._entries) < self._entries_max

    def _sweep(self, now: float) -> None:
        """Drop what has ended; if that is not enough, those that are farthest from their lock."""
        kept = {name: entry for name, entry in self._entries.items() if entry.ends_at > now}
        if len(kept) >= self._entries_max:
            # A tenth at once: a sweep looks at all.
            surplus = max(1, self._entries_max // 10)
            open_ones = [name for name, entry in kept.items() if entry.number < entry.locks_at]
            open_ones.sort(key=lambda name: kept[name].number / kept[name].locks_at)
            for name in open_ones[:surplus]:
                del kept[name]
        if len(kept) >= self._entries_max:
            # All are locked: to look again at once would cost much and find nothing.
            self._stuck_until = now + _STUCK_SECONDS
        self._entries = kept
        self._sweep_at = min(max(_FIRST_SWEEP, 2 * len(kept)), self._entries_max)


process_counts: Final = ProcessCounts()
redis_breaker: Final = Breaker()


def count_up(counter: str, *, seconds: int, locks_at: int) -> int:
    """Count one more and return how many there are in the window that the first one began.

    From the count `locks_at` on somebody is kept out: such a counter stays until its window ends.
    """
    count = _ask_shared(lambda counts: _increment(counts, counter, seconds))
    if count is not None:
        return count
    return process_counts.count_up(counter, seconds=seconds, locks_at=locks_at)


def count_down(counter: str) -> None:
    """Take one back."""
    process_counts.count_down(counter)
    _ask_shared(lambda counts: _decrement(counts, counter))


def forget(counter: str) -> None:
    """Begin anew."""
    process_counts.forget(counter)
    _ask_shared(lambda counts: counts.delete(counter))


def _ask_shared(question: Callable[[BaseCache], int]) -> int | None:
    """Return what Redis answers, or None where there is none or it does not answer."""
    shared = _find_shared()
    if shared is None or not redis_breaker.allows():
        return None
    try:
        answer = question(shared)
    except (RedisError, OSError) as error:
        if redis_breaker.record_failure():
            # The class only: a message may quote the connection's address.
            logger.warning(
                "Redis does not answer (%s): attempts are counted per process",
                type(error).__name__,
            )
        return None
    if redis_breaker.record_success():
        logger.info("Redis answers again: attempts are counted together")
    return answer


def _find_shared() -> BaseCache | None:
    # Any other cache makes room for new entries by forgetting others: a flood would open locks.
    found = caches["default"]
    return found if isinstance(found, RedisCache) else None


def _increment(counts: BaseCache, counter: str, seconds: int) -> int:
    counts.add(counter, 0, timeout=seconds)
    try:
        count = counts.incr(counter)
    except ValueError:
        # Expired between the two calls: a new window begins with this attempt.
        counts.add(counter, 1, timeout=seconds)
        return 1
    if count == 1:
        # Expired within `incr`, which would have begun a count without an end.
        counts.touch(counter, seconds)
    return count


def _decrement(counts: BaseCache, counter: str) -> int:
    if counts.get(counter, 0) <= 0:
        return 0
    try:
        return counts.decr(counter)
    except ValueError:
        return 0  # Expired between the two calls.
