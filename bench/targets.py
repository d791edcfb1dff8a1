"""What the gateway is to reach, as data, and how a figure is held against it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

# Upstream answers at least so many times as often as what is measured.
UPSTREAM_HEADROOM_MIN: Final = 5.0
# Of the pass-through's requests per second, at least: load, site, share.
TABLE: Final = (
    ("json-c32", "gateway-postgres", 0.30),
    ("json-c32", "gateway-sqlite", 0.30),
    ("json-c128", "gateway-postgres", 0.42),
    ("stream-c32", "gateway-postgres", 0.36),
    ("stream-c128", "gateway-postgres", 0.48),
)
PAYLOADS_RATIO_MIN: Final = 0.65
ADDED_P50_COMMITS_MAX: Final = 2.0
ADDED_P50_MS_MAX: Final = 1.0  # beyond the commits
ADDED_P99_OF_P50_MAX: Final = 4.0
LATE_P99_MS_MAX: Final = 50.0
RESIDENT_MB_MAX: Final = 250.0
LOAD_SECONDS_MAX: Final = 5.0
EDITED_P99_RATIO_MAX: Final = 1.2
PROMPT_ADDED_MS_MAX: Final = 15.0
BESIDE_PROMPT_P99_RATIO_MAX: Final = 2.0
FILLED_RATIO_MIN: Final = 0.85
# Of requests per second: of OpenAI's own path, where at most a tenth more is spent; and of the same
# client's pass-through.
PASSED_RATIO_MIN: Final = 1 / 1.1
CONVERTED_RATIO_MIN: Final = 0.5
TWO_PROCESSES_RATIO_MIN: Final = 0.95
TWO_PROCESSES_CALLS_MIN: Final = 100_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """One target beside what was measured. `is_reached` is None where nothing was measured."""

    name: str
    wanted: str
    measured: str
    is_reached: bool | None

    @property
    def word(self) -> str:
        """Return how it is printed."""
        if self.is_reached is None:
            return "not measured"
        return "reached" if self.is_reached else "NOT REACHED"


def at_least(name: str, bound: float, measured: float | None, unit: str = "") -> Verdict:
    """Return the verdict on a figure that must not be lower than a bound."""
    is_reached = None if measured is None else measured >= bound
    return Verdict(name, f"≥ {_text(bound, unit)}", _text(measured, unit), is_reached)


def at_most(name: str, bound: float | None, measured: float | None, unit: str = "") -> Verdict:
    """Return the verdict on a figure that must not be higher than a bound."""
    is_reached = None if measured is None or bound is None else measured <= bound
    return Verdict(name, f"≤ {_text(bound, unit)}", _text(measured, unit), is_reached)


def _text(value: float | None, unit: str) -> str:
    if value is None:
        return "–"
    text = f"{value:,.0f}" if abs(value) >= 1_000 else f"{value:.3g}"
    return f"{text} {unit}".rstrip()
