"""Provider keys change their encryption key while others write, or not at all (C2)."""

from __future__ import annotations

import base64

import pytest
from pytest_django import Settings

from apps.audit.models import AdminEvent
from apps.core.crypto import SecretUnreadable, Vault, key_id
from apps.providers import rotation
from apps.providers.credentials import add_key, change_key, open_secret
from apps.providers.models import Provider, ProviderKey
from apps.providers.rotation import (
    KeysUnreadable,
    Rotation,
    count_keys_in_use,
    reseal_provider_keys,
)

OLD, NEW, OTHER = bytes(range(32)), bytes(range(1, 33)), bytes(range(2, 34))


def use(settings: Settings, *keys: bytes) -> None:
    settings.ENCRYPTION_KEY = ",".join(base64.b64encode(key).decode() for key in keys)


@pytest.fixture
def provider_keys(db: None, settings: Settings) -> list[ProviderKey]:
    """Five keys, sealed with the old encryption key."""
    use(settings, OLD)
    provider = Provider.objects.create(name="somewhere", base_url="https://api.example.com/v1")
    return [add_key(provider=provider, secret=f"sk-secret-number-{n}") for n in range(5)]


def secrets() -> list[str]:
    return [open_secret(key) for key in ProviderKey.objects.order_by("pk")]


def test_everything_is_sealed_with_the_first_key_and_says_the_same(
    provider_keys: list[ProviderKey], settings: Settings
) -> None:
    use(settings, NEW, OLD)
    before = count_keys_in_use()

    done = reseal_provider_keys()

    use(settings, NEW)
    assert before == {key_id(OLD): 5}
    assert done == Rotation(resealed=5, skipped=0)
    assert count_keys_in_use() == {key_id(NEW): 5}
    assert secrets() == [f"sk-secret-number-{n}" for n in range(5)]


def test_each_batch_is_on_record_without_secrets(
    provider_keys: list[ProviderKey], settings: Settings
) -> None:
    use(settings, NEW, OLD)

    reseal_provider_keys(batch_rows=2)

    events = AdminEvent.objects.filter(action="provider_key.resealed").order_by("id")
    ids = [key.pk for key in provider_keys]
    batches = [ids[:2], ids[2:4], ids[4:]]
    assert list(events.values_list("before", "after")) == [
        (
            {"encryption_keys": [key_id(OLD)]},
            {"encryption_key": key_id(NEW), "provider_keys": batch},
        )
        for batch in batches
    ]


def test_a_second_run_changes_nothing_and_records_nothing(
    provider_keys: list[ProviderKey], settings: Settings
) -> None:
    use(settings, NEW, OLD)
    reseal_provider_keys()
    sealed = list(ProviderKey.objects.order_by("pk").values_list("sealed_secret", flat=True))
    events = AdminEvent.objects.count()

    done = reseal_provider_keys()

    assert done == Rotation(resealed=0, skipped=0)
    assert AdminEvent.objects.count() == events
    assert sealed == list(
        ProviderKey.objects.order_by("pk").values_list("sealed_secret", flat=True)
    )


def test_a_secret_that_was_replaced_meanwhile_is_not_overwritten(
    provider_keys: list[ProviderKey], settings: Settings
) -> None:
    use(settings, NEW, OLD)
    read_before = list(ProviderKey.objects.order_by("pk"))
    change_key(
        key=ProviderKey.objects.get(pk=provider_keys[0].pk), values={}, secret="sk-newer-secret-9"
    )

    resealed, skipped = rotation._reseal(read_before, Vault((NEW, OLD)))

    assert (resealed, skipped) == (4, 1)
    assert secrets()[0] == "sk-newer-secret-9"


@pytest.mark.parametrize("at_hand", [(NEW,), (NEW, OTHER)])
def test_without_the_key_that_sealed_them_nothing_changes(
    provider_keys: list[ProviderKey], settings: Settings, at_hand: tuple[bytes, ...]
) -> None:
    add_key(provider=provider_keys[0].provider, secret="sk-of-the-new-key-00")
    use(settings, *at_hand)
    events = AdminEvent.objects.count()

    with pytest.raises(KeysUnreadable) as raised:
        reseal_provider_keys()

    assert "6 provider keys open with none of the keys in ENCRYPTION_KEY" in str(raised.value)
    assert count_keys_in_use() == {key_id(OLD): 6}
    assert AdminEvent.objects.count() == events


def test_one_damaged_secret_stops_all(provider_keys: list[ProviderKey], settings: Settings) -> None:
    use(settings, NEW, OLD)
    key = provider_keys[2]
    changed = key.sealed_secret[:-6] + ("A" if key.sealed_secret[-6] != "A" else "B")
    ProviderKey.objects.filter(pk=key.pk).update(sealed_secret=changed + key.sealed_secret[-5:])

    with pytest.raises(KeysUnreadable) as raised:
        reseal_provider_keys()

    assert f"1 provider keys open with none of the keys in ENCRYPTION_KEY (ids {key.pk})" in str(
        raised.value
    )
    assert count_keys_in_use() == {key_id(OLD): 5}
    with pytest.raises(SecretUnreadable):
        open_secret(ProviderKey.objects.get(pk=key.pk))
