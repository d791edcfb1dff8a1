"""What a gateway process counts as it happens; apps.proxy.metrics shows it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from apps.core.instruments import Counter, Histogram

_SECONDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300, 1200)
_LAG_SECONDS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
_CLASSES: Final = ("", "1xx", "2xx", "3xx", "4xx", "5xx")


@dataclass(slots=True)
class Counts:
    """What is counted as it happens. Belongs to the event loop."""

    calls: Counter = field(default_factory=Counter)
    refusals: Counter = field(default_factory=Counter)
    attempts: Counter = field(default_factory=Counter)
    replays: Counter = field(default_factory=Counter)
    retries: Counter = field(default_factory=Counter)
    retries_refused: Counter = field(default_factory=Counter)
    bad_keys: Counter = field(default_factory=Counter)
    internal_errors: Counter = field(default_factory=Counter)
    suspect_usages: Counter = field(default_factory=Counter)
    durations: Histogram = field(default_factory=lambda: Histogram(_SECONDS))
    first_tokens: Histogram = field(default_factory=lambda: Histogram(_SECONDS))
    loop_lag: Histogram = field(default_factory=lambda: Histogram(_LAG_SECONDS))

    def note_call(
        self, endpoint: str, state: str, status: int, seconds: float, ttft_ms: int | None
    ) -> None:
        """Count a call that is settled; `ttft_ms` of a stream that began."""
        self.calls.add(endpoint, state, _CLASSES[status // 100])
        self.durations.observe(seconds)
        if ttft_ms is not None:
            self.first_tokens.observe(ttft_ms / 1000)
