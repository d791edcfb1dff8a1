"""How many further attempts may run at once. Pure.

A provider in trouble must not get more calls than one that is well: of the running calls a fifth
may be in further attempts, or RETRIES_MIN where that is more. An attempt counts until its call
ends, and only against calls beside it, so that when everything fails providers get at most 1.2
calls for each call of a client (more only while so few run that the minimum decides).

Source: https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/cluster/v3/circuit_breaker.proto
"""

from __future__ import annotations

from typing import Final

RETRY_SHARE: Final = 0.2
RETRIES_MIN: Final = 3


class RetryBudget:
    """The further attempts of the calls that run in one process."""

    def __init__(self) -> None:
        self._running = 0

    @property
    def running(self) -> int:
        """How many further attempts were granted to calls that have not ended."""
        return self._running

    def take(self, calls: int) -> bool:
        """Return whether one more attempt may be made while so many calls run."""
        if self._running >= max(RETRIES_MIN, int(RETRY_SHARE * (calls - self._running))):
            return False
        self._running += 1
        return True

    def give_back(self, attempts: int) -> None:
        """Note that a call has ended which had been granted so many further attempts."""
        self._running -= attempts
