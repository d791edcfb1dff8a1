"""Tests of filters and pages of lists: what is not understood is refused, text is literal."""

from __future__ import annotations

import base64
import re
from urllib.parse import quote

import pytest

from apps.users.models import UserGroup
from tests.support.people import make_admin, rest_client

USERS = "/api/admin/users/"


@pytest.mark.sqlite  # Refused before any statement runs.
@pytest.mark.parametrize(
    "query",
    [
        "usrname=a",
        "password=a",
        "password__startswith=a",
        "user_group__name=a",
        "username=",
        "username=%20",
        "id=,",
        "id=1,,2",
        "id=" + "9" * 5_000,
        "page=1&page=2",
        "page_size=1&page_size=1",
        "username=a&username=b",
        "page_size=null",
        "page_size=0",
        "page_size=201",
        "page_size=1e2",
        "page_size=-1",
        "page_size=000000100000",
        "page_size=",
        "ordering=password",
        "ordering=-email,password",
        "ordering=,",
        "ordering=-email,,",
        "ordering=email,%20",
    ],
)
def test_a_parameter_that_cannot_be_understood_is_400(db: None, query: str) -> None:
    answer = rest_client(make_admin()).get(f"{USERS}?{query}")

    assert answer.status_code == 400
    assert query.partition("=")[0].partition("&")[0] in answer.json()


@pytest.mark.parametrize("text", ["%", "_", "\\", "a%b", "'", '"', "%_%_%_%"])
def test_a_search_is_literal(db: None, text: str) -> None:
    UserGroup.objects.create(name="plain")
    UserGroup.objects.create(name=f"with {text} in it")

    answer = rest_client(make_admin()).get("/api/admin/user-groups/", {"search": text})

    assert [row["name"] for row in answer.json()["results"]] == [f"with {text} in it"]


@pytest.mark.sqlite  # Refused before any statement runs.
@pytest.mark.parametrize(
    "path",
    [
        "/api/admin/known-models/?search=",
        "/api/admin/known-models/?provider=openai&provider=openai",
        "/api/admin/providers/?is_active=AAA",
        "/api/admin/requests/?model=,",
        "/api/admin/requests/?state=completed,",
        "/api/admin/requests/?page_size=null",
        "/api/admin/requests/?page_size=1&page_size=1",
        "/api/admin/stats/overview/?started_before=",
        "/api/admin/stats/overview/?started_before=2026-01-01T00:00:00Z&started_before=null",
        "/api/auth/sessions/?page=1&page=1",
        "/api/user/usage/?started_after=",
    ],
)
def test_an_empty_or_repeated_parameter_is_400_everywhere(db: None, path: str) -> None:
    answer = rest_client(make_admin()).get(path)

    assert answer.status_code == 400
    assert re.split("[?=]", path)[1] in answer.json()


@pytest.mark.parametrize("path", ["/api/admin/requests/", "/api/admin/ledger/entries/"])
def test_an_empty_cursor_is_no_first_page(db: None, path: str) -> None:
    answer = rest_client(make_admin()).get(path, {"cursor": ""})

    assert answer.status_code == 404


@pytest.mark.parametrize("moment", ["2357-03-08T01:56:58-22:43", "1970-01-01T00:00:00+23:59"])
@pytest.mark.parametrize("name", ["started_after", "settled_before"])
def test_a_moment_of_any_offset_is_understood(db: None, name: str, moment: str) -> None:
    answer = rest_client(make_admin()).get("/api/user/requests/", {name: moment})

    assert answer.status_code == 200


@pytest.mark.parametrize("position", ["2026-11-21T00:00:00-22:43", "2026-11-21T00:00:00", "noon"])
def test_a_forged_cursor_of_moments_is_404(db: None, position: str) -> None:
    cursor = base64.b64encode(f"p={quote(position)}".encode()).decode()

    answer = rest_client(make_admin()).get("/api/admin/ledger/transactions/", {"cursor": cursor})

    assert answer.status_code == 404
