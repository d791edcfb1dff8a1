"""Clocks that tests move by hand."""

from __future__ import annotations


class Clock:
    """A clock that stands still until it is set, in seconds."""

    def __init__(self, now: float = 1_000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now
