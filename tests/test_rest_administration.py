"""Tests of the REST administration: what it takes, gives and refuses, and to whom."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_django import Settings
from rest_framework.test import APIClient

from apps.ai_models.models import AIModel, PriceVersion
from apps.api_keys.issue import digest_of
from apps.api_keys.models import APIKey
from apps.audit.models import AdminEvent
from apps.billing.accounts import find_standing
from apps.billing.models import Transaction
from apps.model_groups.models import ModelGroup
from apps.providers.credentials import open_secret
from apps.providers.models import Provider, ProviderKey
from apps.users.models import Customer, User
from tests.support.admin_events import list_actions
from tests.support.people import make_user

SECRET = "sk-CANARY-UP-0123456789"
PASSWORD = "correct horse battery staple"
PROVIDER = {
    "name": "somewhere",
    "base_url": "https://api.example.com/v1",
    "api_key": SECRET,
    "dialect": "openai",
}


def test_a_cookie_of_the_django_admin_is_no_credential(root: User) -> None:
    client = APIClient()
    client.force_login(root)

    assert client.get("/api/admin/users/").status_code == 401


def test_a_provider_is_made_and_its_key_never_shown(client: APIClient, root: User) -> None:
    answer = client.post("/api/admin/providers/", PROVIDER)

    assert answer.status_code == 201
    key = ProviderKey.objects.get()
    assert open_secret(key) == SECRET
    assert answer.json()["id"] == key.provider_id
    assert answer.json()["keys"][0]["last_four"] == "6789"
    assert b"CANARY" not in answer.content
    assert b"CANARY" not in client.get("/api/admin/providers/").content
    assert list_actions() == ["provider.created", "provider_key.created"]
    assert set(AdminEvent.objects.filter(action__startswith="p").values_list("actor_id")) == {
        (root.pk,)
    }


@pytest.mark.sqlite  # Refused before any statement runs.
@pytest.mark.parametrize(
    "base_url",
    [
        "http://127.0.0.1:8080/v1",
        "http://169.254.169.254/latest",
        "https://10.0.0.1/v1",
        "https://localhost/v1",
        "https://metadata.google.internal/v1",
        "http://2130706433/",
        "https://[::ffff:7f00:1]/v1",
        "https://good@127.0.0.1/v1",
        "file:///etc/passwd",
        "gopher://api.example.com/",
        "https://api.example.com/v1?key=1",
        "api.example.com",
        "",
    ],
)
def test_addresses_inside_are_refused(client: APIClient, settings: Settings, base_url: str) -> None:
    settings.PRIVATE_UPSTREAMS = ()

    answer = client.post("/api/admin/providers/", {**PROVIDER, "base_url": base_url})

    assert answer.status_code == 400
    assert list(answer.json()) == ["base_url"]
    assert Provider.objects.count() == 0


def test_a_model_is_made_and_priced_anew(client: APIClient) -> None:
    provider = client.post("/api/admin/providers/", PROVIDER).json()["id"]
    body = {
        "name": "big",
        "display_name": "Big",
        "provider": provider,
        "upstream_name": "big-2026",
        "prices": {"input": "2.50", "output": "10"},
        "context_length": 1_000,
        "max_output_tokens": 100,
        "is_active": True,
    }

    made = client.post("/api/admin/models/", body)
    again = client.post("/api/admin/models/", {"name": "big", "prices": {"input": "3"}})

    assert (made.status_code, again.status_code) == (201, 200)
    assert made.json()["prices"] == {"input": "2.5", "output": "10"}
    assert made.json()["routes"][0]["upstream_name"] == "big-2026"
    assert again.json()["id"] == made.json()["id"]
    assert again.json()["prices"] == {"input": "3"}
    assert again.json()["context_length"] == 1_000
    assert PriceVersion.objects.count() == 2


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"prices": {"input": 2.5}}, "prices"),
        ({"prices": {"input": "-1"}}, "prices"),
        ({"prices": {"inputs": "1"}}, "prices"),
        ({"prices": {"input": "1000000.1"}}, "prices"),
        ({"prices": {"input": "0.0000000001"}}, "prices"),
        ({"context_length": 0}, "context_length"),
        ({"provider": 999_999}, "provider"),
        ({"upstream_name": "x"}, "provider"),
        ({"name": "two words"}, "name"),
        ({"name": "line\nbreak"}, "name"),
    ],
)
def test_what_is_wrong_about_a_model_is_named(
    client: APIClient, changes: dict[str, Any], field: str
) -> None:
    answer = client.post("/api/admin/models/", {"name": "big", **changes})

    assert answer.status_code == 400
    assert list(answer.json()) == [field]
    assert AIModel.objects.count() == 0


def test_a_group_is_made_of_models_that_exist(client: APIClient) -> None:
    model = client.post("/api/admin/models/", {"name": "big"}).json()["id"]
    body = {"name": "all", "description": "every model", "models": [model], "is_public": True}

    made = client.post("/api/admin/model-groups/", body)
    wrong = client.post("/api/admin/model-groups/", {"name": "none", "models": [999_999]})
    twice = client.post("/api/admin/model-groups/", body)

    assert made.status_code == 201
    assert made.json()["models"] == [model]
    assert (made.json()["is_public"], made.json()["multiplier"]) == (True, "1")
    assert (wrong.status_code, list(wrong.json())) == (400, ["models"])
    assert (twice.status_code, list(twice.json())) == (400, ["name"])
    assert ModelGroup.objects.count() == 1


def test_a_user_has_a_wallet(client: APIClient) -> None:
    body = {"username": "ada", "email": "ada@example.com", "name": "Ada", "password": PASSWORD}
    user = client.post("/api/admin/users/", body)
    path = f"/api/admin/users/{user.json()['id']}/"

    given = client.post(f"{path}adjust-balance/", {"amount": "10", "reason": "welcome"})
    taken = client.post(f"{path}adjust-balance/", {"amount": "-0.01", "reason": "stamp"})

    assert (user.status_code, given.status_code, taken.status_code) == (201, 200, 200)
    assert user.json()["wallet"] == {"balance": "0", "held": "0", "available": "0"}
    assert given.json()["wallet"] == {"balance": "10", "held": "0", "available": "10"}
    shown = client.get(path).json()
    assert shown["wallet"] == {"balance": "9.99", "held": "0", "available": "9.99"}
    assert (shown["username"], shown["email"], shown["role"]) == ("ada", "ada@example.com", "user")
    assert "password" not in shown
    assert list_actions() == ["user.balance_adjusted", "user.balance_adjusted"]


@pytest.mark.sqlite  # Refused before any statement runs.
@pytest.mark.parametrize(
    "extra",
    [
        "role", "is_staff", "is_superuser", "balance", "posted_nanos", "held_nanos", "quota",
        "used", "customer", "customer_id", "wallet", "is_active", "id",
        "date_joined", "groups", "user_permissions", "cap_nanos", "daily_budget_nanos", "budgets",
    ],
)  # fmt: skip
def test_nothing_is_smuggled_into_a_user(client: APIClient, extra: str) -> None:
    body = {"username": "eve", "email": "eve@example.com", "password": PASSWORD, extra: "admin"}

    answer = client.post("/api/admin/users/", body)

    assert (answer.status_code, answer.json()) == (400, {extra: ["Unknown field."]})
    assert not User.objects.filter(username="eve").exists()


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"password": "short"}, "password"),
        ({"password": "password123"}, "password"),
        ({"email": "nowhere"}, "email"),
        ({"username": "a b"}, "username"),
        ({"username": "root"}, "username"),
        ({"username": ""}, "username"),
    ],
)
def test_what_is_wrong_about_a_user_is_named(
    client: APIClient, changes: dict[str, str], field: str
) -> None:
    body = {"username": "ada", "email": "ada@example.com", "password": PASSWORD, **changes}

    answer = client.post("/api/admin/users/", body)

    assert (answer.status_code, list(answer.json())) == (400, [field])
    assert Customer.objects.count() == 1


@pytest.mark.parametrize(
    ("body", "status_code", "answer"),
    [
        ({"amount": "1"}, 400, {"reason": ["This field is required."]}),
        ({"amount": "1", "reason": " "}, 400, {"reason": ["This field may not be blank."]}),
        ({"amount": "0", "reason": "x"}, 400, {"amount": ["An adjustment must not be zero."]}),
        (
            {"amount": "1000001", "reason": "x"},
            400,
            {"amount": ["An amount must not exceed 1000000 USD."]},
        ),
        (
            {"amount": "-1", "reason": "x"},
            409,
            {"detail": "The balance does not cover this.", "code": "insufficient_balance"},
        ),
    ],
)
def test_a_refused_adjustment_moves_nothing(
    client: APIClient, body: dict[str, str], status_code: int, answer: dict[str, Any]
) -> None:
    user = make_user()

    got = client.post(f"/api/admin/users/{user.pk}/adjust-balance/", body)

    assert (got.status_code, got.json()) == (status_code, answer)
    assert find_standing(user.customer_id).balance_nanos == 0
    assert (Transaction.objects.count(), list_actions()) == (0, [])


def test_a_repeated_adjustment_is_applied_once(client: APIClient) -> None:
    user = make_user()
    path = f"/api/admin/users/{user.pk}/adjust-balance/"
    body = {"amount": "5", "reason": "once"}

    answers = [client.post(path, body, headers={"Idempotency-Key": "k1"}) for _ in range(2)]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert answers[0].json() == answers[1].json()
    assert find_standing(user.customer_id).balance_nanos == 5_000_000_000


def test_a_reset_key_is_shown_once_and_stored_as_a_digest(client: APIClient) -> None:
    user = make_user()
    path = f"/api/admin/users/{user.pk}/reset-key/"

    first, second = client.post(path, {}), client.post(path)

    assert (first.status_code, second.status_code) == (200, 200)
    raw = second.json()["api_key"]
    assert list(second.json()) == ["api_key"]
    assert APIKey.objects.get(digest=digest_of(raw)).is_default
    old = APIKey.objects.get(digest=digest_of(first.json()["api_key"]))
    assert (old.is_default, old.is_active) == (False, False)
    assert raw not in client.get(f"/api/admin/users/{user.pk}/").content.decode()
    assert client.post(path, {"raw": "sk-mine-12345678"}).status_code == 400


@pytest.mark.parametrize(
    "path", ["/api/admin/users/999999/", "/api/admin/users/999999999999999999/", "/api/nowhere/"]
)
def test_what_is_not_there_is_404(client: APIClient, path: str) -> None:
    assert client.get(path).status_code == 404


@pytest.mark.parametrize("body", ["{", "[]", '"text"', "null", '{"name": NaN}', b"\xff\xfe"])
def test_a_bad_body_is_400_with_detail(client: APIClient, body: Any) -> None:
    answer = client.generic(
        "POST", "/api/admin/model-groups/", body, content_type="application/json"
    )

    assert answer.status_code == 400
