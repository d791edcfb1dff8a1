"""Lists of API keys: what finds them, and at which cost."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from rest_framework.test import APIClient

from apps.api_keys.models import APIKey
from apps.quotas.tests.key_kit import make_key
from apps.users.models import User
from tests.support.people import make_user, rest_client

PATH = "/api/admin/keys/"
OWN = "/api/user/keys/"


@pytest.fixture
def ada(db: None) -> User:
    """Return a user."""
    return make_user(username="ada", email="ada@example.com")


@pytest.fixture
def own(ada: User) -> APIClient:
    """Return a client of that user."""
    return rest_client(ada)


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", ["c", "b", "a"]),
        ("?user={ada}", ["b", "a"]),
        ("?is_active=false", ["b"]),
        ("?is_default=true", ["a"]),
        ("?expired=true", ["c"]),
        ("?expired=false", ["b", "a"]),
        ("?prefix=sk-", ["c", "b", "a"]),
        ("?last_four=zzzz", ["c"]),
        ("?operation=chat", ["c", "a"]),
        ("?operation=completions", ["b", "a"]),
        ("?operation=usage", ["c", "a"]),
        ("?search=ADA@example", ["b", "a"]),
        ("?search=%25", []),
        ("?ordering=name", ["a", "b", "c"]),
    ],
)
def test_keys_are_found(admin: APIClient, ada: User, query: str, expected: list[str]) -> None:
    make_key(ada, name="a", raw="sk-one12", is_default=True)
    only = make_key(ada, name="b", raw="sk-two12", allowed_operations=["completions"])
    APIKey.objects.filter(pk=only.pk).update(is_active=False)
    past = datetime(2026, 1, 1, tzinfo=UTC)
    operations = ["usage", "chat"]
    make_key(
        make_user(),
        name="c",
        raw="sk-" + "y" * 30 + "zzzz",
        expires_at=past,
        allowed_operations=operations,
    )

    answer = admin.get(PATH + query.format(ada=ada.pk))

    assert [row["name"] for row in answer.json()["results"]] == expected


@pytest.mark.parametrize(
    "query",
    [
        "?operation=chats",
        "?digest=x",
        "?is_active=1",
        "?user=x",
        "?ordering=digest",
        "?user__email=a",
    ],
)
def test_what_cannot_be_understood_shows_nothing(admin: APIClient, query: str) -> None:
    assert admin.get(PATH + query).status_code == 400


def test_the_keys_of_a_user_who_is_missing_are_404(admin: APIClient) -> None:
    assert admin.get("/api/admin/users/999999/keys/").status_code == 404
