"""Tests of the control plane's headers, languages, cross-origin rule and front page."""

from __future__ import annotations

import pytest
from django.test import Client
from pytest_django import Settings

from apps.core.logs import LineFormatter
from tests.support.house import find_inline
from tests.support.people import PASSWORD, make_admin

# Decided around the views, whatever they ask.
pytestmark = pytest.mark.sqlite

GOOD = "https://console.example.com"


@pytest.fixture
def client(db: None, settings: Settings) -> Client:
    """Return a browser; one origin may call."""
    settings.CORS_ALLOWED_ORIGINS = [GOOD]
    return Client()


@pytest.mark.parametrize("path", ["/", "/admin/login/", "/api/schema/", "/api/admin/users/"])
def test_every_answer_forbids_scripts_and_frames_of_others(client: Client, path: str) -> None:
    headers = client.get(path).headers

    policy = headers["Content-Security-Policy"]
    assert "default-src 'self'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "unsafe" not in policy
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cross-Origin-Opener-Policy"] == "same-origin"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "camera=()" in headers["Permissions-Policy"]
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize("path", ["/api/admin/users/", "/api/schema/", "/admin/login/"])
def test_answers_are_not_stored(client: Client, path: str) -> None:
    assert client.get(path).headers["Cache-Control"] == "no-store"


def test_the_configured_origin_may_call(client: Client) -> None:
    preflight = client.options(
        "/api/auth/login/",
        headers={"origin": GOOD, "access-control-request-method": "POST"},
    )
    answer = client.get("/api/admin/users/", headers={"origin": GOOD})

    assert (preflight.status_code, answer.status_code) == (204, 401)
    for headers in (preflight.headers, answer.headers):
        assert headers["Access-Control-Allow-Origin"] == GOOD
        assert headers["Access-Control-Allow-Credentials"] == "true"
        assert "Origin" in headers["Vary"]
    assert "POST" in preflight.headers["Access-Control-Allow-Methods"]
    assert answer.headers["Access-Control-Expose-Headers"] == (
        "allow, content-disposition, retry-after, x-request-id"
    )


@pytest.mark.parametrize(
    "origin",
    [
        "https://evil.example.net",
        "null",
        "https://console.example.com.evil.net",
        "https://evil-console.example.com",
        "http://console.example.com",
        "https://console.example.com:8443",
        "",
    ],
)
def test_no_other_origin_may_call(client: Client, origin: str) -> None:
    preflight = client.options(
        "/api/auth/login/",
        headers={"origin": origin, "access-control-request-method": "POST"},
    )
    answer = client.get("/api/admin/users/", headers={"origin": origin})

    for headers in (preflight.headers, answer.headers):
        assert not [name for name in headers if name.startswith("Access-Control")]
    assert "Origin" in answer.headers["Vary"]


def test_the_admin_is_never_opened_to_other_origins(client: Client) -> None:
    headers = client.get("/admin/login/", headers={"origin": GOOD}).headers

    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize("path", ["/api/nowhere", "/api/admin/nowhere/"])
def test_what_is_not_there_is_told_in_the_shape_of_the_api(client: Client, path: str) -> None:
    answer = client.get(path)

    assert (answer.status_code, answer.json()) == (
        404,
        {"detail": "Not found.", "code": "not_found"},
    )


def test_only_the_admin_speaks_the_language_of_the_browser(client: Client) -> None:
    chinese = {"accept-language": "zh-CN"}

    page = client.get("/admin/login/", headers=chinese)
    unknown = client.get("/api/admin/users/", headers=chinese)
    wrong = client.post("/api/auth/login/", {}, "application/json", headers=chinese)

    assert page.headers["Content-Language"] == "zh-hans"
    assert unknown.json()["detail"] == "Authentication credentials were not provided."
    assert wrong.json() == {
        "username": ["This field is required."],
        "password": ["This field is required."],
    }
    assert "Accept-Language" not in unknown.headers["Vary"]


def test_an_unknown_host_is_refused(client: Client) -> None:
    answer = client.get("/api/admin/users/", headers={"host": "evil.example.net"})

    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


def test_an_unknown_host_fills_no_log(client: Client, caplog: pytest.LogCaptureFixture) -> None:
    for path in ("/", "/api/admin/users/", "/admin/login/"):
        client.get(path, headers={"host": "evil"})

    assert caplog.records == []


@pytest.mark.parametrize(
    ("body", "content_type", "logger"),
    [
        ("a&" * 1_001, "application/x-www-form-urlencoded", "django.security.TooManyFieldsSent"),
        ("a=" + "b" * 2_700_000, "application/x-www-form-urlencoded",
         "django.security.RequestDataTooBig"),
        ("--x", "multipart/form-data; boundary=" + "x" * 300, "django.request"),
    ],
)  # fmt: skip
def test_what_is_refused_is_one_short_line(
    client: Client, caplog: pytest.LogCaptureFixture, body: str, content_type: str, logger: str
) -> None:
    answer = client.post("/admin/login/", body, content_type)

    assert answer.status_code == 400
    assert [record.name for record in caplog.records] == [logger]
    line = LineFormatter().format(caplog.records[0])
    assert len(line.splitlines()) == 1
    assert "Traceback" not in line


def test_the_front_page_leads_to_the_administration(client: Client) -> None:
    answer = client.get("/")

    assert (answer.status_code, answer.headers["Location"]) == (302, "/admin/")


def test_the_api_page_needs_nothing_inline_and_nothing_from_elsewhere(client: Client) -> None:
    page = client.get("/api/docs/").content.decode()
    script = client.get("/api/docs/?script=")

    assert find_inline(page) == []
    assert "//" not in page.replace("</", "")
    assert script.status_code == 200
    assert script.headers["Content-Type"].startswith("application/javascript")


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_over_tls_browsers_are_told_to_stay_there(
    client: Client, settings: Settings, scheme: str
) -> None:
    settings.TRUSTED_PROXIES = ["127.0.0.1"]
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")

    answer = client.get("/admin/login/", headers={"x-forwarded-proto": scheme})

    is_secure = scheme == "https"
    assert ("Strict-Transport-Security" in answer.headers) == is_secure
    assert bool(answer.cookies["csrftoken"]["secure"]) == is_secure
    assert answer.cookies["csrftoken"]["samesite"] == "Lax"


@pytest.mark.parametrize(
    "target", ["//evil.example.net", "https://evil.example.net", "javascript:alert(1)", "\\\\evil"]
)
def test_signing_in_leads_nowhere_else(client: Client, target: str) -> None:
    root = make_admin(username="root", password=PASSWORD)

    answer = client.post(
        f"/admin/login/?next={target}", {"username": root.username, "password": PASSWORD}
    )

    assert (answer.status_code, answer.headers["Location"]) == (302, "/admin/")
