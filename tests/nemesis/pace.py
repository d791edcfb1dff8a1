"""How long calls take when all is well: before the first fault, and after the last. Pure.

Only those that take as long as the gateway makes them: whole answers that a provider gives at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Final

from tests.nemesis.seen import Seen

# Of a hundred calls or so, on a machine that others use: the slowest of them or the next.
_SHARE: Final = 0.99
TIMES_MAX: Final = 3.0
MORE_SECONDS_MAX: Final = 1.0


def check_pace(
    seen: Iterable[Seen], harmed_at: float, well_from: float, report: list[str]
) -> list[str]:
    """Return a problem where calls take much longer after the faults than before; report both.

    What ended by `harmed_at` was before, what began from `well_from` on is after.
    """
    quick = [one for one in seen if one.is_ordinary and one.is_whole and not one.is_stream]
    before = [one.seconds for one in quick if one.began + one.seconds <= harmed_at]
    after = [one.seconds for one in quick if one.began >= well_from]
    if not before or not after:
        return [f"{len(before)} calls before the faults and {len(after)} after: nothing to compare"]
    first, last = _slow(before), _slow(after)
    told = (
        f"p99 of whole answers {first:.2f} s before the faults ({len(before)} calls), "
        f"{last:.2f} s after ({len(after)}): {last / first:.2f} x"
    )
    report.append(told)
    return [told] if last > TIMES_MAX * first + MORE_SECONDS_MAX else []


def _slow(seconds: list[float]) -> float:
    """Return the time that 99 of 100 calls do not pass."""
    return sorted(seconds)[math.ceil(len(seconds) * _SHARE) - 1]
