"""Hash chains: entries of an account, API requests of an incarnation. Pure.

Each link is SHA-256 over the previous link and the row's own values, as a JSON array in a fixed
order that starts with a format version, so that the table alone is enough to verify a chain. Only
values that the writer itself sets are hashed: nothing that the database fills in later.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from operator import itemgetter
from typing import Any
from uuid import UUID

import orjson

FORMAT = 1
# Of the link of an APIRequest that has a value in one of the columns that were added later. Which
# format a row has is therefore part of what is hashed: filling or emptying them breaks the link.
ADDED_FORMAT = 2
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

# The columns of an APIRequest that its link covers, in order: with ADDED_FIELDS all but the link.
REQUEST_FIELDS = (
    "id", "customer_id", "user_id", "user_name", "api_key_id", "api_key_name", "model_id",
    "requested_model", "route_id", "provider_id", "provider_name", "upstream_model",
    "endpoint", "method", "dialect", "is_stream", "state", "status_code", "error_code",
    "finish_reason", "input_tokens", "cache_read_tokens", "cache_write_5m_tokens",
    "cache_write_1h_tokens", "output_tokens", "reasoning_tokens", "audio_in_tokens",
    "audio_out_tokens", "image_in_tokens", "image_out_tokens", "usage_source",
    "is_usage_suspect", "charge_nanos", "cost_nanos", "hold_nanos", "price_version_id",
    "cost_version_id", "multiplier_millionths", "attempt_count", "input_bytes",
    "output_bytes", "started_at", "ttft_ms", "duration_ms", "settled_at", "ip_address",
    "user_agent", "upstream_request_id", "payload_digest", "incarnation_id", "sequence",
)  # fmt: skip
# Columns that came later, empty in most rows and in all older ones: these keep the older format.
ADDED_FIELDS = ("service_tier", "counts", "answered_from")
_request_values = itemgetter(*REQUEST_FIELDS)
_added_values = itemgetter(*ADDED_FIELDS)
# Where the values stand that JSON has no form for, behind the format version.
_ENCODED = tuple(
    1 + REQUEST_FIELDS.index(name) for name in ("id", "started_at", "settled_at", "payload_digest")
)


def microseconds(at: datetime) -> int:
    """Return a moment as whole microseconds since 1970: the form in which it is hashed."""
    return (at - _EPOCH) // _MICROSECOND


def transaction_digest(
    *,
    transaction_id: UUID,
    kind: str,
    idempotency_key: str,
    actor_id: int | None,
    actor_name: str,
    reason: str,
    created_at: datetime,
) -> bytes:
    """Return the digest of a transaction, which the links of all its entries cover."""
    values = [
        FORMAT, transaction_id.hex, kind, idempotency_key, actor_id, actor_name, reason,
        microseconds(created_at),
    ]  # fmt: skip
    return hashlib.sha256(orjson.dumps(values)).digest()


def entry_hash(
    previous: bytes,
    *,
    account_id: int,
    sequence: int,
    kind: str,
    amount_nanos: int,
    balance_after_nanos: int,
    request_id: UUID | None,
    corrects_id: int | None,
    digest: bytes,
) -> bytes:
    """Return the link of an entry; `digest` is that of its transaction."""
    values = [
        FORMAT, account_id, sequence, kind, amount_nanos, balance_after_nanos,
        request_id.hex if request_id else None, corrects_id, digest.hex(),
    ]  # fmt: skip
    return hashlib.sha256(previous + orjson.dumps(values)).digest()


def request_hash(previous: bytes, row: Mapping[str, Any]) -> bytes:
    """Return the link of an APIRequest, given its columns by name."""
    added = _added_values(row)
    if any(added):
        values = [ADDED_FORMAT, *_request_values(row), *added]
    else:
        values = [FORMAT, *_request_values(row)]
    for place in _ENCODED:
        values[place] = _encode(values[place])
    text = orjson.dumps(values, option=orjson.OPT_PASSTHROUGH_DATETIME)
    return hashlib.sha256(previous + text).digest()


def _encode(value: object) -> object:
    """Return a value that JSON has no form for as it is hashed."""
    if isinstance(value, datetime):
        return microseconds(value)
    if isinstance(value, UUID):
        return value.hex
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    return value
