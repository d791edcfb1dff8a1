"""What a model can do, as a JSON object of bounded size that every database can store."""

from __future__ import annotations

import json
import math
from typing import Any, Final

DEPTH_MAX: Final = 4
VALUES_MAX: Final = 200
BYTES_MAX: Final = 8_192
_NUMBER_MAX: Final = 2**63 - 1


class CapabilitiesRefused(ValueError):
    """The value cannot be kept. The message is for people."""


def check_capabilities(value: Any) -> dict[str, Any]:
    """Return the object, or refuse it. Raises CapabilitiesRefused."""
    if not isinstance(value, dict):
        raise CapabilitiesRefused("Enter a JSON object.")
    left: list[tuple[Any, int]] = [(value, 1)]
    count = 0
    # Every value is taken once, and no more than VALUES_MAX of them.
    while left:
        item, depth = left.pop()
        count += 1
        if count > VALUES_MAX:
            raise CapabilitiesRefused(f"At most {VALUES_MAX} values.")
        if depth > DEPTH_MAX and isinstance(item, dict | list):
            raise CapabilitiesRefused(f"At most {DEPTH_MAX} levels.")
        if isinstance(item, dict):
            for name in item:
                _check_text(name)
            left += [(inner, depth + 1) for inner in item.values()]
        elif isinstance(item, list):
            left += [(inner, depth + 1) for inner in item]
        else:
            _check_plain(item)
    if len(json.dumps(value)) > BYTES_MAX:
        raise CapabilitiesRefused(f"At most {BYTES_MAX} bytes.")
    return value


def _check_plain(item: Any) -> None:
    if isinstance(item, str):
        _check_text(item)
    elif isinstance(item, float):
        # 1e999 is read as infinity, which is no JSON.
        if not math.isfinite(item):
            raise CapabilitiesRefused("Numbers must be finite.")
    elif isinstance(item, int) and abs(item) > _NUMBER_MAX:
        raise CapabilitiesRefused("Whole numbers must fit 64 bits.")


def _check_text(text: str) -> None:
    # PostgreSQL stores neither in JSON.
    if "\x00" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise CapabilitiesRefused("Texts hold no NUL and no half characters.")
