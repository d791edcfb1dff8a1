"""Tests of changing users over REST, and of who may not change what of whom."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import DatabaseError
from rest_framework.test import APIClient

from apps.api_keys.issue import issue_key
from apps.api_keys.models import APIKey
from apps.audit.models import AdminEvent
from apps.billing.models import Account
from apps.model_groups.models import ModelGroup
from apps.users.models import User, UserGroup
from tests.support.admin_events import break_events, list_events
from tests.support.people import make_admin, make_user, rest_client

USERS = "/api/admin/users/"


@pytest.fixture
def ada(db: None) -> User:
    """Return a user."""
    return make_user(username="ada", email="ada@example.com", name="Ada")


def _path(user: User, action: str = "") -> str:
    return f"{USERS}{user.pk}/{action}"


def test_a_change_keeps_what_is_left_out_and_is_on_record(
    client: APIClient, root: User, ada: User
) -> None:
    group = UserGroup.objects.create(name="staff")
    body = {
        "username": "countess", "email": "Countess@Example.com", "user_group": group.pk, "rpm": 9,
        "cap": "0.000000001",
    }  # fmt: skip

    answer = client.put(_path(ada), body)

    assert answer.status_code == 200
    assert answer.json() == client.get(_path(ada)).json()
    assert (answer.json()["name"], answer.json()["email"]) == ("Ada", "countess@example.com")
    assert list_events(ada) == [
        (
            "user.changed",
            {
                "username": "ada", "email": "ada@example.com", "user_group_id": None, "rpm": None,
                "cap_nanos": None,
            },
            {
                "username": "countess", "email": "countess@example.com", "user_group_id": group.pk,
                "rpm": 9, "cap_nanos": 1,
            },
        )
    ]  # fmt: skip
    client.patch(_path(ada), {"rpm": None, "cap": None, "user_group": None})
    ada.refresh_from_db()
    assert (ada.rpm, ada.cap_nanos, ada.user_group_id) == (None, None, None)


def test_what_changes_nothing_is_not_on_record(client: APIClient, ada: User) -> None:
    access = rest_client(ada)
    body = {"username": "ada", "email": "ada@example.com", "role": "user", "is_active": True}

    assert client.patch(_path(ada), {}).status_code == 200
    assert client.put(_path(ada), body).status_code == 200

    assert list_events(ada) == []
    assert access.get("/api/user/profile/").status_code == 200


@pytest.mark.parametrize(
    ("changes", "actions"),
    [
        ({"role": "analyst"}, ["user.role_changed", "user.sessions_ended"]),
        ({"is_active": False}, ["user.changed", "user.sessions_ended"]),
        ({"password": "another battery staple"}, ["user.password_set", "user.sessions_ended"]),
    ],
)
def test_what_changes_powers_signs_out_at_once(
    client: APIClient, ada: User, changes: dict[str, Any], actions: list[str]
) -> None:
    signed_in = rest_client(ada)

    answer = client.patch(_path(ada), changes)

    assert answer.status_code == 200
    assert signed_in.get("/api/user/profile/").status_code == 401
    assert [action for action, _, _ in list_events(ada)] == actions
    # Signing out lasts: to activate again or to give the role back brings no session to life.
    client.patch(_path(ada), {"role": "user", "is_active": True})
    assert signed_in.get("/api/user/profile/").status_code == 401


def test_a_new_password_is_nowhere_on_record(client: APIClient, ada: User) -> None:
    client.patch(_path(ada), {"password": "another battery staple"})

    ada.refresh_from_db()
    assert ada.check_password("another battery staple")
    assert list_events(ada) == [("user.password_set", None, None)]
    text = repr(list(AdminEvent.objects.values()))
    assert "battery" not in text
    assert ada.password not in text


def test_who_stops_being_an_administrator_loses_the_django_admin(client: APIClient) -> None:
    other = make_admin()

    client.patch(_path(other), {"role": "viewer"})

    other.refresh_from_db()
    assert (other.role, other.is_staff, other.is_superuser) == ("viewer", False, False)
    action, before, after = list_events(other)[0]
    assert (action, before) == (
        "user.role_changed",
        {"role": "admin", "is_staff": True, "is_superuser": True},
    )
    assert after == {"role": "viewer", "is_staff": False, "is_superuser": False}


def test_a_new_administrator_does_not_get_the_django_admin(client: APIClient, ada: User) -> None:
    client.patch(_path(ada), {"role": "admin"})

    ada.refresh_from_db()
    assert (ada.role, ada.is_staff, ada.is_superuser) == ("admin", False, False)


@pytest.mark.parametrize(
    "changes",
    [
        {"role": "user"}, {"is_active": False}, {"rpm": 1_000}, {"tpm": 1}, {"concurrency": 9},
        {"cap": "1000"}, {"user_group": "group"}, {"password": "another battery staple"},
        {"name": "King", "rpm": 1},
    ],
)  # fmt: skip
def test_nobody_changes_his_own_powers(
    client: APIClient, root: User, changes: dict[str, Any]
) -> None:
    make_admin()
    if "user_group" in changes:
        changes = {"user_group": UserGroup.objects.create(name="cheap").pk}
    before = User.objects.filter(pk=root.pk).values().get()

    answer = client.patch(_path(root), changes)

    assert (answer.status_code, answer.json()["code"]) == (403, "own_account")
    assert User.objects.filter(pk=root.pk).values().get() == before
    assert list_events(root) == []


def test_an_administrator_may_rename_himself_and_pay_himself(client: APIClient, root: User) -> None:
    same = {"username": "boss", "email": "root@example.com", "role": "admin", "is_active": True}

    assert client.put(_path(root), same).status_code == 200
    given = client.post(_path(root, "adjust-balance/"), {"amount": "1", "reason": "test call"})

    assert given.status_code == 200
    assert [action for action, _, _ in list_events(root)] == [
        "user.changed",
        "user.balance_adjusted",
    ]


def test_nobody_deletes_himself(client: APIClient, root: User) -> None:
    make_admin()

    answer = client.delete(_path(root))

    assert (answer.status_code, answer.json()["code"]) == (403, "own_account")
    assert User.objects.filter(pk=root.pk, is_active=True).exists()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"username": "root"}, {"username": ["This field must be unique."]}),
        ({"email": "ROOT@example.com"}, {"email": ["This field must be unique."]}),
        ({"username": ""}, {"username": ["This field may not be blank."]}),
        ({"role": "owner"}, {"role": ['"owner" is not a valid choice.']}),
        ({"user_group": 999}, {"user_group": ["There is no user group 999."]}),
        (
            {"rpm": -1},
            {"rpm": ["Ensure this value is greater than or equal to 0."]},
        ),
        (
            {"tpm": 2**31},
            {"tpm": ["Ensure this value is less than or equal to 2147483647."]},
        ),
        ({"cap": "-1"}, {"cap": ["An amount must not be negative."]}),
        ({"cap": 1.5}, {"cap": ["An amount must be a decimal string."]}),
        ({"name": "a\x00b"}, {"name": ["Null characters are not allowed."]}),
        (
            {"username": "bob@example.com"},
            {
                "detail": "A user name with an @ must be the user's own e-mail address.",
                "code": "username_ambiguous",
            },
        ),
    ],
)
def test_a_wrong_change_is_named_and_not_made(
    client: APIClient, ada: User, changes: dict[str, Any], expected: Any
) -> None:
    before = User.objects.filter(pk=ada.pk).values().get()

    answer = client.patch(_path(ada), {"concurrency": 5, **changes})

    assert (answer.status_code, answer.json()) == (400, expected)
    assert User.objects.filter(pk=ada.pk).values().get() == before


def test_a_password_like_the_name_is_refused(client: APIClient, ada: User) -> None:
    answer = client.patch(_path(ada), {"username": "margarethe", "password": "margarethe1"})

    assert (answer.status_code, list(answer.json())) == (400, ["password"])


def test_a_replacement_needs_names(client: APIClient, ada: User) -> None:
    answer = client.put(_path(ada), {"name": "Ada"})

    assert (answer.status_code, set(answer.json())) == (400, {"username", "email"})


def test_without_its_event_nothing_is_changed_or_deleted(client: APIClient, ada: User) -> None:
    break_events()
    before = User.objects.filter(pk=ada.pk).values().get()

    with pytest.raises(DatabaseError):
        client.patch(_path(ada), {"rpm": 5})
    with pytest.raises(DatabaseError):
        client.patch(_path(ada), {"password": "another battery staple"})
    with pytest.raises(DatabaseError):
        client.delete(_path(ada))

    assert User.objects.filter(pk=ada.pk).values().get() == before
    assert Account.objects.filter(customer_id=ada.customer_id).count() == 2


@pytest.mark.parametrize(
    "body",
    [
        {"password": "taken over by somebody"},
        {"email": "mine@example.com"},
        {"username": "mine"},
        {"role": "user"},
        {"is_active": False},
    ],
)
def test_an_administrator_takes_over_nobody_with_more_rights(
    root: User, body: dict[str, Any]
) -> None:
    lesser = rest_client(make_user(role="admin"))
    key, _ = issue_key(user=root, name="of root", rpm=7)
    of_key = f"/api/admin/keys/{key.pk}/"

    answers = [
        lesser.patch(_path(root), body),
        lesser.delete(_path(root)),
        lesser.post(_path(root, "reset-key/"), {}),
        lesser.post("/api/admin/keys/", {"user": root.pk, "name": "taken over"}),
        lesser.patch(of_key, {"is_active": False}),
        lesser.put(of_key, {"name": "taken over"}),
        lesser.delete(of_key),
    ]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [
        (403, "above_own")
    ] * 7
    assert User.objects.get(pk=root.pk).username == "root"
    assert list(APIKey.objects.values_list("name", "is_active", "rpm")) == [("of root", True, 7)]
    assert list_events(root) == []
    of_keys = AdminEvent.objects.filter(object_type="api_keys.apikey")
    assert list(of_keys.values_list("action", flat=True)) == ["api_key.created"]


def test_money_for_oneself_needs_another_administrator_where_there_is_one(
    client: APIClient, root: User
) -> None:
    group = ModelGroup.objects.create(name="everything")
    money = {"amount": "5", "reason": "a first balance"}
    quota = {"user": root.pk, "model_group": group.pk, "total_quota": "5"}

    alone = client.post(_path(root, "adjust-balance/"), money)
    second = make_admin()
    refused = [
        client.post(_path(root, "adjust-balance/"), money),
        client.post("/api/admin/quotas/", quota),
    ]
    by_other = rest_client(second).post(_path(root, "adjust-balance/"), money)

    assert (alone.status_code, by_other.status_code) == (200, 200)
    assert {(answer.status_code, answer.json()["code"]) for answer in refused} == {
        (403, "own_account")
    }
    taken = client.post(_path(root, "adjust-balance/"), {"amount": "-1", "reason": "back"})
    assert taken.json()["wallet"]["balance"] == "9"
