"""Providers whose requests are signed, over REST and in the Django admin: keys go in as JSON."""

from __future__ import annotations

from typing import Any, Final

import orjson
import pytest
from django.test import Client
from pytest_django import Settings
from rest_framework.test import APIClient

from apps.audit.models import AdminEvent
from apps.providers.credentials import open_secret
from apps.providers.identities import AwsKey, ServiceAccount, read_identity
from apps.providers.models import Provider, ProviderKey
from tests.support.clouds import EMAIL, KEY_ID, aws_key, make_private_key, pem_of
from tests.support.house import page_of, send
from tests.support.people import make_admin

PATH: Final = "/api/admin/providers/"
BEDROCK: Final = {
    "name": "bedrock",
    "base_url": "https://bedrock-runtime.eu-central-1.amazonaws.com/model",
    "dialect": "anthropic",
    "key_header": "aws-sigv4",
}
ACCOUNT: Final = orjson.dumps(
    {
        "type": "service_account",
        "private_key_id": KEY_ID,
        "private_key": pem_of(make_private_key()),
        "client_email": EMAIL,
        "token_uri": "https://oauth2.googleapis.com/token",
    }
).decode()


@pytest.fixture
def path(client: APIClient) -> str:
    """Return the path of a provider with an AWS key."""
    return f"{PATH}{client.post(PATH, {**BEDROCK, 'api_key': aws_key()}).json()['id']}/"


def _identity(key: ProviderKey) -> Any:
    return read_identity(open_secret(key), key.provider.key_header)


def test_an_aws_key_is_kept_and_its_id_is_all_that_is_shown(client: APIClient) -> None:
    made = client.post(PATH, {**BEDROCK, "api_key": aws_key(session_token="CANARY")})

    assert made.status_code == 201
    assert (made.json()["key_header"], made.json()["keys"][0]["last_four"]) == ("aws-sigv4", "MPLE")
    assert isinstance(_identity(ProviderKey.objects.get()), AwsKey)
    told = made.content + repr(list(AdminEvent.objects.values())).encode()
    told += repr(list(ProviderKey.objects.values())).encode()
    for secret in (b"CANARY", b"bPxRfi"):
        assert secret not in told


def test_a_service_account_is_kept_and_its_key_id_is_all_that_is_shown(client: APIClient) -> None:
    vertex = {"preset": "vertex-gemini", "api_key": ACCOUNT}

    blank = client.post(PATH, vertex)
    base_url = "https://aiplatform.googleapis.com/v1/projects/p/locations/global/publishers/google"
    made = client.post(PATH, {**vertex, "base_url": base_url})

    assert (blank.status_code, list(blank.json())) == (400, ["base_url"])
    assert made.status_code == 201
    shown = made.json()
    assert (shown["key_header"], shown["dialect"]) == ("google-service-account", "gemini")
    assert shown["keys"][0]["last_four"] == "2d3c"
    assert isinstance(_identity(ProviderKey.objects.get()), ServiceAccount)
    assert b"PRIVATE" not in made.content + repr(list(AdminEvent.objects.values())).encode()


@pytest.mark.parametrize(
    ("key_header", "secret", "said"),
    [
        ("aws-sigv4", "sk-plain-0123456789", "This provider wants JSON"),
        ("aws-sigv4", ACCOUNT, "An AWS key has these members"),
        ("aws-sigv4", aws_key(region="nowhere at all"), 'The "region" of the key'),
        ("google-service-account", aws_key(), 'The "type" of the key'),
        ("google-service-account", "sk-plain-0123456789", "This provider wants the JSON"),
        ("", aws_key(), "key_header must be"),
        ("authorization", ACCOUNT, "key_header must be"),
    ],
)
def test_a_key_of_another_kind_is_refused_by_name_and_nothing_is_made(
    client: APIClient, key_header: str, secret: str, said: str
) -> None:
    answer = client.post(PATH, {**BEDROCK, "key_header": key_header, "api_key": secret})

    assert (answer.status_code, list(answer.json())) == (400, ["api_key"])
    assert said in answer.json()["api_key"][0]
    assert (Provider.objects.count(), ProviderKey.objects.count()) == (0, 0)


def test_keys_are_added_and_replaced_by_their_kind(client: APIClient, path: str) -> None:
    key_id = ProviderKey.objects.get().pk

    refused = client.post(f"{path}keys/", {"api_key": "sk-plain-0123456789"})
    unchanged = client.patch(f"{path}keys/{key_id}/", {"api_key": ACCOUNT})
    added = client.post(f"{path}keys/", {"api_key": aws_key(region="us-east-1")})
    replaced = client.patch(f"{path}keys/{key_id}/", {"api_key": aws_key(region="us-west-2")})

    assert [answer.status_code for answer in (refused, unchanged, added, replaced)] == [
        400,
        400,
        201,
        200,
    ]
    assert [list(answer.json()) for answer in (refused, unchanged)] == [["api_key"], ["api_key"]]
    regions = [_identity(key).region for key in ProviderKey.objects.order_by("id")]
    assert regions == ["us-west-2", "us-east-1"]


def test_another_way_of_signing_leaves_the_keys_behind(client: APIClient, path: str) -> None:
    refused = client.patch(path, {"key_header": "authorization"})
    same = client.patch(path, {"key_header": "aws-sigv4", "priority": 3})
    moved = client.patch(path, {"key_header": "authorization", "api_key": "sk-plain-0123456789"})
    between = client.patch(path, {"key_header": "x-api-key"})

    assert (refused.status_code, refused.json()["code"]) == (400, "key_required")
    assert (same.status_code, moved.status_code, between.status_code) == (200, 200, 200)
    shown = [(key["last_four"], key["is_active"]) for key in between.json()["keys"]]
    assert shown == [("MPLE", False), ("6789", True)]
    assert ProviderKey.objects.get(last_four="MPLE").left_behind_at is not None


@pytest.mark.parametrize("is_inline", [True, False])
def test_the_admin_checks_keys_by_their_kind(
    client: APIClient, path: str, is_inline: bool, settings: Settings
) -> None:
    browser = Client()
    browser.force_login(make_admin(username="boss"))
    key = ProviderKey.objects.get()
    if is_inline:
        page, prefix = page_of(Provider, "change", key.provider_id), "keys-0-"
    else:
        page, prefix = page_of(ProviderKey, "change", key.pk), ""

    refused = send(browser, page, **{f"{prefix}secret": "sk-plain-0123456789"})
    assert "This provider wants JSON" in refused.content.decode()
    assert _identity(ProviderKey.objects.get()).region == "eu-central-1"

    send(browser, page, **{f"{prefix}secret": aws_key(region="us-east-1").replace("\n", "")})
    assert _identity(ProviderKey.objects.get()).region == "us-east-1"


def test_the_admin_leaves_keys_behind_where_requests_are_signed_in_another_way(
    client: APIClient, path: str
) -> None:
    browser = Client()
    browser.force_login(make_admin(username="boss"))
    key = ProviderKey.objects.get()

    send(browser, page_of(Provider, "change", key.provider_id), key_header="authorization")

    key.refresh_from_db()
    assert (key.is_active, key.provider.key_header) == (False, "authorization")
    assert key.left_behind_at is not None
