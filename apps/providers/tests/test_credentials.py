"""Tests of provider keys at rest."""

from __future__ import annotations

import pytest
from django.db.models import Prefetch

from apps.audit.models import AdminEvent
from apps.core.crypto import SecretUnreadable
from apps.providers.credentials import SecretMalformed, add_key, change_key, open_secret
from apps.providers.models import Provider, ProviderKey

SECRET = "sk-CANARY-UP-0123456789"


@pytest.fixture
def provider(db: None) -> Provider:
    """Return a provider."""
    return Provider.objects.create(name="somewhere", base_url="https://api.example.com/v1")


def test_a_secret_is_sealed_and_opens_again(provider: Provider) -> None:
    key = ProviderKey.objects.get(pk=add_key(provider=provider, secret=SECRET).pk)

    assert open_secret(key) == SECRET
    assert "CANARY" not in key.sealed_secret
    assert key.last_four == "6789"
    assert str(key) == "somewhere …6789"


def test_ciphertext_moved_to_another_row_does_not_open(provider: Provider) -> None:
    first = add_key(provider=provider, secret=SECRET)
    second = add_key(provider=provider, secret="sk-other-0123456789")

    ProviderKey.objects.filter(pk=second.pk).update(sealed_secret=first.sealed_secret)

    second.refresh_from_db()
    with pytest.raises(SecretUnreadable):
        open_secret(second)


def test_a_replaced_secret_is_gone(provider: Provider) -> None:
    key = add_key(provider=provider, secret=SECRET)
    old = key.sealed_secret

    change_key(key=key, values={}, secret="sk-fresh-abcdefghijkl")

    key.refresh_from_db()
    assert open_secret(key) == "sk-fresh-abcdefghijkl"
    assert (key.last_four, key.sealed_secret == old) == ("ijkl", False)


def test_events_about_keys_hold_neither_secret_nor_ciphertext(provider: Provider) -> None:
    key = add_key(provider=provider, secret=SECRET)
    key = change_key(key=key, values={}, secret="sk-CANARY-NEW-0123456789")

    events = repr(list(AdminEvent.objects.values()))
    assert "CANARY" not in events
    assert key.sealed_secret not in events
    assert list(AdminEvent.objects.order_by("id").values_list("action", flat=True)) == [
        "provider_key.created",
        "provider_key.secret_replaced",
    ]


@pytest.mark.parametrize("secret", ["", "two words", "line\nbreak", "ключ", "x" * 4_097])
def test_what_cannot_be_a_header_value_is_refused(provider: Provider, secret: str) -> None:
    with pytest.raises(SecretMalformed):
        add_key(provider=provider, secret=secret)
    assert ProviderKey.objects.count() == 0


def test_of_a_short_secret_nothing_is_shown(provider: Provider) -> None:
    assert add_key(provider=provider, secret="short").last_four == ""


def test_keys_come_oldest_first_in_whatever_order_the_database_has_them(provider: Provider) -> None:
    ids = [add_key(provider=provider, secret=f"sk-{number}-0123456789").pk for number in range(3)]
    youngest_first = Prefetch("keys", ProviderKey.objects.order_by("-id"))

    found = Provider.objects.prefetch_related(youngest_first).get()

    assert [key.pk for key in found.keys.all()] == ids[::-1]
    assert [key.pk for key in found.keys_by_age] == ids
