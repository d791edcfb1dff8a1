"""Tests of one's own profile over REST."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_django import DjangoAssertNumQueries
from rest_framework.test import APIClient

from apps.api_keys.issue import issue_key
from apps.audit.models import AdminEvent
from apps.billing.customers import adjust_user_balance
from apps.users.models import Role, User, UserGroup
from tests.support.people import PASSWORD, make_user, rest_client

PATH = "/api/user/profile/"
NEW = "another battery staple"
SMUGGLED = (
    "role", "is_staff", "is_superuser", "balance", "posted", "held", "quota", "used", "group",
    "user_group", "user", "owner", "status", "paid_at", "amount", "price", "email",
    "email_verified", "username", "allowed_routes", "created_at", "id", "rpm", "tpm", "concurrency",
    "cap", "daily_budget", "monthly_budget", "budgets",
    "limits", "wallet", "is_active", "customer", "default_key", "last_login",
)  # fmt: skip


@pytest.fixture
def ada(db: None) -> User:
    """Return a user who can sign in."""
    return make_user(
        username="ada",
        email="ada@example.com",
        name="Ada",
        password=PASSWORD,
        user_group=UserGroup.objects.create(name="staff", multiplier_millionths=800_000),
    )


def test_one_sees_who_one_is_and_what_one_has(
    ada: User, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    User.objects.filter(pk=ada.pk).update(rpm=60, cap_nanos=10**11)
    adjust_user_balance(user=ada, amount_nanos=9_990_000_000, reason="gift", actor=None)
    key, _ = issue_key(user=ada, name="main", is_default=True)
    client = rest_client(ada)

    # The session with its user, the group, the wallet, the default key.
    with django_assert_num_queries(4):
        answer = client.get(PATH)

    assert answer.status_code == 200
    shown = answer.json()
    assert shown.pop("created_at").startswith("20")
    assert shown == {
        "id": ada.pk,
        "username": "ada",
        "email": "ada@example.com",
        "name": "Ada",
        "role": "user",
        "user_group": {"id": ada.user_group_id, "name": "staff", "multiplier": "0.8"},
        "limits": {
            "rpm": 60, "tpm": None, "concurrency": None, "cap": "100", "daily_budget": None,
            "monthly_budget": None,
        },
        "budgets": {"day": None, "month": None},
        "last_login": None,
        "wallet": {"balance": "9.99", "held": "0", "available": "9.99"},
        "default_key": {"prefix": key.prefix, "last_four": key.last_four},
    }  # fmt: skip


@pytest.mark.parametrize("role", Role.values)
def test_everybody_has_a_profile(db: None, role: str) -> None:
    user = make_user(role=role)

    shown = rest_client(user).get(PATH).json()

    assert (shown["id"], shown["role"]) == (user.pk, role)
    assert (shown["user_group"], shown["default_key"]) == (None, None)


def test_one_changes_ones_name_on_record(ada: User) -> None:
    answer = rest_client(ada).patch(PATH, {"name": "Ada L."})

    assert (answer.status_code, answer.json()["name"]) == (200, "Ada L.")
    event = AdminEvent.objects.get(action="user.changed")
    assert (event.actor_id, event.before, event.after) == (
        ada.pk,
        {"name": "Ada"},
        {"name": "Ada L."},
    )


def test_nothing_else_is_writable(ada: User) -> None:
    client = rest_client(ada)
    before = User.objects.filter(pk=ada.pk).values().get()

    for field in SMUGGLED:
        answer = client.patch(PATH, {"name": "Eve", field: "admin"})
        assert (answer.status_code, answer.json()) == (400, {field: ["Unknown field."]})

    assert User.objects.filter(pk=ada.pk).values().get() == before


def test_a_new_password_ends_the_other_sessions(ada: User) -> None:
    here, elsewhere = rest_client(ada), rest_client(ada)

    answer = here.patch(PATH, {"current_password": PASSWORD, "password": NEW})

    assert answer.status_code == 200
    assert here.get(PATH).status_code == 200
    assert elsewhere.get(PATH).status_code == 401
    ada.refresh_from_db()
    assert ada.check_password(NEW)
    event = AdminEvent.objects.get(action="user.password_changed")
    assert (event.actor_id, event.before, event.after) == (ada.pk, None, {"sessions_ended": 1})
    assert "battery" not in repr(list(AdminEvent.objects.values()))


def test_the_session_that_stays_can_still_be_refreshed(ada: User) -> None:
    client = APIClient()
    tokens = client.post("/api/auth/login/", {"username": "ada", "password": PASSWORD}).json()
    bearer = {"Authorization": f"Bearer {tokens['access']}"}
    client.patch(PATH, {"current_password": PASSWORD, "password": NEW}, headers=bearer)

    assert client.post("/api/auth/refresh/", {"refresh": tokens["refresh"]}).status_code == 200


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({"password": NEW}, {"current_password": ["This field is required."]}),
        ({"current_password": PASSWORD}, {"password": ["This field is required."]}),
        (
            {"current_password": "wrong", "password": NEW, "name": "Eve"},
            {"detail": "The current password is wrong.", "code": "wrong_password"},
        ),
        (
            {"current_password": PASSWORD, "password": "password123"},
            {"password": ["This password is too common."]},
        ),
        (
            {"current_password": PASSWORD, "password": "ada@example.com"},
            {"password": ["The password is too similar to the email."]},
        ),
    ],
)
def test_a_refused_password_changes_nothing(ada: User, body: Any, errors: Any) -> None:
    client = rest_client(ada)
    before = User.objects.filter(pk=ada.pk).values().get()

    answer = client.patch(PATH, body)

    assert (answer.status_code, answer.json()) == (400, errors)
    assert User.objects.filter(pk=ada.pk).values().get() == before


def test_guesses_are_counted_like_sign_ins(ada: User) -> None:
    client = rest_client(ada)
    body = {"current_password": "wrong", "password": NEW}
    for _ in range(10):
        assert client.patch(PATH, body).status_code == 400

    locked = client.patch(PATH, {"current_password": PASSWORD, "password": NEW})
    sign_in = APIClient().post("/api/auth/login/", {"username": "ada", "password": PASSWORD})

    assert (locked.status_code, locked.json()["code"]) == (429, "too_many_attempts")
    assert sign_in.status_code == 429
    assert AdminEvent.objects.filter(action="user.password_refused").count() == 10
    ada.refresh_from_db()
    assert ada.check_password(PASSWORD)
