"""Tests of registering, changing, moving and deleting providers and their keys."""

from __future__ import annotations

import pytest
from pytest_django import Settings

from apps.audit.models import AdminEvent, Attempt
from apps.core.domain_errors import DomainError
from apps.core.ids import new_uuid7
from apps.providers.credentials import (
    KEYS_MAX,
    KeyRequired,
    TooManyKeys,
    add_key,
    change_key,
    delete_key,
    open_secret,
)
from apps.providers.models import Provider, ProviderKey
from apps.providers.registration import (
    BaseUrlRefused,
    KeyNotExpected,
    ProviderExists,
    change_provider,
    create_provider,
    delete_provider,
    host_of,
)

SECRET = "sk-CANARY-UP-0123456789"
FRESH = "sk-CANARY-NEW-abcdefghijk"
URL = "https://api.example.com/v1"


@pytest.fixture
def provider(db: None) -> Provider:
    """Return a provider with a key."""
    return create_provider(name="somewhere", base_url=URL, secret=SECRET)


def _events() -> list[str]:
    """Return the actions since the provider and its key were made."""
    return list(AdminEvent.objects.order_by("id").values_list("action", flat=True))[2:]


def _use(key: ProviderKey) -> None:
    Attempt.objects.create(
        request_id=new_uuid7(),
        number=1,
        route_id=1,
        provider_id=key.provider_id,
        provider_name="somewhere",
        provider_key_id=key.pk,
        upstream_model="small",
        started_at=key.created_at,
        duration_ms=1,
        status_code=200,
        outcome="ok",
        error_text="",
        upstream_request_id="",
    )


@pytest.mark.parametrize(
    "base_url", ["https://evil.example.net/v1", "https://api.example.com/v2", f"{URL}/"]
)
def test_any_other_address_needs_the_key_again(provider: Provider, base_url: str) -> None:
    with pytest.raises(KeyRequired):
        change_provider(provider=provider, values={"base_url": base_url, "priority": 4})

    provider.refresh_from_db()
    assert (provider.base_url, provider.priority) == (URL, 0)
    assert provider.keys.get().is_active
    assert _events() == []


def test_a_move_leaves_all_keys_behind(provider: Provider) -> None:
    idle = add_key(provider=provider, secret=SECRET, is_active=False)
    active = provider.keys.exclude(pk=idle.pk).get()

    moved = change_provider(
        provider=provider, values={"base_url": "https://new.example.net/v1"}, secret=FRESH
    )

    assert moved.base_url == "https://new.example.net/v1"
    typed = provider.keys.get(is_active=True)
    assert open_secret(typed) == FRESH
    assert set(provider.keys.filter(left_behind_at__isnull=False)) == {idle, active}
    assert _events() == [
        "provider_key.created",
        "provider.changed",
        "provider_key.deactivated",
        "provider_key.deactivated",
        "provider_key.created",
    ]


def test_a_key_left_behind_works_again_only_with_its_secret(provider: Provider) -> None:
    key = provider.keys.get()
    change_provider(provider=provider, values={"base_url": f"{URL}/new"}, secret=FRESH)

    with pytest.raises(KeyRequired):
        change_key(key=key, values={"is_active": True, "weight": 5})

    key.refresh_from_db()
    assert (key.is_active, key.weight) == (False, 1)
    changed = change_key(key=key, values={"is_active": True}, secret="sk-typed-again-0123456")
    assert (changed.is_active, changed.left_behind_at) == (True, None)
    assert open_secret(changed) == "sk-typed-again-0123456"


def test_a_key_comes_with_a_move_only(provider: Provider) -> None:
    for values in ({"priority": 1}, {"base_url": URL}):
        with pytest.raises(KeyNotExpected):
            change_provider(provider=provider, values=values, secret=FRESH)

    assert provider.keys.count() == 1


def test_a_name_that_is_taken_is_refused(provider: Provider) -> None:
    other = create_provider(name="elsewhere", base_url=URL, secret=SECRET)

    with pytest.raises(ProviderExists):
        create_provider(name="elsewhere", base_url=URL, secret=SECRET)
    with pytest.raises(ProviderExists):
        change_provider(provider=provider, values={"name": other.name})


def test_nothing_changed_is_not_recorded(provider: Provider) -> None:
    change_provider(provider=provider, values={"name": "somewhere", "priority": 0})
    change_key(key=provider.keys.get(), values={"weight": 1})

    assert _events() == []


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://127.0.0.1:8080/v1?key=sk-CANARY-UP-0123456789", "127.0.0.1"),
        ("https://api.example.com/v1?key=sk-CANARY-UP-0123456789", "api.example.com"),
        ("https://a.example/v1?api-version=sk-CANARY-UP-0123456789", "a.example"),
        ("https://a.example/v1?api-version=2024-10-21&code=CANARY", "a.example"),
        ("https://a.example/v1?api-version=2024-10-21%26code=CANARY", "a.example"),
        ("https://user:sk-CANARY-UP-0123456789@10.0.0.1/path", "10.0.0.1"),
        ("http://127.0.0.1#@good", "127.0.0.1"),
        ("http://[::1]:80/", "[::1]"),
        ("file:///etc/passwd", ""),
        ("sk-CANARY-UP-0123456789", ""),
        ("https://sk-CANARY-UP-0123456789/", "[redacted]"),
        ("", ""),
    ],
)
def test_a_refused_url_is_on_record_by_its_host_only(
    provider: Provider, settings: Settings, url: str, host: str
) -> None:
    settings.PRIVATE_UPSTREAMS = ()

    with pytest.raises(BaseUrlRefused) as made:
        create_provider(name="inside", base_url=url, secret=SECRET)
    with pytest.raises(BaseUrlRefused) as moved:
        change_provider(provider=provider, values={"base_url": url}, secret=FRESH)

    assert host_of(url) == host
    events = AdminEvent.objects.filter(action="url.refused")
    assert [event.after for event in events] == [{"host": host}] * 2
    assert str(made.value) == str(moved.value) == "This URL is not allowed."
    assert "CANARY" not in repr(list(AdminEvent.objects.values()))
    assert Provider.objects.get().base_url == URL


@pytest.mark.parametrize("version", ["2024-10-21", "2025-04-01-preview", "preview", "latest", "v1"])
def test_a_base_url_may_name_the_version_of_azures_api(provider: Provider, version: str) -> None:
    url = f"https://NAME.openai.azure.com/openai/deployments/{{model}}?api-version={version}"

    made = create_provider(name="azure", base_url=url, secret=SECRET)
    change_provider(provider=provider, values={"base_url": url}, secret=FRESH)

    provider.refresh_from_db()
    assert (made.base_url, provider.base_url) == (url, url)
    assert "url.refused" not in _events()


def test_an_unused_provider_goes_with_its_keys(provider: Provider) -> None:
    assert delete_provider(provider=provider)

    assert (Provider.objects.count(), ProviderKey.objects.count()) == (0, 0)
    assert _events() == ["provider_key.deleted", "provider.deleted"]


def test_a_provider_with_history_is_deactivated(provider: Provider) -> None:
    _use(provider.keys.get())

    assert not delete_provider(provider=provider)
    assert not delete_provider(provider=provider)

    provider.refresh_from_db()
    assert not provider.is_active
    assert _events() == ["provider.deactivated"]


def test_a_used_key_is_deactivated_and_an_unused_one_deleted(provider: Provider) -> None:
    used, unused = provider.keys.get(), add_key(provider=provider, secret=FRESH)
    _use(used)

    answers = [delete_key(key=used), delete_key(key=used), delete_key(key=unused)]

    assert answers == [False, False, True]
    assert list(provider.keys.values_list("pk", "is_active")) == [(used.pk, False)]
    assert _events() == [
        "provider_key.created",
        "provider_key.deactivated",
        "provider_key.deleted",
    ]


def test_a_provider_has_a_bounded_number_of_keys(provider: Provider) -> None:
    ProviderKey.objects.bulk_create([ProviderKey(provider=provider) for _ in range(KEYS_MAX - 1)])

    with pytest.raises(TooManyKeys):
        add_key(provider=provider, secret=FRESH)

    assert provider.keys.count() == KEYS_MAX


def test_what_is_gone_meanwhile_is_not_found(provider: Provider) -> None:
    key = provider.keys.get()
    Provider.objects.filter(pk=provider.pk).delete()

    for change in (
        lambda: change_provider(provider=provider, values={"priority": 1}),
        lambda: delete_provider(provider=provider),
        lambda: change_key(key=key, values={"weight": 2}),
        lambda: delete_key(key=key),
        lambda: add_key(provider=provider, secret=FRESH),
    ):
        with pytest.raises(DomainError) as caught:
            change()
        assert (caught.value.status_code, caught.value.code) == (404, "not_found")
