"""Ids of calls of tools for providers that give none: Gemini, and servers of OpenAI's dialect.

An id depends only on the place of its call, so that it is the same each time that it is told.
"""

import hashlib
from typing import Final

_LENGTH: Final = 24


def call_id(place: str) -> str:
    """Return the id of a call that has none: the same for the same place."""
    return f"call_{hashlib.sha256(place.encode()).hexdigest()[:_LENGTH]}"
