"""Old pages of providers in the Django admin: their keys stay as they are, secrets where they were.

What holds of old pages of all kinds is in `test_admin_stale_configuration`.
"""

from __future__ import annotations

import pytest
from django.core import signing
from django.test import Client

from apps.audit.models import AdminEvent
from apps.providers.credentials import change_key, open_secret
from apps.providers.models import Provider, ProviderKey
from apps.providers.registration import change_provider, change_row
from tests.support.admin_events import newest_event
from tests.support.house import (
    SECRET,
    House,
    columns_of,
    page_of,
    read_values,
    send_old,
    send_values,
    texts_of,
)


def _provider_of(house: House) -> Provider:
    return house.provider_key.provider


def test_an_old_page_of_a_provider_brings_nothing_back_of_its_keys(
    client: Client, house: House
) -> None:
    key = house.provider_key
    elsewhere = {"weight": 5, "rpm": 3, "is_active": False}
    page = page_of(Provider, "change", key.provider_id)
    old = read_values(client.get(page))
    change_key(key=key, values=elsewhere)
    count = AdminEvent.objects.count()

    send_values(client, page, old, priority="4")
    assert {name: columns_of(key)[name] for name in elsewhere} == elsewhere
    assert newest_event() == ("provider.changed", {"priority": 0}, {"priority": 4})
    send_values(client, page, old, **{"keys-0-name": "second"})

    assert {name: columns_of(key)[name] for name in elsewhere} == elsewhere
    assert newest_event() == ("provider_key.changed", {"name": ""}, {"name": "second"})
    assert AdminEvent.objects.count() == count + 2


def test_a_secret_is_not_kept_for_where_the_provider_has_moved_meanwhile(
    client: Client, house: House
) -> None:
    provider, page = _provider_of(house), page_of(Provider, "change", _provider_of(house).pk)
    old = read_values(client.get(page))
    change_provider(
        provider=provider,
        values={"base_url": "https://new.example.net/v1"},
        secret="sk-there-0123456789",
    )
    before, count = columns_of(house.provider_key), AdminEvent.objects.count()

    refused = send_values(client, page, old, weight="3", **{"keys-0-secret": "sk-for-the-old-one"})

    assert texts_of(refused)[0].startswith("The provider has moved to another address")
    assert columns_of(house.provider_key) == before
    assert columns_of(provider)["weight"] == 1
    assert AdminEvent.objects.count() == count


def test_an_old_page_neither_moves_a_provider_back_nor_uses_keys_left_behind(
    client: Client, house: House
) -> None:
    provider = _provider_of(house)

    def move() -> None:
        values = {"base_url": "https://new.example.net/v1"}
        change_provider(provider=provider, values=values, secret="sk-there-0123456789")

    changed = send_old(client, provider, move, weight="3")

    assert changed.pop("updated_at")
    assert changed == {"weight": 3}
    keys = ProviderKey.objects.order_by("pk").values_list("is_active", flat=True)
    assert list(keys) == [False, True]


def test_a_move_and_a_change_of_a_key_elsewhere_both_count(client: Client, house: House) -> None:
    provider, key = _provider_of(house), house.provider_key

    changed = send_old(
        client, provider, lambda: change_row(provider=provider, values={"priority": 4}),
        base_url="https://new.example.net/v1", **{"keys-0-secret": "sk-CANARY-NEW-0123"},
    )  # fmt: skip

    assert changed.pop("updated_at")
    assert changed == {"base_url": "https://new.example.net/v1"}
    key.refresh_from_db()
    assert (key.is_active, open_secret(key)) == (True, "sk-CANARY-NEW-0123")


@pytest.mark.parametrize("is_inline", [True, False])
def test_what_a_page_has_shown_holds_no_secret(
    client: Client, house: House, is_inline: bool
) -> None:
    key = house.provider_key
    typed = "sk-CANARY-TYPED-0123456789"
    if is_inline:
        page, prefix = page_of(Provider, "change", key.provider_id), "keys-0-"
    else:
        page, prefix = page_of(ProviderKey, "change", key.pk), ""

    fresh = client.get(page)
    # Answered with the form as it was typed: the weight is none.
    wrong = send_values(
        client, page, read_values(fresh), **{f"{prefix}secret": typed, f"{prefix}weight": "x"}
    )

    for answer in (fresh, wrong):
        shown = signing.loads(
            read_values(answer)[f"{prefix}as_shown"],
            salt=f"shown:providers.providerkey:{key.pk}",
        )
        assert shown.keys() == {
            *("name", "weight", "rpm", "tpm", "concurrency", "daily_cost_nanos", "is_active"),
            *("secret", "enable_again"),
        }
        assert shown["secret"] is None
        for secret in (SECRET, key.sealed_secret, typed):
            assert secret not in repr(shown)
            assert secret not in answer.content.decode()
    assert open_secret(ProviderKey.objects.get(pk=key.pk)) == SECRET
