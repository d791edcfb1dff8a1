"""API keys over REST, for administrators and for their owners: shown once, never more rights.

Over 400 lines because what one of the two may do is told beside what the other may.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest
from django.db import connection
from rest_framework.test import APIClient

from apps.ai_models.models import AIModel
from apps.api_keys import changes as key_changes
from apps.api_keys.issue import digest_of, issue_key
from apps.api_keys.models import APIKey
from apps.audit.models import AdminEvent
from apps.billing.models import SpendCounter
from apps.model_groups.models import ModelGroup
from apps.quotas.tests.key_kit import make_key
from apps.users.models import Role, User
from tests.support.calls import record_call
from tests.support.people import make_user, rest_client

PATH = "/api/admin/keys/"
OWN = "/api/user/keys/"
LIMITS = {
    "expires_at": "2027-01-01T00:00:00Z",
    "allowed_models": ["open"],
    "allowed_networks": ["10.0.0.0/8", "2001:db8::/32"],
    "allowed_operations": ["chat", "models"],
    "cap": "2.5",
    "rpm": 60,
    "tpm": 100_000,
    "concurrency": 0,
}


@pytest.fixture
def ada(db: None) -> User:
    """Return a user who may call one of two models."""
    group = ModelGroup.objects.create(name="public", is_public=True)
    group.models.add(AIModel.objects.create(name="open"))
    AIModel.objects.create(name="closed")
    return make_user(username="ada", email="ada@example.com")


@pytest.fixture
def own(ada: User) -> APIClient:
    """Return a client of that user."""
    return rest_client(ada)


def _events() -> list[tuple[str, str]]:
    rows = AdminEvent.objects.filter(action__startswith="api_key.").order_by("id")
    return list(rows.values_list("action", "actor_name"))


def test_a_new_key_is_shown_once(admin: APIClient, own: APIClient, ada: User) -> None:
    made = admin.post(PATH, {"user": ada.pk, "name": "one", **LIMITS, "payload_mode": "off"})
    mine = own.post(OWN, {"name": "two", **LIMITS})

    for answer, mode in ((made, "off"), (mine, "full")):
        shown = answer.json()
        raw = shown.pop("api_key")
        key = APIKey.objects.get(digest=digest_of(raw))
        assert (answer.status_code, key.pk, key.user) == (201, shown["id"], ada)
        assert {name: shown[name] for name in LIMITS} == LIMITS
        assert (shown["prefix"], shown["last_four"]) == (raw[:13], raw[-4:])
        assert (shown["payload_mode"], shown["is_locked"]) == (mode, False)
        for client, path in ((admin, PATH), (own, OWN), (admin, f"/api/admin/users/{ada.pk}/keys")):
            for page in (client.get(path), client.get(f"{path.rstrip('/')}?search=o")):
                assert page.status_code == 200
                assert raw not in page.content.decode()
        for client, path in ((admin, PATH), (own, OWN)):
            assert raw not in client.get(f"{path}{key.pk}/").content.decode()
            changed = client.patch(f"{path}{key.pk}/", {"name": "three"})
            assert (changed.status_code, raw in changed.content.decode()) == (200, False)
        assert raw not in repr(list(AdminEvent.objects.values()))
    assert "user" not in mine.json()
    assert _events()[:2] == [("api_key.created", "root"), ("api_key.created", "ada")]


def test_a_key_is_shown_with_its_use(admin: APIClient, own: APIClient, ada: User) -> None:
    key = make_key(ada, cap_nanos=5 * 10**9)
    SpendCounter.objects.create(scope="api_key", scope_id=key.pk)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE billing_spendcounter SET spent_nanos = 3, held_nanos = 2")
    record_call(api_key_id=key.pk, minutes_ago=9)
    newest = record_call(api_key_id=key.pk, minutes_ago=1)
    unused = make_key(ada, name="unused")
    capped = make_key(ada, name="capped", cap_nanos=1)

    for client, path in ((admin, PATH), (own, OWN)):
        shown = client.get(f"{path}{key.pk}/").json()
        assert (shown["cap"], shown["spent"], shown["held"]) == ("5", "0.000000003", "0.000000002")
        assert datetime.fromisoformat(shown["last_used_at"]) == newest.started_at
        shown = client.get(f"{path}{unused.pk}/").json()
        assert (shown["spent"], shown["held"], shown["last_used_at"]) == (None, None, None)
        shown = client.get(f"{path}{capped.pk}/").json()
        assert (shown["spent"], shown["held"]) == ("0", "0")


WRONG = [
    ({"name": ""}, "name"),
    ({"name": "x" * 101}, "name"),
    ({"name": "\x00"}, "name"),
    ({"expires_at": "never"}, "expires_at"),
    ({"allowed_models": "open"}, "allowed_models"),
    ({"allowed_models": [{"a": 1}]}, "allowed_models"),
    ({"allowed_models": ["a"] * 1_001}, "allowed_models"),
    ({"allowed_networks": ["10.0.0.1/8"]}, "allowed_networks"),
    ({"allowed_networks": ["localhost"]}, "allowed_networks"),
    ({"allowed_networks": ["10.0.0.1"] * 101}, "allowed_networks"),
    ({"allowed_operations": "chat"}, "allowed_operations"),
    ({"allowed_operations": ["chats"]}, "allowed_operations"),
    ({"allowed_operations": [["chat"]]}, "allowed_operations"),
    ({"allowed_operations": ["chat"] * 9}, "allowed_operations"),
    ({"cap": "-1"}, "cap"),
    ({"cap": 0.1}, "cap"),
    ({"cap": "1e99"}, "cap"),
    ({"rpm": -1}, "rpm"),
    ({"tpm": 2**31}, "tpm"),
    ({"concurrency": True}, "concurrency"),
    ({"digest": "x"}, "digest"),
    ({"api_key": "sk-mine-12345678"}, "api_key"),
    ({"is_default": True}, "is_default"),
    ({"is_locked": False}, "is_locked"),
    ({"locked_at": None}, "locked_at"),
    ({"spent": "0"}, "spent"),
    ({"created_at": "2026-01-01T00:00:00Z"}, "created_at"),
    ({"id": 1}, "id"),
]


@pytest.mark.parametrize(("changes", "field"), WRONG)
def test_what_is_wrong_about_a_key_is_named(
    admin: APIClient, own: APIClient, ada: User, changes: dict[str, Any], field: str
) -> None:
    key = make_key(ada)

    answers = [
        admin.post(PATH, {"user": ada.pk, "name": "x", **changes}),
        admin.patch(f"{PATH}{key.pk}/", changes),
        own.post(OWN, {"name": "x", **changes}),
        own.patch(f"{OWN}{key.pk}/", changes),
    ]

    assert [(answer.status_code, list(answer.json())) for answer in answers] == [(400, [field])] * 4
    assert APIKey.objects.get().name == "main"


@pytest.mark.parametrize("field", ["user", "user_id", "payload_mode", "is_default", "owner"])
def test_an_owner_cannot_smuggle_in_what_is_not_his(own: APIClient, ada: User, field: str) -> None:
    key = make_key(ada)
    other = make_user()

    made = own.post(OWN, {"name": "x", field: other.pk})
    changed = own.patch(f"{OWN}{key.pk}/", {field: "off"})

    assert [made.json(), changed.json()] == [{field: ["Unknown field."]}] * 2
    assert APIKey.objects.count() == 1


def test_a_key_that_has_expired_is_not_made(admin: APIClient, own: APIClient, ada: User) -> None:
    body = {"name": "x", "expires_at": "2020-01-01T00:00:00Z"}

    answers = [admin.post(PATH, {"user": ada.pk, **body}), own.post(OWN, body)]

    assert [(answer.status_code, list(answer.json())) for answer in answers] == [
        (400, ["expires_at"])
    ] * 2
    assert APIKey.objects.count() == 0


@pytest.mark.parametrize("name", ["closed", "nowhere", "' OR '1'='1"])
def test_a_key_has_no_more_rights_than_its_owner(own: APIClient, ada: User, name: str) -> None:
    key = make_key(ada, allowed_models=["open"])

    answers = [
        own.post(OWN, {"name": "x", "allowed_models": ["open", name]}),
        own.patch(f"{OWN}{key.pk}/", {"allowed_models": [name]}),
        own.put(f"{OWN}{key.pk}/", {"name": "x", "allowed_models": [name]}),
    ]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [
        (400, "model_not_allowed")
    ] * 3
    assert APIKey.objects.get().allowed_models == ["open"]


def test_an_administrator_names_models_that_exist(admin: APIClient, ada: User) -> None:
    key = make_key(ada, allowed_models=["gone"])

    fine = admin.patch(f"{PATH}{key.pk}/", {"allowed_models": ["gone", "closed", "closed"]})
    wrong = admin.patch(f"{PATH}{key.pk}/", {"allowed_models": ["nowhere"]})

    assert fine.json()["allowed_models"] == ["gone", "closed"]
    assert (wrong.status_code, wrong.json()) == (
        400,
        {"allowed_models": ["There is no model nowhere."]},
    )


def test_an_owner_changes_what_his_key_may_be_used_for(
    admin: APIClient, own: APIClient, ada: User
) -> None:
    key = make_key(ada)

    narrowed = admin.patch(f"{PATH}{key.pk}/", {"allowed_operations": ["chat", "usage", "chat"]})
    changed = own.patch(f"{OWN}{key.pk}/", {"allowed_operations": []})

    assert narrowed.json()["allowed_operations"] == ["chat", "usage"]
    assert (changed.status_code, changed.json()["allowed_operations"]) == (200, [])
    events = AdminEvent.objects.filter(action="api_key.changed").order_by("id")
    assert [(event.actor_name, event.before, event.after) for event in events] == [
        ("root", {"allowed_operations": []}, {"allowed_operations": ["chat", "usage"]}),
        ("ada", {"allowed_operations": ["chat", "usage"]}, {"allowed_operations": []}),
    ]


def test_a_change_keeps_what_it_does_not_name(admin: APIClient, ada: User) -> None:
    key = make_key(ada, rpm=60, cap_nanos=7)

    first = admin.patch(f"{PATH}{key.pk}/", {"rpm": None})
    second = admin.put(f"{PATH}{key.pk}/", {"user": ada.pk, "name": "new"})
    same = admin.put(f"{PATH}{key.pk}/", {"user": ada.pk, "name": "new"})
    moved = admin.put(f"{PATH}{key.pk}/", {"user": make_user().pk, "name": "new"})
    missing = admin.put(f"{PATH}{key.pk}/", {"rpm": 1})

    assert (first.json()["rpm"], first.json()["cap"]) == (None, "0.000000007")
    assert (second.json()["name"], second.json()["cap"]) == ("new", "0.000000007")
    assert same.json() == second.json()
    assert (moved.status_code, list(moved.json())) == (400, ["user"])
    assert (missing.status_code, list(missing.json())) == (400, ["user", "name"])
    events = AdminEvent.objects.filter(action="api_key.changed").order_by("id")
    assert [(event.before, event.after) for event in events] == [
        ({"rpm": 60}, {"rpm": None}),
        ({"name": "main"}, {"name": "new"}),
    ]


def test_what_an_administrator_disabled_its_owner_cannot_enable(
    admin: APIClient, own: APIClient, ada: User
) -> None:
    key = make_key(ada)
    mine, all_keys = f"{OWN}{key.pk}/", f"{PATH}{key.pk}/"
    assert own.patch(mine, {"is_active": False}).json()["is_locked"] is False
    assert own.patch(mine, {"is_active": True}).json()["is_active"] is True

    locked = admin.patch(all_keys, {"is_active": False})
    refused = own.patch(mine, {"is_active": True, "name": "new"})
    renamed = own.patch(mine, {"name": "renamed", "is_active": False})
    opened = admin.patch(all_keys, {"is_active": True})

    assert (locked.json()["is_active"], locked.json()["is_locked"]) == (False, True)
    assert (refused.status_code, refused.json()["code"]) == (409, "key_locked")
    assert (renamed.json()["name"], renamed.json()["is_locked"]) == ("renamed", True)
    assert (opened.json()["is_active"], opened.json()["is_locked"]) == (True, False)


def test_a_used_key_is_disabled_and_an_unused_one_deleted(
    admin: APIClient, own: APIClient, ada: User
) -> None:
    unused, used = make_key(ada), make_key(ada)
    record_call(api_key_id=used.pk)

    answers = [
        own.delete(f"{OWN}{unused.pk}/"),
        own.delete(f"{OWN}{unused.pk}/"),
        own.delete(f"{OWN}{used.pk}/"),
        admin.delete(f"{PATH}{used.pk}/"),
        admin.delete(f"{PATH}{used.pk}/"),
    ]

    assert [answer.status_code for answer in answers] == [204, 404, 409, 409, 409]
    assert answers[2].json()["code"] == "archived_instead"
    key = APIKey.objects.get()
    assert (key.pk, key.is_active, key.is_locked) == (used.pk, False, True)
    assert _events()[2:] == [
        ("api_key.deleted", "ada"),
        ("api_key.deactivated", "ada"),
        ("api_key.deactivated", "root"),
    ]


def test_others_keys_look_like_missing_ones(own: APIClient, ada: User) -> None:
    other = make_key(make_user(), name="secret")

    for method, body in (("GET", None), ("PUT", {"name": "x"}), ("PATCH", {}), ("DELETE", None)):
        foreign, missing = (
            own.generic(method, f"{OWN}{pk}/", "{}" if body is None else '{"name": "x"}',
                        content_type="application/json")
            for pk in (other.pk, 999_999)
        )  # fmt: skip
        assert (foreign.status_code, foreign.content) == (404, missing.content)
    assert own.get(OWN).json()["results"] == []
    assert own.get(f"{OWN}?search=secret").json()["count"] == 0
    assert own.get(f"{OWN}?user={other.user_id}").status_code == 400
    other.refresh_from_db()
    assert (other.name, other.is_active) == ("secret", True)


@pytest.mark.parametrize("role", [Role.USER, Role.VIEWER, Role.ANALYST])
def test_only_administrators_see_all_keys(db: None, role: str) -> None:
    client = rest_client(make_user(role=role))
    key = make_key(make_user())

    for path in (PATH, f"{PATH}{key.pk}/", f"/api/admin/users/{key.user_id}/keys/"):
        assert client.get(path).status_code == 403
    assert client.post(PATH, {"user": key.user_id, "name": "x"}).status_code == 403
    assert client.patch(f"{PATH}{key.pk}/", {"is_active": False}).status_code == 403
    assert client.delete(f"{PATH}{key.pk}/").status_code == 403
    assert APIKey.objects.get().is_active


@pytest.mark.sqlite  # Refused before any statement runs.
@pytest.mark.parametrize(
    "credential",
    [
        "' OR '1'='1",
        "'; SELECT pg_sleep(5)--",
        "x" * 10_000,
        "\x00",
        "ð\x9f\x94\x91",
        "sk-audit-x",
        "",
    ],
)
def test_what_is_no_token_is_plain_401(own: APIClient, ada: User, credential: str) -> None:
    raw = issue_key(user=ada, name="main")[1]
    client = APIClient()

    for path in (OWN, PATH, "/api/user/quotas/", "/api/user/models/", "/api/auth/refresh-key/"):
        method = client.post if "refresh" in path else client.get
        for value in (credential, raw):
            bearer = method(path, HTTP_AUTHORIZATION=f"Bearer {value}")
            header = method(path, HTTP_X_API_KEY=value)
            assert (bearer.status_code, header.status_code) == (401, 401)
    assert client.get(f"{OWN}?key={raw}").status_code == 401


def test_a_refreshed_key_takes_the_place_of_the_old_one(own: APIClient, ada: User) -> None:
    old = make_key(ada, is_default=True, cap_nanos=7, allowed_operations=["chat"])

    answer = own.post("/api/auth/refresh-key/")
    smuggled = own.post("/api/auth/refresh-key/", {"user": 1})

    assert (answer.status_code, list(answer.json())) == (200, ["api_key"])
    assert smuggled.status_code == 400
    new = APIKey.objects.get(digest=digest_of(answer.json()["api_key"]))
    old.refresh_from_db()
    assert (new.user, new.is_default, new.is_active, new.cap_nanos) == (ada, True, True, 7)
    assert new.allowed_operations == ["chat"]
    assert (old.is_default, old.is_active, old.is_locked) == (False, False, False)
    assert _events()[1:] == [("api_key.deactivated", "ada"), ("api_key.created", "ada")]


def test_a_key_that_an_administrator_reset_stays_off(
    admin: APIClient, own: APIClient, ada: User
) -> None:
    old = make_key(ada, is_default=True)
    admin.post(f"/api/admin/users/{ada.pk}/reset-key/", {})

    answer = own.patch(f"{OWN}{old.pk}/", {"is_active": True})

    assert (answer.status_code, answer.json()["code"]) == (409, "key_locked")


def test_nobody_has_too_many_keys(
    own: APIClient, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(key_changes, "ACTIVE_KEYS_MAX", 2)
    monkeypatch.setattr(key_changes, "KEYS_MAX", 4)
    first, second = make_key(ada, is_default=True), make_key(ada)

    refused = own.post(OWN, {"name": "x"})
    refreshed = own.post("/api/auth/refresh-key/")
    enabled = own.patch(f"{OWN}{first.pk}/", {"is_active": True})
    own.patch(f"{OWN}{second.pk}/", {"is_active": False})
    made = own.post(OWN, {"name": "x"})
    full = own.post("/api/auth/refresh-key/")

    assert (refused.status_code, refused.json()["code"]) == (409, "too_many_keys")
    assert (refreshed.status_code, enabled.status_code) == (200, 409)
    assert (made.status_code, full.status_code) == (201, 409)
    assert APIKey.objects.filter(is_active=True).count() == 2
    assert APIKey.objects.count() == 4


def test_nothing_changes_where_its_event_cannot_be_written(
    admin: APIClient, own: APIClient, ada: User
) -> None:
    key = make_key(ada, is_default=True)
    admin.raise_request_exception = own.raise_request_exception = False
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE audit_adminevent RENAME TO away")

    answers = [
        admin.post(PATH, {"user": ada.pk, "name": "x"}),
        admin.patch(f"{PATH}{key.pk}/", {"rpm": 1}),
        admin.delete(f"{PATH}{key.pk}/"),
        own.post(OWN, {"name": "x"}),
        own.patch(f"{OWN}{key.pk}/", {"rpm": 1}),
        own.delete(f"{OWN}{key.pk}/"),
        own.post("/api/auth/refresh-key/"),
    ]

    assert [answer.status_code // 100 for answer in answers] == [5] * 7
    row = APIKey.objects.get()
    assert (row.pk, row.rpm, row.is_active, row.is_default) == (key.pk, None, True, True)
