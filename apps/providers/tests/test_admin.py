"""Tests of providers in the Django admin: by the same rules as over REST."""

from __future__ import annotations

import pytest
from django.test import Client
from django.utils import timezone
from pytest_django import Settings

from apps.audit.models import AdminEvent
from apps.providers.models import Provider, ProviderKey
from tests.support.house import House, make_house, page_of, send


@pytest.fixture
def house(db: None) -> House:
    """Return one of everything."""
    return make_house()


@pytest.fixture
def client(house: House) -> Client:
    """Return a browser signed in as the administrator."""
    browser = Client()
    browser.force_login(house.root)
    return browser


def test_a_refused_address_is_on_record(client: Client, house: House, settings: Settings) -> None:
    settings.PRIVATE_UPSTREAMS = ()
    path = page_of(Provider, "change", house.provider_key.provider_id)

    answer = send(client, path, base_url="http://someone:secret@127.0.0.1:8080/v1")

    assert "This URL is not allowed." in answer.content.decode()
    event = AdminEvent.objects.latest("id")
    assert (event.action, event.after) == ("url.refused", {"host": "127.0.0.1"})
    assert event.actor_id == house.root.pk


@pytest.mark.parametrize("is_inline", [True, False])
def test_a_key_left_behind_is_not_ticked_active_again(
    client: Client, house: House, is_inline: bool
) -> None:
    provider = page_of(Provider, "change", house.provider_key.provider_id)
    send(client, provider, base_url="https://evil.example.net/v1")
    if is_inline:
        path, prefix = provider, "keys-0-"
    else:
        path, prefix = page_of(ProviderKey, "change", house.provider_key.pk), ""

    refused = send(client, path, **{f"{prefix}is_active": "on"})
    assert "type the provider&#x27;s key again" in refused.content.decode()
    assert not ProviderKey.objects.get().is_active

    send(client, path, **{f"{prefix}is_active": "on", f"{prefix}secret": "sk-again-0123456789"})
    key = ProviderKey.objects.get()
    assert (key.is_active, key.left_behind_at, key.last_four) == (True, None, "6789")


@pytest.mark.parametrize("is_inline", [True, False])
def test_a_key_that_was_disabled_automatically_is_enabled_by_a_tick(
    client: Client, house: House, is_inline: bool
) -> None:
    key = house.provider_key
    ProviderKey.objects.update(disabled_at=timezone.now(), disabled_reason="auth")
    if is_inline:
        path, prefix = page_of(Provider, "change", key.provider_id), "keys-0-"
    else:
        path, prefix = page_of(ProviderKey, "change", key.pk), ""

    send(client, path, **{f"{prefix}weight": "2"})
    assert ProviderKey.objects.get().disabled_reason == "auth"

    send(client, path, **{f"{prefix}enable_again": "on"})
    assert ProviderKey.objects.get().disabled_at is None
    event = AdminEvent.objects.latest("id")
    assert (event.action, event.actor_id) == ("provider_key.enabled", house.root.pk)
