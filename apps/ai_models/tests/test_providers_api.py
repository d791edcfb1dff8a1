"""Tests of providers and their keys over REST: what is taken, given, hidden and refused."""

from __future__ import annotations

from typing import Any

import pytest
from pytest_django import Settings
from rest_framework.test import APIClient

from apps.ai_models.catalogue import create_model
from apps.audit.models import AdminEvent
from apps.providers.credentials import open_secret
from apps.providers.models import Provider, ProviderKey
from apps.users.models import Role
from tests.support.people import make_user, rest_client

SECRET = "sk-CANARY-UP-0123456789"
FRESH = "sk-CANARY-NEW-abcdefghijk"
PATH = "/api/admin/providers/"
PROVIDER = {"name": "somewhere", "base_url": "https://api.example.com/v1", "api_key": SECRET}


@pytest.fixture
def path(client: APIClient) -> str:
    """Return the path of a provider with a key."""
    return f"{PATH}{client.post(PATH, PROVIDER).json()['id']}/"


def _actions() -> list[str]:
    rows = AdminEvent.objects.filter(action__startswith="provider").order_by("id")
    return list(rows.values_list("action", flat=True))


def test_a_provider_is_made_with_everything(client: APIClient) -> None:
    body = {
        **PROVIDER,
        "priority": -1,
        "weight": 0,
        "payload_mode": "metadata",
        "connect_timeout_seconds": 2.5,
        "cap": "12.5",
        "is_active": False,
    }

    made = client.post(PATH, body)

    assert made.status_code == 201
    shown = made.json()
    assert {name: shown[name] for name in body if name != "api_key"} == {
        name: value for name, value in body.items() if name != "api_key"
    }
    assert shown["keys"][0]["last_four"] == "6789"
    assert client.get(f"{PATH}{shown['id']}").json() == shown
    assert _actions() == ["provider.created", "provider_key.created"]


def test_a_preset_fills_in_what_is_not_given(client: APIClient) -> None:
    presets = client.get("/api/admin/provider-presets/").json()
    first = client.post(PATH, {"preset": "antinomy", "api_key": SECRET})
    twice = client.post(PATH, {"preset": "antinomy", "api_key": SECRET})
    named = client.post(PATH, {"preset": "antinomy", "api_key": SECRET, "name": "mine"})

    assert (presets[0]["slug"], len(presets[0]["models"])) == ("antinomy", 7)
    assert first.json()["name"] == "Antinomy AI"
    assert first.json()["base_url"] == "https://antinomy.ai/api/v1"
    assert (twice.status_code, list(twice.json())) == (400, ["name"])
    assert (named.status_code, named.json()["name"]) == (201, "mine")


def test_an_address_that_only_its_owner_knows_is_asked_for(client: APIClient) -> None:
    body = {"preset": "azure-responses", "api_key": SECRET}

    unknown = client.post(PATH, body)
    made = client.post(PATH, {**body, "base_url": "https://mine.openai.azure.com/openai/v1"})

    assert (unknown.status_code, list(unknown.json())) == (400, ["base_url"])
    assert (made.status_code, made.json()["name"]) == (201, "Azure OpenAI Responses")
    assert made.json()["base_url"] == "https://mine.openai.azure.com/openai/v1"
    assert (made.json()["dialect"], made.json()["key_header"]) == ("openai-responses", "api-key")


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": None}, "name"),
        ({"name": "two\nlines"}, "name"),
        ({"name": "x" * 101}, "name"),
        ({"base_url": ""}, "base_url"),
        ({"api_key": "two words"}, "api_key"),
        ({"api_key": "line\nbreak"}, "api_key"),
        ({"api_key": " sk-space-0123456789"}, "api_key"),
        ({"dialect": "morse"}, "dialect"),
        ({"preset": "nobody"}, "preset"),
        ({"preset": ["antinomy"]}, "preset"),
        ({"priority": 2**31}, "priority"),
        ({"weight": -1}, "weight"),
        ({"weight": 10**30}, "weight"),
        ({"payload_mode": "some"}, "payload_mode"),
        ({"idle_timeout_seconds": 0}, "idle_timeout_seconds"),
        ({"idle_timeout_seconds": "nan"}, "idle_timeout_seconds"),
        ({"idle_timeout_seconds": "inf"}, "idle_timeout_seconds"),
        ({"idle_timeout_seconds": True}, "idle_timeout_seconds"),
        ({"cap": -1}, "cap"),
        ({"cap": "9223372037"}, "cap"),
        ({"rpm": -1}, "rpm"),
        ({"concurrency": 2**31}, "concurrency"),
        ({"daily_cost": "-1"}, "daily_cost"),
        ({"leaving_policy": "stay"}, "leaving_policy"),
        ({"drain_seconds": 601}, "drain_seconds"),
        ({"headers": {"authorization": "x"}}, "headers"),
        ({"headers": []}, "headers"),
        ({"is_active": 7}, "is_active"),
        ({"last_four": "1234"}, "last_four"),
        ({"id": 1}, "id"),
    ],
)
def test_what_is_wrong_is_named(client: APIClient, changes: dict[str, Any], field: str) -> None:
    answer = client.post(PATH, {**PROVIDER, **changes})

    assert (answer.status_code, list(answer.json())) == (400, [field])
    assert Provider.objects.count() == 0


def test_what_is_required_is_named(client: APIClient, path: str) -> None:
    assert set(client.post(PATH, {}).json()) == {"name", "base_url", "api_key"}
    assert list(client.post(PATH, {"preset": "antinomy"}).json()) == ["api_key"]
    assert set(client.put(path, {}).json()) == {"name", "base_url"}
    assert client.patch(path, {}).status_code == 200


def test_changes_keep_what_is_left_out(client: APIClient, path: str) -> None:
    patched = client.patch(path, {"priority": 4})
    body = {"name": "renamed", "base_url": PROVIDER["base_url"], "cap": "1"}
    replaced = client.put(path, body)

    assert (patched.status_code, replaced.status_code) == (200, 200)
    assert (replaced.json()["name"], replaced.json()["priority"]) == ("renamed", 4)
    assert _actions()[2:] == ["provider.changed", "provider.changed"]
    event = AdminEvent.objects.latest("id")
    assert event.before == {"name": "somewhere", "cap_nanos": None}
    assert event.after == {"name": "renamed", "cap_nanos": 10**9}


def test_limits_policies_and_headers_are_kept(client: APIClient, path: str) -> None:
    values = {
        "rpm": 10,
        "tpm": 20,
        "concurrency": 0,
        "daily_cost": "2.5",
        "leaving_policy": "drain",
        "drain_seconds": 7.5,
        "headers": {"x-team": "a"},
    }
    key_values = {"rpm": 1, "tpm": None, "concurrency": 3, "daily_cost": "0.5"}

    patched = client.patch(path, values).json()
    added = client.post(f"{path}keys/", {"api_key": "sk-another-0123456789", **key_values})
    changed = client.patch(f"{path}keys/{added.json()['id']}/", {"rpm": None, "tpm": 9})

    assert {name: patched[name] for name in values} == values
    assert added.status_code == 201
    assert {name: added.json()[name] for name in key_values} == key_values
    assert {name: changed.json()[name] for name in key_values} == {
        **key_values,
        "rpm": None,
        "tpm": 9,
    }
    listed = client.get(PATH, {"leaving_policy": "drain"}).json()
    assert (listed["count"], client.get(PATH, {"leaving_policy": "cancel"}).json()["count"]) == (
        1,
        0,
    )


def test_another_address_wants_the_key_in_the_same_call(client: APIClient, path: str) -> None:
    url = "https://evil.example.net/v1"
    key = ProviderKey.objects.get()

    refused = client.patch(path, {"base_url": url})
    put = client.put(path, {"name": "somewhere", "base_url": url})
    moved = client.patch(path, {"base_url": url, "api_key": FRESH})
    revived = client.patch(f"{path}keys/{key.pk}/", {"is_active": True})

    assert (refused.status_code, refused.json()["code"]) == (400, "key_required")
    assert (put.status_code, put.json()["code"]) == (400, "key_required")
    assert moved.status_code == 200
    assert [shown["is_active"] for shown in moved.json()["keys"]] == [False, True]
    assert (revived.status_code, revived.json()["code"]) == (400, "key_required")
    assert open_secret(ProviderKey.objects.get(is_active=True)) == FRESH


def test_refused_addresses_have_one_text_and_are_on_record(
    client: APIClient, path: str, settings: Settings
) -> None:
    settings.PRIVATE_UPSTREAMS = ()
    urls = ["http://127.0.0.1/v1", "https://10.0.0.1/v1", "https://nowhere", "ftp://a.example.com"]

    answers = [client.patch(path, {"base_url": url, "api_key": FRESH}) for url in urls]
    answers += [client.post(PATH, {**PROVIDER, "name": "x", "base_url": url}) for url in urls]

    assert {answer.status_code for answer in answers} == {400}
    assert {answer.content for answer in answers} == {b'{"base_url":["This URL is not allowed."]}'}
    events = AdminEvent.objects.filter(action="url.refused").order_by("id")
    assert [event.after for event in events][:4] == [
        {"host": host} for host in ("127.0.0.1", "10.0.0.1", "nowhere", "a.example.com")
    ]
    assert {event.actor_name for event in events} == {"root"}


def test_deleting_spares_what_has_routes(client: APIClient, path: str) -> None:
    create_model(name="big", provider=Provider.objects.get())
    unused = client.post(PATH, {**PROVIDER, "name": "unused"}).json()["id"]

    kept, gone = client.delete(path), client.delete(f"{PATH}{unused}/")

    assert (kept.status_code, kept.json()["code"]) == (409, "archived_instead")
    assert not client.get(path).json()["is_active"]
    assert gone.status_code == 204
    assert client.get(f"{PATH}{unused}/").status_code == 404


def test_keys_come_and_go(client: APIClient, path: str) -> None:
    made = client.post(f"{path}keys/", {"api_key": FRESH, "name": "second", "weight": 2})
    key = f"{path}keys/{made.json()['id']}/"
    changed = client.patch(key, {"weight": 3, "is_active": False})
    replaced = client.put(key, {"api_key": "sk-CANARY-THREE-0123wxyz"})
    listed = client.get(f"{path}keys/").json()
    one = client.get(key)
    deleted = client.delete(key)

    assert (made.status_code, made.json()["last_four"]) == (201, "hijk")
    assert (changed.json()["weight"], changed.json()["is_active"]) == (3, False)
    assert (replaced.json()["last_four"], replaced.json()["weight"]) == ("wxyz", 3)
    assert [row["last_four"] for row in listed["results"]] == ["6789", "wxyz"]
    assert one.json() == listed["results"][1] == replaced.json()
    assert (deleted.status_code, client.get(key).status_code) == (204, 404)
    assert _actions()[2:] == [
        "provider_key.created",
        "provider_key.changed",
        "provider_key.secret_replaced",
        "provider_key.deleted",
    ]


def test_a_key_of_another_provider_is_not_found(client: APIClient, path: str) -> None:
    other = client.post(PATH, {**PROVIDER, "name": "other"}).json()["keys"][0]["id"]

    answers = [client.generic(method, f"{path}keys/{other}/", "{}") for method in ("GET", "DELETE")]
    answers.append(client.patch(f"{path}keys/{other}/", {"weight": 2}))
    answers += [client.get(f"{PATH}999999/keys/"), client.post(f"{PATH}999999/keys/", {})]

    assert {answer.status_code for answer in answers} == {404}


def test_secrets_come_out_nowhere(
    client: APIClient, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    key = f"{path}keys/{ProviderKey.objects.get().pk}/"
    answers = [
        client.get(PATH),
        client.get(path),
        client.get(f"{path}keys/"),
        client.get(key),
        client.patch(key, {"api_key": FRESH}),
        client.patch(path, {"base_url": "https://b.example.com", "api_key": SECRET}),
        client.post(PATH, {**PROVIDER, "base_url": f"https://{SECRET}:x@10.0.0.1/{SECRET}"}),
        client.post(PATH, {**PROVIDER, "api_key": f"{SECRET}\n"}),
    ]

    seen = [answer.content.decode() for answer in answers]
    seen += [repr(list(AdminEvent.objects.values())), caplog.text]
    seen.append(repr(list(ProviderKey.objects.values())))
    assert [text for text in seen if "CANARY" in text] == []


@pytest.mark.parametrize("role", [Role.VIEWER, Role.ANALYST])
def test_readers_see_neither_address_nor_keys(path: str, role: Role) -> None:
    reader = rest_client(make_user(role=role))

    listed, one = reader.get(PATH).json()["results"], reader.get(path).json()

    assert listed == [one]
    assert (one["name"], one["base_url"], one["keys"]) == ("somewhere", None, None)
    for answer in (
        reader.get(f"{path}keys/"),
        reader.get("/api/admin/provider-presets/"),
        reader.post(PATH, PROVIDER),
        reader.patch(path, {"priority": 1}),
        reader.delete(path),
        reader.post(f"{path}test/"),
        reader.post(f"{path}sync-models/"),
    ):
        assert answer.status_code == 403
    # The address cannot be guessed piece by piece either.
    assert reader.get(f"{PATH}?search=api.example").json()["count"] == 0
    assert reader.get(f"{PATH}?base_url=x").status_code == 400


@pytest.mark.parametrize(
    ("query", "names"),
    [
        ("", ["one%", "other", "three"]),
        ("?search=o", ["one%", "other"]),
        ("?search=%25", ["one%"]),
        ("?name=other", ["other"]),
        ("?is_active=false", ["three"]),
        ("?dialect=openai&page_size=1", ["one%"]),
        ("?id=0", []),
    ],
)
def test_the_list_is_filtered(client: APIClient, query: str, names: list[str]) -> None:
    for name in ("three", "one%", "other"):
        client.post(PATH, {**PROVIDER, "name": name, "is_active": name != "three"})

    answer = client.get(f"{PATH}{query}")

    assert [row["name"] for row in answer.json()["results"]] == names


@pytest.mark.parametrize("query", ["?nmae=x", "?dialect=none", "?id=x", "?search=%00"])
def test_filters_that_cannot_be_understood_are_refused(client: APIClient, query: str) -> None:
    assert client.get(f"{PATH}{query}").status_code == 400
