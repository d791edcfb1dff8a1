"""Counts of attempts in a window of time, in the shared cache; in the process where that is away.

A failing cache must neither open a door nor shut it. Without Redis each process counts for itself.
"""

from __future__ import annotations

from typing import Final

from django.core.cache import BaseCache, cache
from django.core.cache.backends.locmem import LocMemCache
from redis.exceptions import RedisError

_local: Final = LocMemCache("counters", {"OPTIONS": {"MAX_ENTRIES": 10_000}})


def count_up(counter: str, *, seconds: int) -> int:
    """Count one more and return how many there are in the window that the first one began."""
    try:
        return _increment(cache, counter, seconds)
    except (RedisError, OSError):
        return _increment(_local, counter, seconds)


def count_down(counter: str) -> None:
    """Take one back."""
    for counts in (cache, _local):
        try:
            if counts.get(counter, 0) > 0:
                counts.decr(counter)
        except (RedisError, OSError, ValueError):
            continue  # Away, or expired meanwhile: the counts end by themselves.


def forget(counter: str) -> None:
    """Begin anew."""
    for counts in (cache, _local):
        try:
            counts.delete(counter)
        except (RedisError, OSError):
            continue


def _increment(counts: BaseCache, counter: str, seconds: int) -> int:
    counts.add(counter, 0, timeout=seconds)
    try:
        return counts.incr(counter)
    except ValueError:
        # Expired between the two calls: a new window begins with this attempt.
        counts.add(counter, 1, timeout=seconds)
        return 1
