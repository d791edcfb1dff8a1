"""Who is signed out everywhere is signed out of the Django admin, too, and stays so."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.sessions.models import Session as BrowserSession
from django.core.management import call_command
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from apps.audit.models import AdminEvent
from apps.users import browser_sessions
from apps.users.models import User
from tests.support.house import send
from tests.support.people import PASSWORD, make_admin, make_user, rest_client

START = "/admin/"
NEW_PASSWORD = "battery staple correct horse"


@pytest.fixture
def grace(root: User) -> User:
    """Another administrator, who is signed in in two browsers."""
    return make_admin(username="grace", password=PASSWORD)


def _browser(user: User) -> Client:
    browser = Client()
    browser.force_login(user)
    assert _is_in(browser)
    return browser


def _is_in(browser: Client) -> bool:
    return bool(browser.get(START).status_code == 200)


def _after(action: str) -> Any:
    return AdminEvent.objects.filter(action=action).latest("id").after


def _path(user: User, action: str = "") -> str:
    return f"/api/admin/users/{user.pk}/{action}"


def test_who_is_signed_out_over_rest_is_out_of_the_django_admin(root: User, grace: User) -> None:
    first, second, other = _browser(grace), _browser(grace), _browser(root)
    rest = rest_client(grace)

    answer = rest_client(root).post(_path(grace, "end-sessions/"), {})

    assert answer.json() == {"ended": 3}
    assert [_is_in(browser) for browser in (first, second, other)] == [False, False, True]
    assert rest.get("/api/user/profile/").status_code == 401
    assert _after("user.sessions_ended") == {"sessions": 3}


def test_the_button_of_the_django_admin_does_the_same(root: User, grace: User) -> None:
    browser, other = _browser(grace), _browser(root)

    answer = send(other, reverse("admin:users_user_end_sessions", args=[grace.pk]))

    assert [str(message) for message in answer.context["messages"]] == ["Ended 1 sessions."]
    assert (_is_in(browser), _is_in(other)) == (False, True)


def test_who_signs_himself_out_everywhere_is_out_here_as_well(root: User) -> None:
    here, elsewhere = _browser(root), _browser(root)

    answer = send(here, reverse("admin:users_user_end_sessions", args=[root.pk]))

    assert answer.redirect_chain[-1][0].startswith(reverse("admin:login"))
    assert (_is_in(here), _is_in(elsewhere)) == (False, False)


def test_who_is_deactivated_and_activated_again_has_to_sign_in(root: User, grace: User) -> None:
    browser, client = _browser(grace), rest_client(root)

    for is_active in (False, True):
        assert client.patch(_path(grace), {"is_active": is_active}).status_code == 200

    assert not _is_in(browser)
    assert _is_in(_browser(User.objects.get(pk=grace.pk)))


def test_a_reset_from_the_command_line_ends_the_browsers(root: User, grace: User) -> None:
    _browser(grace)
    kept = _browser(root).session.session_key

    call_command("create_admin", "--username", "grace", "--reset", "--generate")

    assert list(BrowserSession.objects.values_list("pk", flat=True)) == [kept]
    assert _after("user.password_set") == {"is_active": True, "sessions_ended": 1}


def test_ones_own_new_password_ends_the_other_browsers(grace: User) -> None:
    here, _ = _browser(grace), _browser(grace)

    send(
        here,
        reverse("admin:password_change"),
        old_password=PASSWORD,
        new_password1=NEW_PASSWORD,
        new_password2=NEW_PASSWORD,
    )

    assert _is_in(here)
    assert list(BrowserSession.objects.values_list("pk", flat=True)) == [here.session.session_key]
    assert _after("user.password_changed") == {"sessions_ended": 1}


def test_all_sessions_are_read_piece_by_piece_but_for_expired_ones(
    root: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(browser_sessions, "_PIECE", 2)
    ada = make_user(username="ada")
    for user in (root, ada, root, ada, ada, root):
        Client().force_login(user)
    expired = Client()
    expired.force_login(ada)
    BrowserSession.objects.filter(pk=expired.session.session_key).update(
        expire_date=timezone.now() - timedelta(seconds=1)
    )

    assert browser_sessions.end_browser_sessions(user=ada) == 3
    assert browser_sessions.end_browser_sessions(user=ada) == 0
    assert BrowserSession.objects.count() == 4
