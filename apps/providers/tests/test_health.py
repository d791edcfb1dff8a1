"""Keys that providers refuse are disabled, asked again with growing patience, and enabled again."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from django.db import IntegrityError, transaction

from apps.audit.models import AdminEvent
from apps.providers import tasks
from apps.providers.asking import ProviderFailed, ask_for_models
from apps.providers.credentials import add_key, change_key
from apps.providers.health import (
    NotDisabled,
    check_after,
    check_key,
    disable_key,
    enable_key,
    list_due_keys,
)
from apps.providers.models import DisabledReason, Provider, ProviderKey
from apps.providers.tests.listener import Listener, response

SECRET = "sk-CANARY-UP-0123456789"
NOW = datetime(2026, 6, 1, 12, 0, tzinfo=UTC)
SOON = NOW + timedelta(seconds=60)


@pytest.fixture
def key(db: None) -> ProviderKey:
    """Return a key of a provider at which nobody listens."""
    provider = Provider.objects.create(name="somewhere", base_url="http://127.0.0.1:1/v1")
    return add_key(provider=provider, secret=SECRET)


def disable(
    key: ProviderKey, reason: DisabledReason = DisabledReason.AUTH, now: datetime = NOW
) -> bool:
    """Report the key as a gateway does, and read it again."""
    done = disable_key(key_id=key.pk, secret=SECRET, reason=reason, now=now)
    key.refresh_from_db()
    return done


def list_events() -> list[AdminEvent]:
    """Return what happened since the key was made, in order."""
    return list(AdminEvent.objects.exclude(action="provider_key.created").order_by("id"))


def test_a_refused_key_is_disabled_by_the_system_on_record(key: ProviderKey) -> None:
    assert disable(key, DisabledReason.BALANCE)

    assert (key.is_active, key.disabled_at, key.disabled_reason) == (True, NOW, "balance")
    assert key.next_check_at == SOON
    (event,) = list_events()
    assert (event.actor_name, event.action) == ("system", "provider_key.disabled")
    assert event.reason == "the account behind the key is empty"
    assert event.before == {"disabled_at": None, "disabled_reason": ""}
    assert event.after == {"disabled_at": NOW.isoformat(), "disabled_reason": "balance"}


def test_several_gateways_that_report_the_same_disable_it_once(key: ProviderKey) -> None:
    assert [disable(key), disable(key, DisabledReason.BALANCE, SOON)] == [True, False]

    assert (key.disabled_at, key.disabled_reason) == (NOW, "auth")
    assert len(list_events()) == 1


def test_a_secret_that_was_replaced_meanwhile_is_not_to_blame(key: ProviderKey) -> None:
    change_key(key=key, values={}, secret="sk-fresh-0123456789abcdef")

    assert not disable(key)

    assert key.disabled_at is None
    assert [event.action for event in list_events()] == ["provider_key.secret_replaced"]


def test_keys_that_are_gone_or_not_in_use_are_left_alone(key: ProviderKey) -> None:
    ProviderKey.objects.filter(pk=key.pk).update(is_active=False)

    assert not disable(key)
    assert not disable_key(key_id=0, secret=SECRET, reason=DisabledReason.AUTH, now=NOW)
    assert (key.disabled_at, list_events()) == (None, [])


def test_a_new_secret_makes_a_disabled_key_usable(key: ProviderKey) -> None:
    disable(key)

    change_key(key=key, values={}, secret="sk-fresh-0123456789abcdef")

    key.refresh_from_db()
    assert (key.disabled_at, key.disabled_reason, key.next_check_at) == (None, "", None)


def test_enabling_by_hand_is_for_what_was_disabled_automatically(key: ProviderKey) -> None:
    with pytest.raises(NotDisabled):
        enable_key(key=key)
    assert list_events() == []

    disable(key)
    enable_key(key=key)

    key.refresh_from_db()
    assert (key.disabled_at, key.disabled_reason) == (None, "")
    assert [event.action for event in list_events()] == [
        "provider_key.disabled",
        "provider_key.enabled",
    ]


def test_a_reason_without_a_time_cannot_be_stored(key: ProviderKey) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        ProviderKey.objects.filter(pk=key.pk).update(disabled_reason="auth")


@pytest.mark.parametrize(
    ("interval", "failed", "seconds"),
    [(60, 0, 60), (60, 1, 120), (60, 5, 1_920), (60, 6, 3_600), (60, 99, 3_600), (7_200, 3, 7_200)],
)
def test_checks_are_further_and_further_apart_up_to_an_hour(
    interval: int, failed: int, seconds: int
) -> None:
    wait = check_after(check_seconds=interval, failed_checks=failed)

    assert wait == timedelta(seconds=seconds)


def test_a_check_that_succeeds_enables_the_key_by_the_system(key: ProviderKey) -> None:
    with Listener(response()) as listener:
        Provider.objects.update(base_url=listener.base_url)
        disable(key)
        key.provider.refresh_from_db()

        assert check_key(key=key, now=SOON)
        head = listener.heard[0]

    assert head.startswith(b"GET /v1/models ")
    assert f"Bearer {SECRET}".encode() in head
    key.refresh_from_db()
    assert key.disabled_at is None
    last = list_events()[-1]
    assert (last.actor_name, last.action) == ("system", "provider_key.enabled")
    assert last.reason == "a health check succeeded"


def test_a_check_that_fails_leaves_the_key_and_waits_twice_as_long(key: ProviderKey) -> None:
    with Listener(response(b"{}", "401 Unauthorized")) as listener:
        Provider.objects.update(base_url=listener.base_url)
        disable(key)
        key.provider.refresh_from_db()

        assert not check_key(key=key, now=SOON)

    key.refresh_from_db()
    assert key.disabled_at == NOW
    assert key.next_check_at == SOON + timedelta(seconds=120)
    assert [event.action for event in list_events()] == ["provider_key.disabled"]


def test_of_two_checks_at_once_only_one_asks(key: ProviderKey) -> None:
    with Listener(response(b"{}", "401 Unauthorized")) as listener:
        Provider.objects.update(base_url=listener.base_url)
        disable(key)
        again = ProviderKey.objects.select_related("provider").get(pk=key.pk)
        key.provider.refresh_from_db()

        results = [check_key(key=key, now=SOON), check_key(key=again, now=SOON)]

        assert (results, listener.connections) == ([False, False], 1)


def test_a_key_that_is_refused_again_soon_is_checked_less_often(key: ProviderKey) -> None:
    with Listener(response()) as listener:
        Provider.objects.update(base_url=listener.base_url)
        key.provider.refresh_from_db()
        waits = []
        for _ in range(3):
            now = datetime.now(UTC)
            disable(key, DisabledReason.BALANCE, now)
            assert key.next_check_at is not None
            waits.append((key.next_check_at - now).total_seconds())
            assert check_key(key=key, now=key.next_check_at)
            key.refresh_from_db()

    assert waits == [60, 120, 240]


def test_only_what_is_due_and_wanted_is_checked(key: ProviderKey) -> None:
    disable(key)

    def due(at: datetime = SOON) -> list[int]:
        return [one.pk for one in list_due_keys(now=at, count_max=10)]

    assert due(SOON - timedelta(seconds=1)) == []
    assert due() == [key.pk]

    ProviderKey.objects.update(is_active=False)
    assert due() == []

    ProviderKey.objects.update(is_active=True, left_behind_at=NOW)
    assert due() == []

    ProviderKey.objects.update(left_behind_at=None)
    Provider.objects.update(check_seconds=0)
    assert due() == []


def test_without_checks_nothing_is_planned(key: ProviderKey) -> None:
    Provider.objects.update(check_seconds=0)

    disable(key)

    assert key.next_check_at is None


def test_the_task_asks_with_every_key_that_is_due(key: ProviderKey) -> None:
    with Listener(response()) as listener:
        Provider.objects.update(base_url=listener.base_url)
        disable(key)

        assert [tasks.check_keys(), tasks.check_keys()] == [1, 0]
        assert listener.connections == 1


def test_a_provider_is_asked_with_a_disabled_key_only_where_there_is_no_other(
    key: ProviderKey,
) -> None:
    with Listener(response()) as listener:
        Provider.objects.update(base_url=listener.base_url)
        disable(key)
        provider = Provider.objects.get()
        ask_for_models(provider)
        add_key(provider=provider, secret="sk-the-second-0123456789")
        ask_for_models(provider)
        heads = listener.heard

    assert SECRET.encode() in heads[0]
    assert b"sk-the-second-0123456789" in heads[1]


def test_questions_carry_the_headers_of_the_provider_like_calls(key: ProviderKey) -> None:
    provider = key.provider
    with Listener(response()) as listener:
        provider.base_url = listener.base_url
        provider.headers = {"OpenAI-Organization": "org-1", "accept": "text/plain"}
        ask_for_models(provider)
        provider.headers = {"authorization": "Bearer other"}
        with pytest.raises(ProviderFailed):
            ask_for_models(provider)

    (heard,) = listener.heard
    lines = heard.decode().lower().split("\r\n")
    assert "openai-organization: org-1" in lines
    assert [line for line in lines if line.startswith("accept:")] == ["accept: text/plain"]
    assert f"authorization: bearer {SECRET}".lower() in lines
