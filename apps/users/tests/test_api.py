"""Tests of signing in, staying signed in and signing out over REST."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.utils import timezone
from rest_framework.test import APIClient
from rest_framework_simplejwt.tokens import AccessToken

from apps.audit.models import AdminEvent
from apps.users.models import Role, Session, User
from tests.support.people import PASSWORD, make_admin

GUARDED = "/api/admin/users/"


@pytest.fixture
def root(db: None) -> User:
    """Return an administrator who can sign in."""
    return make_admin(username="root", email="root@example.com", password=PASSWORD)


def _login(identifier: str = "root", password: str = PASSWORD) -> Any:
    return APIClient().post("/api/auth/login/", {"username": identifier, "password": password})


def _get(access: str) -> Any:
    return APIClient().get(GUARDED, headers={"authorization": f"Bearer {access}"})


def _refresh(refresh: str) -> Any:
    return APIClient().post("/api/auth/refresh/", {"refresh": refresh})


@pytest.mark.parametrize("identifier", ["root", "root@example.com"])
def test_signing_in_gives_tokens_and_the_user(root: User, identifier: str) -> None:
    answer = _login(identifier)

    assert answer.status_code == 200
    assert set(answer.json()) == {"access", "refresh", "user"}
    assert answer.json()["user"] == {
        "id": root.pk,
        "username": "root",
        "email": "root@example.com",
        "role": "admin",
    }
    assert answer.headers["Cache-Control"] == "no-store"
    assert _get(answer.json()["access"]).status_code == 200


@pytest.mark.parametrize("credential", ["sk-audit-3kQzP0aVbN8mXw2LrT5yUc7D1e9fTw", "none"])
def test_what_is_no_token_is_told_what_belongs_there(db: None, credential: str) -> None:
    answer = _get(credential)

    assert answer.status_code == 401
    assert answer.json() == {
        "detail": "This access token is not valid: refresh it or sign in. "
        "API keys are for /v1 only.",
        "code": "token_not_valid",
    }
    assert answer.headers["WWW-Authenticate"].startswith("Bearer")


def test_a_wrong_password_is_401(root: User) -> None:
    answer = _login(password="wrong")

    assert answer.status_code == 401
    assert answer.json() == {
        "detail": "The user name or password is wrong.",
        "code": "invalid_credentials",
    }
    assert Session.objects.count() == 0


def test_too_many_failures_are_429_with_the_time_to_wait(root: User) -> None:
    for _ in range(10):
        assert _login(password="wrong").status_code == 401

    answer = _login()

    assert answer.status_code == 429
    assert answer.json()["code"] == "too_many_attempts"
    assert answer.headers["Retry-After"] == "900"


@pytest.mark.parametrize(
    ("body", "errors"),
    [
        ({}, {"username": ["This field is required."], "password": ["This field is required."]}),
        ({"username": "a", "password": "b", "role": "admin"}, {"role": ["Unknown field."]}),
    ],
)
def test_fields_are_checked(db: None, body: dict[str, str], errors: dict[str, Any]) -> None:
    answer = APIClient().post("/api/auth/login/", body)

    assert (answer.status_code, answer.json()) == (400, errors)


def test_the_path_works_without_its_last_slash(root: User) -> None:
    body = {"username": "root", "password": PASSWORD}

    assert APIClient().post("/api/auth/login", body).status_code == 200


def test_signing_out_works_at_once(root: User) -> None:
    tokens = _login().json()
    other = _login().json()

    answer = APIClient().post(
        "/api/auth/logout/", {}, headers={"authorization": f"Bearer {tokens['access']}"}
    )

    assert answer.status_code == 204
    assert _get(tokens["access"]).status_code == 401
    assert _get(tokens["access"]).json() == {
        "detail": "This session has ended.",
        "code": "session_ended",
    }
    assert _refresh(tokens["refresh"]).status_code == 401
    assert _get(other["access"]).status_code == 200


def test_a_refresh_token_works_once_and_its_reuse_ends_the_session(root: User) -> None:
    first = _login().json()
    second = _refresh(first["refresh"]).json()
    assert _get(second["access"]).status_code == 200

    answer = _refresh(first["refresh"])

    assert (answer.status_code, answer.json()["code"]) == (401, "token_not_valid")
    assert _get(second["access"]).status_code == 401
    assert _refresh(second["refresh"]).status_code == 401
    assert AdminEvent.objects.filter(action="session.reuse_detected").count() == 1


def test_tokens_are_not_exchangeable(root: User) -> None:
    tokens = _login().json()

    assert _get(tokens["refresh"]).status_code == 401
    assert _refresh(tokens["access"]).status_code == 401


@pytest.mark.parametrize("token", ["", "nonsense", "a.b.c", "eyJhbGciOiJub25lIn0.e30."])
def test_what_is_no_token_is_401(db: None, token: str) -> None:
    answer = _get(token)

    assert answer.status_code == 401
    assert set(answer.json()) == {"detail", "code"}


def test_a_signed_token_without_a_session_is_refused(root: User) -> None:
    token = AccessToken()
    token["user_id"] = str(root.pk)

    assert _get(str(token)).status_code == 401


@pytest.mark.parametrize("change", ["password", "inactive", "expired"])
def test_a_session_ends_with_what_it_stands_on(root: User, change: str) -> None:
    access = _login().json()["access"]
    if change == "password":
        root.set_password("another correct horse")
        root.save()
    elif change == "inactive":
        User.objects.filter(pk=root.pk).update(is_active=False)
    else:
        Session.objects.update(expires_at=timezone.now() - timedelta(seconds=1))

    assert _get(access).status_code == 401


def test_the_role_counts_from_the_database(root: User) -> None:
    access = _login().json()["access"]
    User.objects.filter(pk=root.pk).update(role=Role.ANALYST)

    answer = APIClient().post(GUARDED, {}, headers={"authorization": f"Bearer {access}"})

    assert answer.status_code == 403
    assert answer.json()["code"] == "permission_denied"


def test_a_stale_token_does_not_keep_anybody_from_signing_in(root: User) -> None:
    answer = APIClient().post(
        "/api/auth/login/",
        {"username": "root", "password": PASSWORD},
        headers={"authorization": "Bearer stale"},
    )

    assert answer.status_code == 200


def test_no_token_is_stored(root: User) -> None:
    tokens = _login().json()

    session = repr(Session.objects.values().get())
    assert tokens["refresh"] not in session
    assert tokens["access"] not in session
