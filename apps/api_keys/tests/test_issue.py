"""Tests of issuing API keys."""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import timedelta

import pytest
from django.conf import settings
from django.db import connection
from django.utils import timezone

from apps.api_keys.issue import (
    KeyExists,
    KeyMalformed,
    NetworkMalformed,
    OperationUnknown,
    checksum,
    digest_of,
    issue_key,
    make_raw_key,
    reset_default_key,
)
from apps.api_keys.models import APIKey
from apps.audit.models import AdminEvent
from tests.support.people import make_user


def test_a_key_has_a_prefix_and_ends_in_its_checksum() -> None:
    raw = make_raw_key()

    assert re.fullmatch(r"sk-audit-[0-9A-Za-z]{32}", raw)
    assert checksum(raw[:-6]) == raw[-6:]


def test_the_checksum_is_the_crc32_in_base62() -> None:
    # CRC-32 of "123456789" is 0xCBF43926 = 3421780262.
    assert checksum("123456789") == "3jZRME"


def test_the_digest_is_keyed() -> None:
    expected = hmac.new(settings.API_KEY_PEPPER, b"sk-audit-x", hashlib.sha256).digest()

    assert digest_of("sk-audit-x") == expected


@pytest.mark.usefixtures("db")
def test_only_the_digest_and_the_ends_of_a_key_are_stored() -> None:
    key, raw = issue_key(user=make_user(), name="laptop")

    stored = APIKey.objects.get(pk=key.pk)
    assert bytes(stored.digest) == digest_of(raw)
    assert (stored.prefix, stored.last_four) == (raw[:13], raw[-4:])
    assert raw not in _dump("api_keys_apikey")
    assert raw not in _dump("audit_adminevent")
    assert bytes(stored.digest).hex() not in _dump("audit_adminevent")


@pytest.mark.usefixtures("db")
def test_of_a_short_given_key_next_to_nothing_is_shown() -> None:
    key, raw = issue_key(user=make_user(), name="demo", raw="sk-demo1234")

    assert raw == "sk-demo1234"
    assert (key.prefix, key.last_four) == ("sk-", "")


@pytest.mark.usefixtures("db")
def test_a_key_can_be_given_once_only() -> None:
    issue_key(user=make_user(), name="demo", raw="sk-demo1234")

    with pytest.raises(KeyExists):
        issue_key(user=make_user(), name="demo", raw="sk-demo1234")
    assert APIKey.objects.count() == 1


@pytest.mark.parametrize("raw", ["", "sk-", "demo-12345678", "sk-a b c d e", "sk-ключ1234"])
def test_what_is_no_key_is_refused(raw: str, db: None) -> None:
    with pytest.raises(KeyMalformed):
        issue_key(user=make_user(), name="demo", raw=raw)


@pytest.mark.usefixtures("db")
def test_what_is_no_network_is_refused() -> None:
    with pytest.raises(NetworkMalformed):
        issue_key(user=make_user(), name="demo", allowed_networks=["10.0.0.0/8", "elsewhere"])
    assert APIKey.objects.count() == 0


@pytest.mark.usefixtures("db")
def test_what_is_no_operation_is_refused() -> None:
    with pytest.raises(OperationUnknown):
        issue_key(user=make_user(), name="demo", allowed_operations=["chat", "chats"])
    assert APIKey.objects.count() == 0


@pytest.mark.usefixtures("db")
def test_a_new_default_leaves_the_old_key_valid() -> None:
    user = make_user()
    first, _ = issue_key(user=user, name="first", is_default=True)

    second, _ = issue_key(user=user, name="second", is_default=True)

    first.refresh_from_db()
    assert (first.is_default, first.is_active) == (False, True)
    assert (second.is_default, second.is_active) == (True, True)


@pytest.mark.usefixtures("db")
def test_resetting_ends_the_old_default_and_keeps_its_limits() -> None:
    user = make_user()
    old, old_raw = issue_key(user=user, name="main", is_default=True, cap_nanos=7, rpm=60)
    other, _ = issue_key(user=user, name="other")

    new, raw = reset_default_key(user=user, actor=user)

    old.refresh_from_db()
    other.refresh_from_db()
    assert (old.is_default, old.is_active) == (False, False)
    assert (new.is_default, new.is_active, new.name) == (True, True, "main")
    assert (new.cap_nanos, new.rpm) == (7, 60)
    assert (other.is_default, other.is_active) == (False, True)
    assert raw != old_raw
    assert list(
        AdminEvent.objects.filter(actor_id=user.pk).order_by("id").values_list("action", flat=True)
    ) == ["api_key.deactivated", "api_key.created"]


@pytest.mark.usefixtures("db")
@pytest.mark.parametrize(("days", "is_kept"), [(1, True), (-1, False), (None, False)])
def test_resetting_keeps_an_expiry_that_is_still_ahead(days: int | None, is_kept: bool) -> None:
    user = make_user()
    expires_at = None if days is None else timezone.now() + timedelta(days=days)
    issue_key(user=user, name="main", is_default=True, expires_at=expires_at)

    new, _ = reset_default_key(user=user, actor=user)

    assert new.expires_at == (expires_at if is_kept else None)


@pytest.mark.usefixtures("db")
def test_resetting_without_a_default_makes_one() -> None:
    user = make_user()

    key, _ = reset_default_key(user=user, actor=None)

    assert (key.is_default, key.name) == (True, "default")


def _dump(table: str) -> str:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT * FROM {table}")  # noqa: S608  # a table named by this test
        return repr([[_text(value) for value in row] for row in cursor.fetchall()])


def _text(value: object) -> object:
    return bytes(value).hex() if isinstance(value, bytes | memoryview) else value


def test_keys_that_begin_and_end_alike_are_told_apart() -> None:
    raws = [f"sk-audit-same{number:06d}same" for number in range(50_000)]

    digests = {digest_of(raw) for raw in raws}

    assert len(digests) == len(raws)
