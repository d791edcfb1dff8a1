"""Tests that no write operation takes a field that it does not document (Z4)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from apps.core.counters import process_counts
from tests.rest.changes import CHANGES, Change
from tests.rest.world import RestWorld, all_rows, body_of, differences, fill, undone

# Decided before any statement runs: once is enough.
pytestmark = pytest.mark.sqlite

SCHEMA: Final = json.loads((Path(__file__).parents[2] / "openapi.json").read_text())
SMUGGLED: Final[dict[str, Any]] = {
    "role": "admin",
    "is_staff": True,
    "is_superuser": True,
    "balance": "1000",
    "posted": "1000",
    "held": "0",
    "quota": "1000",
    "used": "0",
    "group": 1,
    "user": 1,
    "owner": 1,
    "status": "paid",
    "paid_at": "2026-11-21T00:00:00Z",
    "amount": "1000",
    "price": "0",
    "email_verified": True,
    "allowed_routes": ["*"],
    "created_at": "2020-01-01T00:00:00Z",
    "id": 1,
    "customer": 1,
    "customer_id": 1,
    "posted_nanos": 10**12,
    "held_nanos": 0,
    "digest": "00" * 32,
    "sealed_secret": "v1.00000000.AAAA",
    "is_default": True,
    "locked_at": None,
    "user_id": 1,
    "is_locked": False,
    "wallet": {"balance": "1000"},
    "used_quota": "0",
    "auth_hash": "x",
    "pk": 1,
    "__class__": "x",
}
NAMED_MAX: Final = 20  # An answer names so many unknown fields.
WITH_BODY: Final = [change for change in CHANGES if change.body is not None]


def documented_fields(change: Change) -> set[str]:
    """Return the fields that the schema gives to the body of an operation."""
    operation = SCHEMA["paths"][change.path][change.method.lower()]
    if "requestBody" not in operation:
        return set()
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    name = schema["$ref"].rpartition("/")[2]
    return set(SCHEMA["components"]["schemas"][name]["properties"])


def smuggle_inside(value: Any) -> Iterator[Any]:
    """Give the body with one field more in each object within it, one at a time."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, inner in pairs:
        if not isinstance(inner, dict | list):
            continue
        wider = [{**inner, "role": "admin"}] if isinstance(inner, dict) else []
        for changed in (*wider, *smuggle_inside(inner)):
            copy = dict(value) if isinstance(value, dict) else list(value)
            copy[key] = changed
            yield copy


def test_every_operation_with_a_body_is_tried() -> None:
    tried = {(change.method, change.path) for change in WITH_BODY}
    bodies = {
        (method.upper(), path)
        for path, item in SCHEMA["paths"].items()
        for method, operation in item.items()
        if "requestBody" in operation
    }

    assert bodies <= tried
    assert {path for _, path in tried - bodies} == {
        "/api/admin/proposed-adjustments/{proposed_adjustment_id}/approve/",
        "/api/admin/proposed-adjustments/{proposed_adjustment_id}/withdraw/",
        "/api/admin/users/{user_id}/end-sessions/",
        "/api/admin/users/{user_id}/reset-key/",
        "/api/auth/refresh-key/",
    }


@pytest.mark.parametrize("change", WITH_BODY, ids=str)
def test_an_undocumented_field_is_refused(world: RestWorld, change: Change) -> None:
    documented = documented_fields(change)
    smuggled = [name for name in SMUGGLED if name not in documented]
    # Each field is named in the answer, so that each was refused. One alone is refused, too.
    together = [smuggled[start : start + NAMED_MAX] for start in range(0, len(smuggled), NAMED_MAX)]
    before = all_rows()

    with undone():
        for names in (*together, smuggled[:1]):
            process_counts.clear()  # The throttle is not what is tested here.
            answer = change.send(world, **{name: SMUGGLED[name] for name in names})
            assert answer.status_code == 400
            assert body_of(answer) == {name: ["Unknown field."] for name in names}
        left = differences(before, all_rows())

    assert left == {}
    assert set(fill(change.body, world.ids)) <= documented


@pytest.mark.parametrize("change", WITH_BODY, ids=str)
def test_an_undocumented_field_further_inside_is_refused(world: RestWorld, change: Change) -> None:
    before = all_rows()

    with undone():
        for body in smuggle_inside(change.body):
            answer = change.send(world, **fill(body, world.ids))
            # Capabilities are free to say anything.
            is_free = "role" in body.get("capabilities", {})
            assert answer.status_code == (change.status if is_free else 400), body
            if is_free:
                return
        left = differences(before, all_rows())

    assert left == {}
