"""Tests of the refresh token in a cookie: unseen by scripts, useless to other sites."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_django import Settings
from rest_framework.test import APIClient

from apps.users.models import Session, User
from tests.support.people import PASSWORD, make_user

OURS = {"Origin": "http://testserver"}
REFRESH = "/api/auth/refresh/"
NOT_OURS: list[dict[str, str]] = [
    {},
    {"Origin": "https://evil.example"},
    {"Origin": "null"},
    {"Origin": "https://testserver"},
    {"Origin": "http://testserver.evil.example"},
    {"Origin": "http://testserver:8000"},
    {"Origin": "https://evil.example", "Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "none"},
]


@pytest.fixture
def ada(db: None) -> User:
    """Return a user who can sign in."""
    return make_user(username="ada", password=PASSWORD)


def _login(client: APIClient, headers: dict[str, str] | None = None, **extra: Any) -> Any:
    body = {"username": "ada", "password": PASSWORD, "cookie": True}
    return client.post(
        "/api/auth/login/", body, headers=OURS if headers is None else headers, **extra
    )


def test_the_refresh_token_goes_into_a_cookie_and_not_into_the_body(ada: User) -> None:
    answer = _login(APIClient())

    cookie = answer.cookies["refresh"]
    assert (answer.status_code, set(answer.json())) == (200, {"access", "user"})
    assert cookie["httponly"] is True
    assert (cookie["samesite"], cookie["path"], cookie["max-age"]) == ("Strict", "/", 604_800)
    assert (cookie["secure"], cookie["domain"]) == ("", "")
    assert cookie.value not in answer.content.decode()


def test_over_tls_the_cookie_is_tied_to_this_host(ada: User) -> None:
    client = APIClient()

    answer = _login(client, {"Origin": "https://testserver"}, secure=True)
    refreshed = client.post(REFRESH, {}, headers={"Origin": "https://testserver"}, secure=True)

    cookie = answer.cookies["__Host-refresh"]
    assert list(answer.cookies) == ["__Host-refresh"]
    assert (cookie["secure"], cookie["path"], cookie["domain"]) == (True, "/", "")
    assert refreshed.status_code == 200
    assert list(refreshed.cookies) == ["__Host-refresh"]


@pytest.mark.parametrize("proof", [OURS, {"Sec-Fetch-Site": "same-origin"}])
def test_the_cookie_is_exchanged_for_a_new_one(ada: User, proof: dict[str, str]) -> None:
    client = APIClient()
    first = _login(client).cookies["refresh"].value

    answer = client.post(REFRESH, {}, headers=proof)

    assert (answer.status_code, set(answer.json())) == (200, {"access"})
    assert answer.cookies["refresh"].value not in ("", first)


def test_a_token_in_the_body_is_answered_in_the_body(ada: User) -> None:
    client = APIClient()
    _login(client)
    body = {"username": "ada", "password": PASSWORD}
    tokens = client.post("/api/auth/login/", body).json()

    answer = client.post(REFRESH, {"refresh": tokens["refresh"]})

    assert (answer.status_code, set(answer.json())) == (200, {"access", "refresh"})
    assert dict(answer.cookies) == {}


@pytest.mark.sqlite  # Refused before any statement runs.
@pytest.mark.parametrize("headers", NOT_OURS)
def test_other_sites_can_do_nothing_with_the_cookie(ada: User, headers: dict[str, str]) -> None:
    client = APIClient()
    access = _login(client).json()["access"]
    bearer = {"Authorization": f"Bearer {access}"}
    before = Session.objects.values().get()

    answers = [
        client.post(REFRESH, {}, headers=headers),
        client.post("/api/auth/logout/", {}, headers={**headers, **bearer}),
        _login(APIClient(), headers),
    ]

    assert [(answer.status_code, answer.json()["code"]) for answer in answers] == [
        (403, "cross_site")
    ] * 3
    assert Session.objects.values().get() == before
    assert all(dict(answer.cookies) == {} for answer in answers)


def test_an_allowed_origin_may_use_the_cookie(ada: User, settings: Settings) -> None:
    settings.CORS_ALLOWED_ORIGINS = ["https://app.example.com"]
    client, app = APIClient(), {"Origin": "https://app.example.com"}

    assert _login(client, app).status_code == 200
    assert client.post(REFRESH, {}, headers=app).status_code == 200


def test_signing_out_ends_the_session_and_takes_the_cookie_away(ada: User) -> None:
    client = APIClient()
    access = _login(client).json()["access"]
    kept = client.cookies["refresh"].value

    answer = client.post(
        "/api/auth/logout/", {}, headers={**OURS, "Authorization": f"Bearer {access}"}
    )

    assert answer.status_code == 204
    assert (answer.cookies["refresh"].value, answer.cookies["refresh"]["max-age"]) == ("", 0)
    assert client.post(REFRESH, {"refresh": kept}).status_code == 401


def test_a_stale_cookie_keeps_nobody_signed_in(ada: User) -> None:
    client = APIClient()
    access = _login(client).json()["access"]
    client.cookies["refresh"] = "stale"

    answer = client.post(
        "/api/auth/logout/", {}, headers={**OURS, "Authorization": f"Bearer {access}"}
    )

    assert answer.status_code == 204
    assert Session.objects.get().ended_at is not None


def test_without_any_token_there_is_no_new_one(db: None) -> None:
    answer = APIClient().post(REFRESH, {}, headers=OURS)

    assert (answer.status_code, answer.json()["code"]) == (401, "token_not_valid")


def test_the_cookie_alone_is_no_credential(ada: User) -> None:
    client = APIClient()
    _login(client)

    assert client.get("/api/user/profile/", headers=OURS).status_code == 401
    assert client.post("/api/auth/logout/", {}, headers=OURS).status_code == 401
