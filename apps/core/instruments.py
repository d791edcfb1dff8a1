"""What counts and measures: plain numbers, one writer each, read by whoever shows them.

Nothing here is locked. An instrument belongs to one thread (an event loop, or the ledger's); a
reader in another thread may see a histogram in the middle of an observation, which is as good as a
moment earlier.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence


class Counter:
    """Counts events by the values of its labels. Whoever counts keeps their number bounded."""

    __slots__ = ("counts",)

    def __init__(self) -> None:
        self.counts: dict[tuple[str, ...], int] = {}

    def add(self, *values: str) -> None:
        """Count one event."""
        self.counts[values] = self.counts.get(values, 0) + 1


class Histogram:
    """Sorts observations into fixed buckets; a value on a bound belongs below it."""

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)  # the last one: above all bounds
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Take one observation."""
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value
