"""Tests of the control plane's headers, cross-origin rule, front page and API description."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import call_command
from django.test import Client
from pytest_django import Settings

from tests.support.house import find_inline

ROOT = Path(__file__).resolve().parent.parent
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


def test_an_unknown_host_is_refused(client: Client) -> None:
    answer = client.get("/api/admin/users/", headers={"host": "evil.example.net"})

    assert (answer.status_code, answer.json()["code"]) == (400, "bad_request")


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


def test_the_committed_description_is_the_real_one(tmp_path: Path) -> None:
    made = tmp_path / "openapi.json"

    call_command(
        "spectacular", "--format", "openapi-json", "--file", str(made), "--validate",
        "--fail-on-warn",
    )  # fmt: skip

    assert made.read_text() == (ROOT / "openapi.json").read_text()


def test_the_description_has_every_path() -> None:
    described: dict[str, Any] = json.loads((ROOT / "openapi.json").read_text())["paths"]

    assert {path: sorted(methods) for path, methods in described.items()} == {
        "/api/auth/login/": ["post"],
        "/api/auth/refresh/": ["post"],
        "/api/auth/logout/": ["post"],
        "/api/admin/providers/": ["get", "post"],
        "/api/admin/models/": ["get", "post"],
        "/api/admin/model-groups/": ["get", "post"],
        "/api/admin/users/": ["get", "post"],
        "/api/admin/users/{user_id}/": ["get"],
        "/api/admin/users/{user_id}/adjust-balance/": ["post"],
        "/api/admin/users/{user_id}/reset-key/": ["post"],
        "/api/admin/requests/": ["get"],
    }
