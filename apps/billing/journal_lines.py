"""Settlements as lines of the journal: JSON behind its checksum. Pure.

Any gateway reads what an older one has left: what was added since is optional. Of what a newer one
has left it reads what it knows: nothing that is added may change what a call costs.
"""

from __future__ import annotations

import base64
import re
import zlib
from collections.abc import Iterable
from dataclasses import fields
from datetime import datetime
from typing import Any, Final
from uuid import UUID

import orjson

from apps.billing.chains import ADDED_FIELDS
from apps.billing.ledger.commands import (
    Claim,
    ClaimEnd,
    PayloadRecord,
    RepeatAnswer,
    Resolve,
    Row,
    StoredRecord,
)

# What an older gateway left has no value in these columns of an attempt.
_ADDED_TO_ATTEMPTS: Final[Row] = {"changes": "", "cost_nanos": None}
_PAYLOAD_FIELDS: Final = tuple(field.name for field in fields(PayloadRecord))
_REQUEST_ID: Final = re.compile(rb'"request_id":"([0-9a-f-]{36})"')


class LineUnreadable(Exception):
    """A line holds no settlement: its text says why, without anything of the line."""


def encode(resolve: Resolve) -> bytes:
    """Return the line of a settlement."""
    payload = resolve.payload
    body = orjson.dumps(
        {
            "request_id": resolve.request_id,
            "wallet_id": resolve.wallet_id,
            "receivable_id": resolve.receivable_id,
            "legs": resolve.legs,
            "counters": resolve.counters,
            "charge_nanos": resolve.charge_nanos,
            "row": resolve.row,
            "attempts": resolve.attempts,
            "payload": None
            if payload is None
            else {
                "salt": payload.salt,
                "request_body": payload.request_body,
                "response_body": payload.response_body,
                "is_request_truncated": payload.is_request_truncated,
                "is_response_truncated": payload.is_response_truncated,
            },
            **_encode_end(resolve.claim_end),
            **_encode_stored(resolve.stored),
        },
        default=lambda value: {"base64": base64.b64encode(value).decode()},
    )
    return b"%08x %s\n" % (zlib.crc32(body), body)


def decode(line: bytes) -> Resolve:
    """Return the settlement of a line. Raises LineUnreadable."""
    checksum, _, body = line.rstrip(b"\n").partition(b" ")
    if checksum != b"%08x" % zlib.crc32(body):
        raise LineUnreadable("is damaged")
    try:
        return _resolve_of(orjson.loads(body))
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        # Without the error's text: prompts may stand in it.
        raise LineUnreadable(f"is of no known form ({type(error).__name__})") from error


def find_request_id(line: bytes) -> str:
    """Return whose settlement a line is, also a damaged one, as far as it says so."""
    found = _REQUEST_ID.search(line)
    return found[1].decode() if found else "(unknown)"


def _resolve_of(value: dict[str, Any]) -> Resolve:
    payload = value["payload"]
    return Resolve(
        request_id=UUID(value["request_id"]),
        wallet_id=value["wallet_id"],
        receivable_id=value["receivable_id"],
        legs=tuple((leg[0], leg[1]) for leg in value["legs"]),
        counters=tuple(value["counters"]),
        charge_nanos=value["charge_nanos"],
        # What an older gateway left has no value in columns that were added since.
        row=dict.fromkeys(ADDED_FIELDS, "") | _decode_row(value["row"]),
        attempts=tuple(_decode_row({**_ADDED_TO_ATTEMPTS, **row}) for row in value["attempts"]),
        payload=None if payload is None else PayloadRecord(**_only(_PAYLOAD_FIELDS, payload)),
        claim_end=_decode_end(value),
        stored=_decode_stored(value),
    )


def _encode_end(end: ClaimEnd | None) -> Row:
    if end is None:
        return {}
    return {
        "claim": None if end.claim is None else end.claim._asdict(),
        "answer": None if end.answer is None else end.answer._asdict(),
    }


def _decode_end(value: Row) -> ClaimEnd | None:
    """Return how a claim ends; lines of calls without an idempotency key have nothing of it."""
    if "claim" not in value:
        return None
    claim, answer = value["claim"], value["answer"]
    return ClaimEnd(
        None if claim is None else Claim(**_only(Claim._fields, claim)),
        None if answer is None else RepeatAnswer(**_only(RepeatAnswer._fields, answer)),
    )


def _encode_stored(stored: StoredRecord | None) -> Row:
    return {} if stored is None else {"stored": stored._asdict()}


def _decode_stored(value: Row) -> StoredRecord | None:
    """Return where an answer lies; lines of calls whose answers nobody keeps have nothing of it."""
    stored = value.get("stored")
    if stored is None:
        return None
    for name in ("created_at", "expires_at"):
        stored[name] = datetime.fromisoformat(stored[name])
    stored["digests"] = tuple(base64.b64decode(one["base64"]) for one in stored["digests"])
    return StoredRecord(**_only(StoredRecord._fields, stored))


def _only(names: Iterable[str], row: Row) -> Row:
    """Return these values of a row, all of which it has."""
    return _decode_row({name: row[name] for name in names})


def _decode_row(row: Row) -> Row:
    for name, value in row.items():
        if name in ("id", "request_id"):
            row[name] = UUID(value)
        elif name == "started_at":
            row[name] = datetime.fromisoformat(value)
        elif isinstance(value, dict) and "base64" in value:
            row[name] = base64.b64decode(value["base64"])
    return row
