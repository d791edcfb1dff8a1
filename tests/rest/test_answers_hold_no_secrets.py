"""Tests that no answer holds a secret, or what its reader must not see (Z3, K8, O7)."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
from django.apps import apps
from django.contrib import admin
from django.test import Client
from pytest_django import Settings

from tests.access.matrix import ROLES, Rule, read_rules
from tests.rest.changes import CHANGES, Change
from tests.rest.world import (
    CALLER_ADDRESS,
    CALLER_AGENT,
    COST,
    COST_PRICE,
    EMAIL,
    ERROR_TEXT,
    HOST,
    KEY_NAME,
    UPSTREAM_ID,
    RestWorld,
    body_of,
    undone,
)
from tests.support.house import page_of

# Decided before any statement runs: once is enough.
pytestmark = pytest.mark.sqlite

GETS: Final = [rule for rule in read_rules() if rule.method == "GET"]
GUARDED: Final = [rule for rule in GETS if not rule.anonymous]
_SECRET_NAME: Final = re.compile(
    r"(^|_)(password|passwd|digest|sealed|secret|hash|salt|jti)|is_superuser|is_staff|(^|_)token$"
)
# Field → where it is documented: proofs of the ledger and of calls, and what administrators did.
_DOCUMENTED: Final = {
    "hash": "/api/(admin|user)/.*(ledger|requests)/",
    "payload_digest": "/api/admin/.*requests/",
    "digest": "/api/admin/ledger/proof/",
    "is_superuser": "/api/admin/events/",
    "is_staff": "/api/admin/events/",
}
_SHOWN_ONCE: Final = {
    "/api/admin/keys/": {"api_key"},
    "/api/user/keys/": {"api_key"},
    "/api/admin/users/{user_id}/reset-key/": {"api_key"},
    "/api/auth/refresh-key/": {"api_key"},
    "/api/auth/login/": {"access", "refresh"},
    "/api/auth/refresh/": {"access", "refresh"},
}
# Role → texts that it must not find anywhere.
_OF_PROVIDERS: Final = (HOST, KEY_NAME)
_UPSTREAM: Final = (ERROR_TEXT, UPSTREAM_ID, COST, COST_PRICE)
UNSEEN: Final = {
    "": (*_OF_PROVIDERS, *_UPSTREAM, "@example.com", CALLER_ADDRESS, CALLER_AGENT),
    "user": (*_OF_PROVIDERS, *_UPSTREAM),
    "viewer": (*_OF_PROVIDERS, *_UPSTREAM, "@example.com", CALLER_ADDRESS, CALLER_AGENT),
    "analyst": (*_OF_PROVIDERS, "@example.com"),
}
_MONEY: Final = ("charge", "cost", "margin")
_CALL: Final = (
    "user_name", "ip_address", "user_agent", "upstream_request_id", "payload_digest", "cost",
    "cost_version_id",
)  # fmt: skip
_DETAIL: Final = (*_CALL, "explained_cost", "entries", "error_text")
_PERSON: Final = ("email", "cap", "daily_budget", "wallet", "budgets")
_PROVIDER: Final = ("base_url", "keys", "cap")
# Role → path → fields that are null for it and not for administrators.
MASKED: Final[dict[str, dict[str, tuple[str, ...]]]] = {
    "viewer": {
        "/api/admin/keys/{key_id}/stats/": _MONEY,
        "/api/admin/providers/": _PROVIDER,
        "/api/admin/providers/{provider_id}/": _PROVIDER,
        "/api/admin/providers/{provider_id}/stats/": _MONEY,
        "/api/admin/requests/": _CALL,
        "/api/admin/requests/{request_id}/": _DETAIL,
        "/api/admin/routes/": ("cost_prices",),
        "/api/admin/routes/{route_id}/": ("cost_prices",),
        "/api/admin/stats/overview/": _MONEY,
        "/api/admin/stats/users/{user_id}/requests/": _MONEY,
        "/api/admin/user-groups/": ("cap", "monthly_budget"),
        "/api/admin/user-groups/{user_group_id}/": ("cap", "monthly_budget"),
        "/api/admin/users/": _PERSON,
        "/api/admin/users/{user_id}/": _PERSON,
    },
    "analyst": {
        "/api/admin/events/": ("base_url", "email", "last_four", "prefix", "is_superuser"),
        "/api/admin/events/{event_id}/": ("base_url",),
        "/api/admin/providers/": _PROVIDER[:2],
        "/api/admin/providers/{provider_id}/": _PROVIDER[:2],
        "/api/admin/users/": _PERSON[:1],
        "/api/admin/users/{user_id}/": _PERSON[:1],
    },
}
# What takes nothing away that the next change needs.
_ENDING: Final = {"sign_out", "user.sessions_ended", "provider_key.deactivated"}
LASTING: Final = [
    change for change in CHANGES if change.method != "DELETE" and _ENDING.isdisjoint(change.events)
]
MASKS: Final = [(role, path) for role, paths in MASKED.items() for path in paths]


def fields_of(value: Any) -> Iterator[tuple[str, Any]]:
    """Give every field within an answer, with its value."""
    for item in value if isinstance(value, list) else ():
        yield from fields_of(item)
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name, inner
            yield from fields_of(inner)


def _read_json(kind: str, body: bytes) -> Any:
    if kind == "application/x-ndjson":
        return [orjson.loads(line) for line in body.splitlines()]
    return orjson.loads(body) if kind == "application/json" else None


@pytest.mark.parametrize("rule", GETS, ids=str)
def test_no_answer_tells_what_its_reader_must_not_see(
    world: RestWorld, settings: Settings, rule: Rule
) -> None:
    settings.PAYLOAD_READERS = "admin"
    secrets = world.secrets()
    paths = [world.path(rule.path)]
    if rule.path.endswith("/export/"):
        paths.append(f"{paths[0]}?format=jsonl")

    # What everybody may read is the same for all.
    for role in ("",) if rule.anonymous else ("", *ROLES):
        with undone():
            for path in paths:
                status, kind, body = world.read(role, path)
                text = body.decode()
                is_open = role in rule.roles or rule.anonymous
                assert is_open or status in (401, 403), role
                assert [secret for secret in secrets if secret in text] == [], role
                if path not in ("/api/user/profile/", "/api/docs/", "/api/schema/"):
                    assert [word for word in UNSEEN.get(role, ()) if word in text] == [], role
                if rule.path != "/api/schema/":
                    odd = {name for name, _ in fields_of(_read_json(kind, body))}
                    assert [name for name in odd if _is_odd(name, path)] == [], role


def _is_odd(name: str, path: str) -> bool:
    documented = _DOCUMENTED.get(name)
    return _SECRET_NAME.search(name) is not None and not (documented and re.match(documented, path))


def test_what_must_not_be_seen_is_there_to_be_seen(world: RestWorld, settings: Settings) -> None:
    settings.PAYLOAD_READERS = "analyst"

    with undone():
        read = [world.read("admin", world.path(rule.path))[2] for rule in GUARDED]
    text = b"".join(read).decode()

    words = {word for words in UNSEEN.values() for word in words}
    assert {word for word in (*words, EMAIL) if word not in text} == set()


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_answers_of_changes_hold_only_what_is_shown_once(world: RestWorld, change: Change) -> None:
    with undone():
        answer = change.send(world)
        secrets = world.secrets()
    body = body_of(answer) or {}
    shown = {name: body.pop(name) for name in ("api_key", "access", "refresh") if name in body}

    expected = _SHOWN_ONCE.get(change.path, set()) if change.method == "POST" else set()
    assert set(shown) == expected
    rest = orjson.dumps(body).decode() + str(answer.headers) + str(answer.cookies)
    assert [secret for secret in (*secrets, *shown.values()) if secret in rest] == []
    odd = {name for name, _ in fields_of(body) if _SECRET_NAME.search(name)}
    assert odd == set()


def test_no_secret_is_shown_later_over_rest_or_in_the_django_admin(
    world: RestWorld, settings: Settings
) -> None:
    settings.PAYLOAD_READERS = "admin"
    shown: list[str] = []

    with undone():
        for change in LASTING:
            answer = change.send(world)
            assert answer.status_code == change.status, change
            body = body_of(answer) or {}
            shown += [body[name] for name in ("api_key", "access", "refresh") if name in body]
        secrets = [*world.secrets(), *shown]
        pages = [world.read("admin", world.path(rule.path))[2].decode() for rule in GUARDED]
        pages += _open_admin(world)

    assert len(shown) == 8
    assert len(pages) > 150
    for page in pages:
        assert [secret for secret in secrets if secret in page] == []


def _open_admin(world: RestWorld) -> Iterator[str]:
    """Open the lists, searches, and the newest rows' forms and histories of the Django admin."""
    browser = Client()
    browser.force_login(world.users["admin"])
    for model in [model for model in apps.get_models() if model in admin.site._registry]:
        rows = model._default_manager.order_by("-pk")[:4]
        paths = [page_of(model, "changelist"), page_of(model, "changelist") + "?q=canary"]
        paths += [page_of(model, kind, row.pk) for row in rows for kind in ("change", "history")]
        for path in paths:
            answer = browser.get(path, follow=True)
            assert answer.status_code == 200, path
            yield answer.content.decode()


def test_every_masked_answer_of_the_matrix_is_looked_at() -> None:
    with (Path(__file__).parents[2] / "docs" / "access.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))

    masked = {(role, row["path"]) for row in rows for role in MASKED if row[role] == "masked"}

    assert masked <= set(MASKS)


@pytest.mark.parametrize(("role", "path"), MASKS)
def test_masked_fields_are_null(world: RestWorld, role: str, path: str) -> None:
    names = MASKED[role][path]
    filled = world.path(path) + ("?page_size=200" if path.endswith("/events/") else "")

    for reader in (role, "admin"):
        status, kind, body = world.read(reader, filled)
        assert status == 200, body
        fields = list(fields_of(_read_json(kind, body)))
        for name in names:
            values = [value for found, value in fields if found == name]
            assert values, name
            assert any(value is not None for value in values) == (reader == "admin"), name


def test_hidden_values_of_events_cannot_be_searched_for(world: RestWorld) -> None:
    for text in ("sk-audit", "…0d92"):
        found = {
            role: orjson.loads(world.read(role, f"/api/admin/events/?search={text}")[2])["results"]
            for role in ("analyst", "admin")
        }

        assert found["analyst"] == []
        assert found["admin"] != []
