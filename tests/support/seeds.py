"""Where what tests draw at random begins, so that a failure can be played again."""

from __future__ import annotations

import os
from random import SystemRandom


def draw_seed() -> int:
    """Return SEED, or where it is not set a number that nobody has chosen."""
    return int(os.environ.get("SEED") or SystemRandom().randrange(1_000_000))
