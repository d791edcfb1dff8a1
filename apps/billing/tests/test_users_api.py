"""Tests of users over REST: listed, shown by role, made, signed out and deleted."""

from __future__ import annotations

import json
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient

from apps.api_keys.issue import issue_key
from apps.api_keys.models import APIKey
from apps.audit.models import AdminEvent, RefusalCount
from apps.billing.accounts import find_standing
from apps.billing.customers import adjust_user_balance
from apps.billing.models import Account
from apps.users.models import Customer, Role, Session, User, UserGroup
from tests.support.admin_events import list_events
from tests.support.calls import record_call
from tests.support.people import PASSWORD, make_user, rest_client

DOLLAR = 10**9
USERS = "/api/admin/users/"
FIELDS = {
    "id", "username", "email", "name", "role", "user_group", "is_active", "rpm", "tpm",
    "concurrency", "cap", "daily_budget", "monthly_budget", "created_at", "last_login", "wallet",
    "budgets",
}  # fmt: skip
SMUGGLED = (
    "is_staff", "is_superuser", "is_super_admin", "balance", "posted", "posted_nanos", "held",
    "held_nanos", "quota", "used", "group", "groups", "user_permissions", "user", "owner",
    "customer", "customer_id", "status", "paid_at", "amount_nanos", "price", "email_verified",
    "allowed_routes", "created_at", "date_joined", "last_login", "id", "pk", "wallet", "cap_nanos",
    "user_group_id", "multiplier_millionths", "refresh_id", "auth_hash",
)  # fmt: skip


@pytest.fixture
def ada(db: None) -> User:
    """Return a user."""
    return make_user(username="ada", email="ada@example.com", name="Ada")


def _path(user: User, action: str = "") -> str:
    return f"{USERS}{user.pk}/{action}"


def _names(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.content
    return [row["username"] for row in answer.json()["results"]]


def test_every_role_sees_its_part_of_a_user(root: User, ada: User) -> None:
    adjust_user_balance(user=ada, amount_nanos=5 * DOLLAR, reason="gift", actor=root)
    User.objects.filter(pk=ada.pk).update(cap_nanos=DOLLAR)
    money = {"balance": "5", "held": "0", "available": "5"}
    seen = {
        Role.ADMIN: ("ada@example.com", "1", money),
        Role.ANALYST: (None, "1", money),
        Role.VIEWER: (None, None, None),
    }

    for role, expected in seen.items():
        client = rest_client(make_user(role=role))
        row = client.get(_path(ada)).json()
        listed = client.get(f"{USERS}?id={ada.pk}").json()["results"]
        assert set(row) == FIELDS
        assert (row["email"], row["cap"], row["wallet"]) == expected
        assert listed == [row]
    assert rest_client(make_user()).get(_path(ada)).status_code == 403


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("username=ada", ["ada"]),
        ("email=ADA@example.com", ["ada"]),
        ("role=analyst", ["bob"]),
        ("is_active=false", ["eve_100%"]),
        ("search=LOVE", ["ada"]),
        ("search=bob@", ["bob"]),
        ("search=%25", ["eve_100%"]),
        ("search=_", ["eve_100%"]),
        ("search=ada@example&role=user", ["ada"]),
        ("ordering=-username&search=example.com", ["root", "eve_100%", "bob", "ada"]),
        ("ordering=created_at&page_size=2", ["root", "ada"]),
        ("created_before=2000-01-01T00:00:00Z", []),
        ("created_after=2000-01-01T00:00:00Z&page_size=1", ["root"]),
        ("user_group=999", []),
    ],
)
def test_users_are_found(client: APIClient, ada: User, query: str, names: list[str]) -> None:
    User.objects.filter(pk=ada.pk).update(name="Ada Lovelace")
    make_user(username="bob", email="bob@example.com", role=Role.ANALYST)
    eve = make_user(username="eve", email="eve@example.com")
    # The percent sign would not pass the rules for user names; a name from elsewhere might hold it.
    User.objects.filter(pk=eve.pk).update(username="eve_100%", is_active=False)

    assert _names(client.get(f"{USERS}?{query}")) == names


@pytest.mark.sqlite  # Refused before any statement runs.
@pytest.mark.parametrize(
    "query",
    [
        "ordering=password", "ordering=email", "ordering=-customer__accounts__posted_nanos",
        "user__password__startswith=a", "password=x", "is_superuser=true", "fields=password",
        "role=root", "is_active=perhaps", "id=1;2", "user_group=x", "created_after=yesterday",
        "username__startswith=a", "search=%00",
    ],
)  # fmt: skip
def test_what_cannot_be_filtered_or_ordered_by_is_refused(client: APIClient, query: str) -> None:
    answer = client.get(f"{USERS}?{query}")

    assert answer.status_code == 400
    assert len(answer.json()) == 1


@pytest.mark.parametrize("role", [Role.VIEWER, Role.ANALYST])
def test_hidden_addresses_cannot_be_guessed(ada: User, role: str) -> None:
    client = rest_client(make_user(role=role))

    assert client.get(f"{USERS}?email=ada@example.com").status_code == 400
    assert _names(client.get(f"{USERS}?search=ada@example")) == []
    assert _names(client.get(f"{USERS}?search=ada")) == ["ada"]


def test_a_user_is_made_with_limits(client: APIClient) -> None:
    group = UserGroup.objects.create(name="staff")
    body = {
        "username": "ada", "email": "Ada@Example.com", "password": PASSWORD, "rpm": 0, "tpm": None,
        "concurrency": 4, "cap": "12.5", "user_group": group.pk,
    }  # fmt: skip

    answer = client.post(USERS, body)

    assert (answer.status_code, set(answer.json())) == (201, FIELDS)
    user = User.objects.get(username="ada")
    assert (user.rpm, user.tpm, user.concurrency) == (0, None, 4)
    assert (user.cap_nanos, user.user_group_id, user.role) == (12_500_000_000, group.pk, "user")
    assert answer.json()["cap"] == "12.5"
    again = client.post(USERS, {**body, "username": "ａda", "email": "b@example.com"})
    assert (again.status_code, again.json()["code"]) == (409, "user_exists")


@pytest.mark.sqlite  # Refused before any statement runs.
@pytest.mark.parametrize(
    ("method", "action"),
    [
        ("PUT", ""), ("PATCH", ""), ("POST", "adjust-balance/"), ("POST", "reset-key/"),
        ("POST", "end-sessions/"), ("POST", "new"),
    ],
)  # fmt: skip
def test_nothing_is_smuggled_into_a_user(
    client: APIClient, ada: User, method: str, action: str
) -> None:
    valid: dict[str, Any] = {
        "": {"username": "ada", "email": "ada@example.com"},
        "adjust-balance/": {"amount": "1", "reason": "x"},
        "new": {"username": "new", "email": "new@example.com", "password": PASSWORD},
    }.get(action, {})
    path = USERS if action == "new" else _path(ada, action)
    before = list(User.objects.order_by("pk").values()), list(Account.objects.values())

    for field in SMUGGLED:
        answer = client.generic(
            method, path, json.dumps({**valid, field: "1"}), content_type="application/json"
        )
        assert (answer.status_code, answer.json()) == (400, {field: ["Unknown field."]})

    assert (list(User.objects.order_by("pk").values()), list(Account.objects.values())) == before
    assert list_events(ada) == []


def test_sessions_are_ended_from_above(client: APIClient, ada: User) -> None:
    first, second = rest_client(ada), rest_client(ada)

    answer = client.post(_path(ada, "end-sessions/"), {})

    assert (answer.status_code, answer.json()) == (200, {"ended": 2})
    assert first.get("/api/user/profile/").status_code == 401
    assert second.get("/api/user/profile/").status_code == 401
    assert list_events(ada) == [("user.sessions_ended", None, {"sessions": 2})]
    assert client.post(_path(ada, "end-sessions/"), {}).json() == {"ended": 0}


def test_a_user_without_history_is_really_deleted(client: APIClient, ada: User) -> None:
    issue_key(user=ada, name="main", is_default=True)
    rest_client(ada)

    answer = client.delete(_path(ada))

    assert (answer.status_code, answer.content) == (204, b"")
    assert not User.objects.filter(pk=ada.pk).exists()
    assert not Customer.objects.filter(pk=ada.customer_id).exists()
    assert not Account.objects.filter(customer_id=ada.customer_id).exists()
    assert not APIKey.objects.filter(user_id=ada.pk).exists()
    assert not Session.objects.filter(user_id=ada.pk).exists()
    last = AdminEvent.objects.order_by("-id")[:2]
    assert [event.action for event in last] == ["user.deleted", "api_key.deleted"]
    assert client.delete(_path(ada)).status_code == 404


@pytest.mark.parametrize("history", ["call", "entry", "refusal", "quota"])
def test_a_user_with_history_is_deactivated(
    client: APIClient, root: User, ada: User, history: str
) -> None:
    key, _ = issue_key(user=ada, name="main")
    signed_in = rest_client(ada)
    if history == "call":
        record_call(user_id=ada.pk)
    elif history == "entry":
        adjust_user_balance(user=ada, amount_nanos=1, reason="gift", actor=root)
    elif history == "refusal":
        RefusalCount.objects.create(api_key_id=key.pk, code="x", minute=timezone.now(), count=1)
    else:
        Account.objects.create(kind="quota", customer_id=ada.customer_id, name="quota")

    answers = [client.delete(_path(ada)) for _ in range(2)]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [
        (409, "archived_instead")
    ] * 2
    assert not User.objects.get(pk=ada.pk).is_active
    assert signed_in.get("/api/user/profile/").status_code == 401
    assert APIKey.objects.filter(pk=key.pk).exists()
    event = AdminEvent.objects.get(action="user.deactivated")
    assert (event.before, event.after) == ({"is_active": True}, {"is_active": False})


@pytest.mark.parametrize("key", ["", "k" * 256, "\u00e9"])
def test_a_malformed_idempotency_key_adjusts_nothing(
    client: APIClient, ada: User, key: str
) -> None:
    answer = client.post(
        _path(ada, "adjust-balance/"),
        {"amount": "1", "reason": "gift"},
        headers={"Idempotency-Key": key},
    )

    assert answer.status_code == 400
    assert answer.json()["code"] == "invalid_idempotency_key"
    assert find_standing(ada.customer_id).balance_nanos == 0
