"""Tests of how often the REST API may be called."""

from __future__ import annotations

import socket

import pytest
from pytest_django import Settings
from rest_framework.test import APIClient

from apps.api_keys.issue import issue_key
from apps.audit.models import AdminEvent
from tests.support.people import make_admin, make_user, rest_client

PATH = "/api/admin/users/"


def test_one_user_is_told_to_wait(db: None, settings: Settings) -> None:
    settings.API_RPM_PER_USER = 2
    client, other = rest_client(make_admin()), rest_client(make_admin())

    statuses = [client.get(PATH).status_code for _ in range(4)]

    # A new minute may begin in between.
    assert statuses.count(429) in (1, 2)
    assert other.get(PATH).status_code == 200
    refused = client.get(PATH)
    while refused.status_code != 429:
        refused = client.get(PATH)
    assert refused.json()["code"] == "throttled"
    assert 1 <= int(refused.headers["Retry-After"]) <= 60


def test_one_address_is_told_to_wait_whoever_calls(db: None, settings: Settings) -> None:
    settings.API_RPM_PER_ADDRESS = 3
    clients = [APIClient(REMOTE_ADDR="192.0.2.7") for _ in range(10)]

    statuses = [client.post("/api/auth/login/", {}).status_code for client in clients]

    assert statuses.count(400) in (3, 6)
    assert statuses.count(429) in (4, 7)
    assert APIClient(REMOTE_ADDR="192.0.2.8").post("/api/auth/login/", {}).status_code == 400


def test_an_address_is_believed_only_from_a_trusted_proxy(db: None, settings: Settings) -> None:
    settings.API_RPM_PER_ADDRESS = 1
    calls = [
        APIClient(REMOTE_ADDR="192.0.2.7", HTTP_X_FORWARDED_FOR=f"198.51.100.{number}")
        for number in range(6)
    ]

    statuses = [client.post("/api/auth/login/", {}).status_code for client in calls]

    assert statuses.count(429) in (4, 5)


def test_without_the_shared_cache_the_process_counts(db: None, settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": f"redis://127.0.0.1:{port}/0",
        }
    }
    settings.API_RPM_PER_USER = 2
    client = rest_client(make_admin())

    statuses = [client.get(PATH).status_code for _ in range(8)]

    assert statuses.count(429) >= 4


def test_addresses_of_one_ipv6_network_count_together(db: None, settings: Settings) -> None:
    settings.API_RPM_PER_ADDRESS = 3
    clients = [APIClient(REMOTE_ADDR=f"2001:db8::{number:x}") for number in range(10)]

    statuses = [client.post("/api/auth/login/", {}).status_code for client in clients]

    assert statuses.count(429) in (4, 7)


def test_who_changes_his_own_again_and_again_is_told_to_wait(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("apps.core.throttles.OWN_CHANGES_MAX", 3)
    user = make_user()
    client, other = rest_client(user), rest_client(make_user())
    key, _ = issue_key(user=user, name="phone")
    changes = [
        *((client.patch, "/api/user/profile/", {"name": f"Ada {number}"}) for number in range(5)),
        (client.post, "/api/user/keys/", {"name": "another"}),
        *((client.patch, f"/api/user/keys/{key.pk}/", {"name": f"{n}"}) for n in range(5)),
        (client.post, "/api/auth/refresh-key/", {}),
    ]

    answers = [send(path, body, format="json") for send, path, body in changes]

    # A new hour may begin in between.
    assert [answer.status_code for answer in answers].count(429) in (6, 9)
    refused = next(answer for answer in answers if answer.status_code == 429)
    assert refused.json()["code"] == "throttled"
    assert 1 <= int(refused.headers["Retry-After"]) <= 3_600
    assert AdminEvent.objects.filter(actor_id=user.pk).count() in (3, 6)
    assert client.get("/api/user/profile/").status_code == 200
    assert other.patch("/api/user/profile/", {"name": "Bob"}, format="json").status_code == 200
