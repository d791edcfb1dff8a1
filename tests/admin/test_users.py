"""Users in the Django admin: changed by the rules of REST, locked out with it and by it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from apps.audit.models import AdminEvent
from apps.billing.models import SpendCounter
from apps.billing.periods import day_of
from apps.providers.models import Provider
from apps.users.models import Session, User, UserGroup
from apps.users.tokens import open_session
from tests.support.admin_events import list_actions
from tests.support.house import page_of, send
from tests.support.people import PASSWORD, make_admin, make_user

NEW_PASSWORD = "another horse, another staple"

SignIn = Callable[[str, str], bool]


@pytest.fixture
def root(db: None) -> User:
    """An administrator."""
    return make_admin(username="root", password=PASSWORD)


@pytest.fixture
def ada(root: User) -> User:
    """A user who is signed in over REST."""
    ada = make_user(username="ada", email="ada@example.com")
    open_session(user=ada, request=None)
    return ada


@pytest.fixture
def client(root: User) -> Client:
    """A browser in which the administrator is signed in."""
    browser = Client()
    browser.force_login(root)
    return browser


def is_signed_in(user: User) -> bool:
    return Session.objects.filter(user=user, ended_at__isnull=True).exists()


def change_own_password(client: Client, old: str) -> Any:
    path = reverse("admin:password_change")
    return send(
        client, path, old_password=old, new_password1=NEW_PASSWORD, new_password2=NEW_PASSWORD
    )


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"role": "viewer"}, ["user.role_changed", "user.sessions_ended"]),
        ({"role": "admin"}, ["user.role_changed", "user.sessions_ended"]),
        ({"is_active": None}, ["user.changed", "user.sessions_ended"]),
        ({"name": "Ada L.", "rpm": "5"}, ["user.changed"]),
        ({}, []),
    ],
    ids=str,
)
def test_a_new_role_and_deactivation_end_the_sessions(
    client: Client, ada: User, fields: dict[str, str | None], expected: list[str]
) -> None:
    send(client, page_of(User, "change", ada.pk), **fields)

    assert list_actions() == expected
    assert is_signed_in(ada) is ("user.sessions_ended" not in expected)


def test_a_new_password_ends_the_sessions(client: Client, ada: User) -> None:
    path = reverse("admin:auth_user_password_change", args=[ada.pk])

    send(client, path, new_password1=NEW_PASSWORD, new_password2=NEW_PASSWORD)

    ada.refresh_from_db()
    assert ada.check_password(NEW_PASSWORD)
    assert list_actions() == ["user.password_set", "user.sessions_ended"]
    assert not is_signed_in(ada)


def test_a_weak_password_is_refused(client: Client, ada: User) -> None:
    path = reverse("admin:auth_user_password_change", args=[ada.pk])

    answer = send(client, path, new_password1="12345678", new_password2="12345678")

    assert "This password is too common." in answer.content.decode()
    assert list_actions() == []


def test_who_loses_the_role_loses_the_administration(client: Client) -> None:
    deputy = make_admin(username="deputy")

    send(client, page_of(User, "change", deputy.pk), role="analyst")

    deputy.refresh_from_db()
    assert (deputy.role, deputy.is_superuser, deputy.is_staff) == ("analyst", False, False)


def test_one_may_be_let_into_the_administration(client: Client, ada: User) -> None:
    send(client, page_of(User, "change", ada.pk), role="admin", is_superuser="on")

    ada.refresh_from_db()
    assert (ada.role, ada.is_superuser, ada.is_staff) == ("admin", True, True)


@pytest.mark.parametrize("kind", [User, UserGroup, Provider])
def test_caps_are_set_in_dollars_and_on_record(
    client: Client, ada: User, kind: type[User] | type[UserGroup] | type[Provider]
) -> None:
    row: User | UserGroup | Provider = ada
    if kind is UserGroup:
        row = UserGroup.objects.create(name="staff")
    elif kind is Provider:
        row = Provider.objects.create(name="p", base_url="https://api.example.com/v1")
    path = page_of(kind, "change", row.pk)

    for amount in ("2.5", "-1", "a lot", "99999999999", ""):
        send(client, path, cap_nanos=amount)

    row.refresh_from_db()
    events = AdminEvent.objects.filter(action__endswith=".changed").order_by("id")
    assert row.cap_nanos is None
    assert list(events.values_list("before", "after")) == [
        ({"cap_nanos": None}, {"cap_nanos": 2_500_000_000}),
        ({"cap_nanos": 2_500_000_000}, {"cap_nanos": None}),
    ]


def test_budgets_of_a_user_are_shown_with_what_is_spent(client: Client, ada: User) -> None:
    path = page_of(User, "change", ada.pk)
    send(client, path, daily_budget_nanos="2.5", monthly_budget_nanos="10")
    day = day_of(timezone.now())
    SpendCounter.objects.create(scope=f"user:{day}", scope_id=ada.pk, spent_nanos=5 * 10**8)

    shown = client.get(path).content.decode()

    ada.refresh_from_db()
    assert (ada.daily_budget_nanos, ada.monthly_budget_nanos) == (2_500_000_000, 10**10)
    assert "$0.5 of $2.5 today, $0 of $10 this month" in shown


@pytest.mark.parametrize("page", ["add", "change"])
def test_a_name_that_looks_like_somebody_s_address_is_refused(
    client: Client, ada: User, page: str
) -> None:
    path = page_of(User, page, *([ada.pk] if page == "change" else []))

    answer = send(
        client, path, username="eve@example.com", email="Eve2@Example.com",
        password1=PASSWORD, password2=PASSWORD,
    )  # fmt: skip

    assert "A user name with an @ must be the user&#x27;s own" in answer.content.decode()
    assert not User.objects.filter(username="eve@example.com").exists()


def test_an_address_that_is_taken_is_told_at_its_field(client: Client, ada: User) -> None:
    make_user(username="eve", email="eve@example.com")

    answer = send(client, page_of(User, "change", ada.pk), email="EVE@example.com")

    assert answer.context["adminform"].form.errors.keys() == {"email"}


def test_nobody_sets_the_own_password_without_the_old_one(client: Client, root: User) -> None:
    path = reverse("admin:auth_user_password_change", args=[root.pk])

    answer = send(client, path, new_password1=NEW_PASSWORD, new_password2=NEW_PASSWORD)

    root.refresh_from_db()
    assert "You cannot change this of your own account." in answer.content.decode()
    assert root.check_password(PASSWORD)


def test_the_own_password_is_changed_as_over_rest(client: Client, root: User) -> None:
    open_session(user=root, request=None)

    wrong = change_own_password(client, "wrong")
    right = change_own_password(client, PASSWORD)

    root.refresh_from_db()
    assert "The current password is wrong." in wrong.content.decode()
    assert right.status_code == 200
    assert root.check_password(NEW_PASSWORD)
    assert list_actions() == ["user.password_refused", "user.password_changed"]
    assert not is_signed_in(root)
    assert client.get("/admin/").status_code == 200


def test_guesses_of_the_own_password_are_counted(client: Client, root: User) -> None:
    for _ in range(10):
        change_own_password(client, "wrong")

    locked = change_own_password(client, PASSWORD)

    root.refresh_from_db()
    assert "Too many failed attempts. Try again later." in locked.content.decode()
    assert root.check_password(PASSWORD)


# The lock counts both doors together.


def sign_in_to_admin(username: str, password: str) -> bool:
    fields = {"username": username, "password": password, "next": "/admin/"}
    return Client().post("/admin/login/", fields).status_code == 302


def sign_in_over_rest(username: str, password: str) -> bool:
    fields = {"username": username, "password": password}
    return Client().post("/api/auth/login/", fields, "application/json").status_code == 200


@pytest.mark.parametrize(
    ("tried", "locked"),
    [
        (sign_in_to_admin, sign_in_to_admin),
        (sign_in_to_admin, sign_in_over_rest),
        (sign_in_over_rest, sign_in_to_admin),
    ],
)
def test_wrong_passwords_at_one_door_lock_the_other(
    root: User, tried: SignIn, locked: SignIn
) -> None:
    assert locked("root", PASSWORD)

    for _ in range(11):
        assert not tried("root", "wrong")

    assert not locked("root", PASSWORD)
    assert list_actions().count("sign_in.locked") == 1


def test_names_that_do_not_exist_lock_the_address(root: User) -> None:
    for number in range(51):
        sign_in_to_admin(f"nobody{number}", "wrong")

    assert not sign_in_to_admin("root", PASSWORD)
    assert not sign_in_over_rest("root", PASSWORD)
