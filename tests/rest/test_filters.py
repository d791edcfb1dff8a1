"""Tests of filters and pages of lists: what is not understood is refused, text is literal."""

from __future__ import annotations

import pytest

from apps.users.models import UserGroup
from tests.support.people import make_admin, rest_client

USERS = "/api/admin/users/"


@pytest.mark.parametrize(
    "query",
    [
        "usrname=a",
        "password=a",
        "password__startswith=a",
        "user_group__name=a",
        "username=",
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
