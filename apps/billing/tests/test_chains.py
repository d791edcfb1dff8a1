"""The links: what is hashed, in which form, and that nothing of a row is left out."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime, timedelta, timezone
from typing import Any
from uuid import UUID

import orjson
import pytest

from apps.audit.models import APIRequest
from apps.billing.chains import (
    ADDED_FIELDS,
    REQUEST_FIELDS,
    entry_hash,
    microseconds,
    request_hash,
    transaction_digest,
)
from tests.support.cases import for_all

AT = datetime(2026, 11, 21, 12, 0, 0, 123_456, tzinfo=UTC)
TRANSACTION: dict[str, Any] = {
    "transaction_id": UUID(int=1),
    "kind": "top_up",
    "idempotency_key": "k",
    "actor_id": None,
    "actor_name": "",
    "reason": "r",
    "created_at": AT,
}
ENTRY: dict[str, Any] = {
    "account_id": 1,
    "sequence": 1,
    "kind": "credit",
    "amount_nanos": 5,
    "balance_after_nanos": 5,
    "request_id": None,
    "corrects_id": None,
    "digest": transaction_digest(**TRANSACTION),
}
REQUEST: dict[str, Any] = {
    name: UUID(int=7)
    if name == "id"
    else AT
    if name.endswith("_at")
    else b"\x01"
    if name == "payload_digest"
    else number
    for number, name in enumerate(REQUEST_FIELDS)
} | dict.fromkeys(ADDED_FIELDS, "")


def test_a_transaction_is_hashed_as_a_json_array_that_anyone_can_write() -> None:
    text = b'[1,"00000000000000000000000000000001","top_up","k",null,"","r",1795262400123456]'

    assert transaction_digest(**TRANSACTION) == hashlib.sha256(text).digest()


def test_an_entry_is_hashed_over_the_link_before_it() -> None:
    digest = "dc51413a455cb71a3eff208d773735c0bcc8eb2684e7403cc41e228557be6f0e"
    text = f'[1,1,1,"credit",5,5,null,null,"{digest}"]'.encode()

    assert entry_hash(b"", **ENTRY) == hashlib.sha256(text).digest()
    assert entry_hash(b"before", **ENTRY) == hashlib.sha256(b"before" + text).digest()


def test_the_form_of_links_never_changes() -> None:
    expected = "62a570d89ff29dee6482b504f891875cac74d197a3b99fe1d7614e33e380ad67"

    assert entry_hash(b"", **ENTRY).hex() == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("transaction_id", UUID(int=2)),
        ("kind", "refund"),
        ("idempotency_key", "l"),
        ("actor_id", 1),
        ("actor_name", "a"),
        ("reason", "s"),
        ("created_at", AT + timedelta(microseconds=1)),
    ],
)
def test_every_column_of_a_transaction_is_covered(name: str, value: object) -> None:
    assert transaction_digest(**(TRANSACTION | {name: value})) != transaction_digest(**TRANSACTION)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("account_id", 2),
        ("sequence", 2),
        ("kind", "debit"),
        ("amount_nanos", 6),
        ("balance_after_nanos", 6),
        ("request_id", UUID(int=1)),
        ("corrects_id", 1),
        ("digest", b"\x00" * 32),
    ],
)
def test_every_column_of_an_entry_is_covered(name: str, value: object) -> None:
    assert entry_hash(b"", **(ENTRY | {name: value})) != entry_hash(b"", **ENTRY)


@for_all("name", [*REQUEST_FIELDS, *ADDED_FIELDS])
def test_every_column_of_a_request_is_covered(name: str) -> None:
    changed = {name: "something else"}

    assert request_hash(b"", REQUEST | changed) != request_hash(b"", REQUEST)


def test_a_request_is_hashed_with_all_its_columns_but_the_link() -> None:
    columns = {field.attname for field in APIRequest._meta.concrete_fields}

    assert {*REQUEST_FIELDS, *ADDED_FIELDS} == columns - {"hash"}


def test_a_call_without_what_was_added_later_is_hashed_as_it_was_before() -> None:
    expected = "c834de4f46e9469b3fab599dc9cd5f645f81c84eb37fdeb3646c24c87f60ea21"

    assert request_hash(b"", REQUEST).hex() == expected


def test_a_call_with_a_service_tier_or_counts_is_hashed_in_the_second_format() -> None:
    tiered = REQUEST | {"service_tier": "flex", "counts": '{"web_search":2}'}
    values = [REQUEST[name] for name in REQUEST_FIELDS]
    values[0] = UUID(int=7).hex
    for name in ("started_at", "settled_at"):
        values[REQUEST_FIELDS.index(name)] = 1_795_262_400_123_456
    values[REQUEST_FIELDS.index("payload_digest")] = "01"
    text = orjson.dumps([2, *values, "flex", '{"web_search":2}', ""])

    assert request_hash(b"", tiered) == hashlib.sha256(text).digest()


def test_a_link_depends_on_the_link_before_it() -> None:
    assert request_hash(b"a", REQUEST) != request_hash(b"b", REQUEST)


def test_a_moment_is_hashed_alike_in_every_zone() -> None:
    elsewhere = AT.astimezone(timezone(timedelta(hours=9)))

    assert microseconds(elsewhere) == microseconds(AT) == 1_795_262_400_123_456


def test_bytes_are_hashed_alike_as_drivers_give_them() -> None:
    as_view = REQUEST | {"payload_digest": memoryview(b"\x01")}

    assert request_hash(b"", as_view) == request_hash(b"", REQUEST)
