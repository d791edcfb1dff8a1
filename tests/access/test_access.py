"""The access matrix (docs/access.csv) against every route: roles, objects and credentials."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.signals import request_finished
from django.db import close_old_connections
from rest_framework.test import APIClient

from apps.core.counters import process_counts
from tests.access.matrix import ROLES, Rule, find_routes, read_rules
from tests.access.people import Cast, build_cast, make_tokens
from tests.rest.world import undone
from tests.support.cases import for_all
from tests.support.databases import Database

# Decided before any statement runs: once is enough.
pytestmark = pytest.mark.sqlite

RULES = read_rules()
REFUSALS = ("permission_denied", "payloads_closed")
GUARDED = [rule for rule in RULES if not rule.anonymous]


@pytest.fixture(scope="module")
def cast(module_db: Database) -> Cast:
    """Return the people and their things."""
    return build_cast()


@pytest.fixture(autouse=True)
def _undone(cast: Cast) -> Iterator[None]:
    with undone():
        yield


def test_the_matrix_names_every_route_and_no_other() -> None:
    declared = {(rule.method, rule.path) for rule in RULES}

    assert declared == find_routes()
    assert len(declared) == len(RULES)


@pytest.mark.parametrize("rule", GUARDED, ids=str)
def test_roles_get_what_the_matrix_gives_them(cast: Cast, rule: Rule) -> None:
    for role in ROLES:
        with undone():
            answer = _call(cast.clients[role], rule, cast, _whose(rule, role))
            code = _code(answer)

            if role in rule.roles:
                is_strangers = rule.objects == "own" and role != "user"
                assert answer.status_code < 500, (role, answer.content)
                assert answer.status_code not in (401, 405), (role, answer.content)
                assert (answer.status_code == 404) == is_strangers, (role, answer.content)
                assert code != "permission_denied", role
            else:
                assert (answer.status_code, code in REFUSALS) == (403, True), role


@for_all("rule", [pytest.param(rule, id=str(rule)) for rule in GUARDED])
def test_nothing_but_a_valid_token_lets_in(cast: Cast, rule: Rule) -> None:
    admin = _user_of(cast, "admin")
    headers: list[dict[str, Any]] = [
        {},
        {"HTTP_AUTHORIZATION": f"Bearer {cast.api_key}"},
        {"HTTP_X_API_KEY": cast.api_key},
        {"HTTP_X_GOOG_API_KEY": cast.api_key},
        {"HTTP_AUTHORIZATION": "Basic cm9vdDpyb290"},
        *({"HTTP_AUTHORIZATION": f"Bearer {token}"} for token in make_tokens(admin).values()),
    ]

    for values in headers:
        client = APIClient()
        client.credentials(**values)
        assert _call(client, rule, cast, "other").status_code == 401, values
    with_cookie = APIClient()
    with_cookie.force_login(admin)
    assert _call(with_cookie, rule, cast, "other").status_code == 401


@pytest.mark.parametrize("rule", [rule for rule in GUARDED if rule.objects == "own"], ids=str)
def test_what_belongs_to_others_is_as_if_missing(cast: Cast, rule: Rule) -> None:
    client = cast.clients["user"]

    others = _call(client, rule, cast, "other")
    missing = _call(client, rule, cast, "missing")

    assert others.status_code == missing.status_code == 404
    assert others.content == missing.content
    assert dict(others.headers) == dict(missing.headers)


@pytest.mark.parametrize("rule", [rule for rule in GUARDED if rule.method == "GET"], ids=str)
def test_other_ways_to_write_a_path_decide_alike(cast: Cast, rule: Rule) -> None:
    path = cast.fill(rule.path, "other")
    anonymous, user = APIClient(), cast.clients["user"]
    written = [
        path.rstrip("/"),
        path + "?_method=DELETE",
        path.replace("/api/", "/api//", 1),
        path.replace("/api/", "/API/", 1),
        path.replace("/api/", "/%61pi/", 1),
        path.replace("/api/", "/./api/", 1),
        path.rstrip("/") + ";x",
        path.rstrip("/") + ".json",
        path + "?format=api",
    ]

    for text in written:
        assert anonymous.get(text).status_code in (401, 404), text
        if "user" not in rule.roles:
            assert user.get(text).status_code in (403, 404), text
    overriding = {"X-HTTP-Method-Override": "DELETE", "X-HTTP-Method": "DELETE"}
    assert anonymous.post(path, {}, headers=overriding).status_code in (401, 405)
    assert anonymous.head(path).status_code == 401
    assert anonymous.options(path).status_code == 401
    assert anonymous.generic("TRACE", path).status_code in (401, 405)


def _whose(rule: Rule, role: str) -> str:
    return "own" if rule.objects == "own" and role == "user" else "other"


def _call(client: APIClient, rule: Rule, cast: Cast, whose: str) -> Any:
    process_counts.clear()  # The throttle is not what is tested here.
    body = "" if rule.method == "GET" else "{}"
    answer: Any = client.generic(
        rule.method, cast.fill(rule.path, whose), body, content_type="application/json"
    )
    if answer.streaming:
        # An export that nobody reads would keep its place from other tests; the connection stays.
        request_finished.disconnect(close_old_connections)
        answer.close()
        request_finished.connect(close_old_connections)
    return answer


def _code(answer: Any) -> str:
    if answer.streaming or not answer.content:
        return ""
    content = answer.json() if answer.headers["Content-Type"] == "application/json" else None
    return str(content.get("code", "")) if isinstance(content, dict) else ""


def _user_of(cast: Cast, role: str) -> Any:
    from apps.users.models import User

    return User.objects.filter(role=role).order_by("id").first()
