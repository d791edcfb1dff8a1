"""Builds the rows of the audit tables, from what was known at the hold and what became of the call.

Pure.

`detail` is the dict that the hold keeps (as JSON): the columns that are known when a call begins,
and the ids of the accounts that a settlement falls back on.
"""

from __future__ import annotations

from datetime import datetime
from operator import attrgetter, itemgetter, le
from typing import Any, cast
from uuid import UUID

import orjson

from apps.core.ids import new_uuid7
from apps.core.usage import COUNTS, TOKEN_CLASSES, Usage

Row = dict[str, Any]

DETAIL_COLUMNS = (
    "customer_id", "user_id", "user_name", "api_key_id", "api_key_name", "model_id",
    "requested_model", "route_id", "provider_id", "provider_name", "upstream_model",
    "endpoint", "method", "dialect", "is_stream", "price_version_id", "cost_version_id",
    "multiplier_millionths", "input_bytes", "started_at", "ip_address", "user_agent",
)  # fmt: skip
_TEXT_MAX = {
    "user_name": 150, "api_key_name": 100, "requested_model": 200, "provider_name": 100,
    "upstream_model": 200, "endpoint": 100, "method": 8, "dialect": 32, "error_code": 64,
    "finish_reason": 64, "ip_address": 45, "user_agent": 256, "upstream_request_id": 128,
}  # fmt: skip
_ATTEMPT_TEXT_MAX = {"outcome": 64, "error_text": 500, "upstream_request_id": 128, "changes": 500}
_TOKEN_COLUMNS = tuple(f"{name}_tokens" for name in TOKEN_CLASSES)
_texts = itemgetter(*_TEXT_MAX)
_attempt_texts = itemgetter(*_ATTEMPT_TEXT_MAX)
_details = itemgetter(*DETAIL_COLUMNS)
_tokens = attrgetter(*TOKEN_CLASSES)
_counts = attrgetter(*COUNTS)

_MILLISECONDS_MAX = 2**31 - 1  # what the column takes: some 24 days


def clean_text(text: str, limit: int) -> str:
    """Return `text` without what a database or a log cannot take, cut to `limit` characters."""
    if text.isprintable() and len(text) <= limit:
        return text
    # A lone surrogate is not printable either.
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text[:limit])


def counts_text(usage: Usage) -> str:
    """Return what was counted by the piece as it is stored, nothing where that is all zero."""
    counts = _counts(usage)
    if not any(counts):
        return ""  # Nearly always.
    found = {name: count for name, count in zip(COUNTS, counts, strict=True) if count}
    return orjson.dumps(found).decode()


def stored_usage(row: Row) -> Usage:
    """Return the usage in the columns of an APIRequest. Raises ValueError for damaged counts."""
    counts = {name: row[f"{name}_tokens"] for name in TOKEN_CLASSES}
    if row["counts"]:
        pieces = Usage.from_dict(orjson.loads(row["counts"]))
        counts.update(zip(COUNTS, _counts(pieces), strict=True))
    return Usage(**counts, source=row["usage_source"], is_suspect=bool(row["is_usage_suspect"]))


def request_row(  # noqa: PLR0913  # one for each column that a caller may set
    detail: Row,
    *,
    request_id: UUID,
    state: str,
    status_code: int,
    error_code: str,
    usage: Usage,
    cost_nanos: int | None,
    hold_nanos: int,
    duration_ms: int,
    finish_reason: str = "",
    attempt_count: int = 0,
    output_bytes: int = 0,
    ttft_ms: int | None = None,
    upstream_request_id: str = "",
    payload_digest: bytes | None = None,
    service_tier: str = "",
    answered_from: str = "",
) -> Row:
    """Return the columns of an APIRequest but those that the ledger sets when it commits."""
    row = dict(zip(DETAIL_COLUMNS, _details(detail), strict=True))
    if isinstance(row["started_at"], str):
        row["started_at"] = datetime.fromisoformat(row["started_at"])
    row.update(zip(_TOKEN_COLUMNS, _tokens(usage), strict=True))
    row["id"] = request_id
    row["state"] = state
    row["status_code"] = status_code
    row["error_code"] = error_code
    row["finish_reason"] = finish_reason
    row["counts"] = counts_text(usage)
    row["service_tier"] = service_tier
    row["answered_from"] = answered_from
    row["usage_source"] = usage.source
    row["is_usage_suspect"] = usage.is_suspect
    row["cost_nanos"] = cost_nanos
    row["hold_nanos"] = hold_nanos
    row["attempt_count"] = attempt_count
    row["output_bytes"] = output_bytes
    row["ttft_ms"] = ttft_ms
    row["duration_ms"] = min(duration_ms, _MILLISECONDS_MAX)
    row["upstream_request_id"] = upstream_request_id
    row["payload_digest"] = payload_digest
    return _fit(row, _texts(row), _TEXT_MAX)


def attempt_row(
    *,
    request_id: UUID,
    number: int,
    route_id: int,
    provider_id: int,
    provider_name: str,
    provider_key_id: int,
    upstream_model: str,
    started_at: datetime,
) -> Row:
    """Return the columns of an Attempt that begins; its end is filled in later."""
    return {
        "id": new_uuid7(),
        "request_id": request_id,
        "number": number,
        "route_id": route_id,
        "provider_id": provider_id,
        "provider_name": provider_name,
        "provider_key_id": provider_key_id,
        "upstream_model": upstream_model,
        "started_at": started_at,
        "duration_ms": 0,
        "status_code": None,
        "outcome": "",
        "error_text": "",
        "upstream_request_id": "",
        "changes": "",
        "cost_nanos": None,
    }


def fit_attempt(row: Row) -> Row:
    """Cut the texts of an attempt to what their columns take, in place, and return it."""
    return _fit(row, _attempt_texts(row), _ATTEMPT_TEXT_MAX)


def _fit(row: Row, texts: tuple[str | None, ...], limits: dict[str, int]) -> Row:
    """Cut texts in place. What a damaged hold lacks stays None, for the database to refuse."""
    if None not in texts:
        present = cast("tuple[str, ...]", texts)
        if "".join(present).isprintable() and all(map(le, map(len, present), limits.values())):
            return row  # Nearly always, and quicker to see for all at once.
    for (name, limit), value in zip(limits.items(), texts, strict=True):
        if value:
            row[name] = clean_text(value, limit)
    return row
