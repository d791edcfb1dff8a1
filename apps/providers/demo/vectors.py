"""Embeddings: unit vectors that depend on the input alone."""

from __future__ import annotations

import hashlib
import math
from array import array
from typing import Any, Final

import orjson

DIMENSIONS: Final = 1536
DIMENSIONS_MAX: Final = 4096


def embed(item: Any, dimensions: int) -> array[float]:
    """Return the vector of a text or of a list of tokens."""
    digest = hashlib.shake_256(orjson.dumps(item)).digest(dimensions * 2)
    raw = array("h", digest)
    length = math.sqrt(sum(number * number for number in raw)) or 1.0
    return array("f", (number / length for number in raw))
