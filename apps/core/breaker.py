"""A circuit breaker: stops asking a helper that does not answer, and tries it again now and then.

Times are seconds of the clock that comes in. Threads may share one.
"""

import threading
import time
from collections.abc import Callable


class Breaker:
    """Count failures in a row; open after too many, then let one probe through per period.

    A probe whose outcome is never reported costs one more period, so nothing can leave the
    breaker waiting for ever.
    """

    __slots__ = ("_clock", "_failures", "_failures_max", "_lock", "_open_seconds", "_probe_at")

    def __init__(
        self,
        *,
        failures_max: int = 3,
        open_seconds: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._failures_max = failures_max
        self._open_seconds = open_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._probe_at: float | None = None

    @property
    def is_open(self) -> bool:
        return self._probe_at is not None

    def allows(self) -> bool:
        """Return whether to ask now; while open, True once per period (the probe)."""
        with self._lock:
            if self._probe_at is None:
                return True
            now = self._clock()
            if now < self._probe_at:
                return False
            self._probe_at = now + self._open_seconds
            return True

    def record_success(self) -> bool:
        """Close the breaker; return whether it was open."""
        with self._lock:
            was_open = self._probe_at is not None
            self._failures = 0
            self._probe_at = None
            return was_open

    def record_failure(self) -> bool:
        """Count a failure; return whether this one opened the breaker."""
        with self._lock:
            if self._probe_at is not None:
                return False
            self._failures += 1
            if self._failures < self._failures_max:
                return False
            self._failures = 0
            self._probe_at = self._clock() + self._open_seconds
            return True
