"""What a late settlement tells of its call: the columns that the call's record should have, and
that it cannot be given any more. Pure.

They stand in the reason of its transaction, as JSON behind a sentence, and so in what the chains of
its accounts prove.
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

import orjson

from apps.core.usage import TOKEN_CLASSES

Row = dict[str, Any]

REASON_LENGTH_MAX: Final = 500  # what the column takes
# Each column that is told, and the value that is left out.
_EMPTY: Final[Row] = {
    **{f"{name}_tokens": 0 for name in TOKEN_CLASSES},
    "counts": "",
    "usage_source": "none",
    "is_usage_suspect": False,
    "service_tier": "",
    "price_version_id": None,
    "cost_version_id": None,
    "cost_nanos": None,
}
_BETWEEN: Final = ": {"


def write_reason(request_id: UUID, row: Row) -> str:
    """Return the reason of a late settlement, given the record that its owner would have written.

    What is too long to be told is left out whole.
    """
    sentence = f"settled after the hold of {request_id} had been resolved"
    told = {name: row[name] for name, empty in _EMPTY.items() if row[name] != empty}
    reason = f"{sentence}: {orjson.dumps(told).decode()}"
    return reason if len(reason) <= REASON_LENGTH_MAX else sentence


def read_reason(reason: str) -> Row | None:
    """Return the columns that a late settlement tells, None where it tells nothing."""
    _, is_told, text = reason.partition(_BETWEEN)
    if not is_told:
        return None
    try:
        told: Row = orjson.loads("{" + text)
    except orjson.JSONDecodeError:
        return None  # Somebody has changed it: `verify_ledger` finds that.
    return _EMPTY | told if told.keys() <= _EMPTY.keys() else None


def sentence_of(reason: str) -> str:
    """Return a late settlement's reason as customers may read it: without what providers bill."""
    return reason.partition(_BETWEEN)[0]
