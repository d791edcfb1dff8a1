"""How quickly routes begin to answer, for models whose strategy is the least latency. Pure.

Of each route the time to its first byte is kept as an average in which an answer counts for a fifth
and the past for the rest; streams and whole answers apart, since the first byte of a whole answer
is also its last. A route of which nothing is known, or nothing new for FRESH_SECONDS, is tried
first, but by one call in TRY_SECONDS, so that one that hangs does not keep many waiting.

Kept in the process, for ROUTES_MAX routes at most.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

FRESH_SECONDS: Final = 60.0
TRY_SECONDS: Final = 1.0
ROUTES_MAX: Final = 10_000
_SHARE_OF_NEWEST: Final = 0.2


@dataclass(slots=True)
class _Latency:
    seconds: float = math.inf  # infinite: not known
    observed_at: float = -math.inf
    tried_at: float = -math.inf


class Latencies:
    """The latencies that one process has seen. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._found: dict[tuple[int, bool], _Latency] = {}

    def rank(self, route_id: int, is_stream: bool, now: float) -> float:
        """Return the average in seconds, 0 for a route that is to be tried, infinity for one of
        which nothing is known and that is being tried.
        """
        latency = self._found.get((route_id, is_stream))
        if latency is None:
            return 0.0
        is_old = now - latency.observed_at >= FRESH_SECONDS
        return 0.0 if is_old and now - latency.tried_at >= TRY_SECONDS else latency.seconds

    def note_try(self, route_id: int, is_stream: bool, now: float) -> None:
        """Note that a call is sent to the route."""
        self._get(route_id, is_stream).tried_at = now

    def observe(self, route_id: int, is_stream: bool, seconds: float, now: float) -> None:
        """Note how long the first byte took, or how long it was waited for in vain."""
        latency = self._get(route_id, is_stream)
        if math.isinf(latency.seconds):
            latency.seconds = seconds
        else:
            latency.seconds += _SHARE_OF_NEWEST * (seconds - latency.seconds)
        latency.observed_at = now

    def _get(self, route_id: int, is_stream: bool) -> _Latency:
        latency = self._found.get((route_id, is_stream))
        if latency is None:
            if len(self._found) >= ROUTES_MAX:
                self._found.clear()
            latency = self._found[route_id, is_stream] = _Latency()
        return latency
