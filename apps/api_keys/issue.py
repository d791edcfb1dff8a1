"""Issuing API keys: the raw key leaves this module once, only a keyed digest stays.

A key is `sk-audit-` and 32 base62 characters; the last six are a checksum of all before them, for
secret scanners only: nothing is refused by it.
"""

from __future__ import annotations

import binascii
import ipaddress
import re
import secrets
import string
from datetime import datetime
from typing import Final, TypedDict, Unpack

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import IntegrityError, transaction
from django.http import HttpRequest
from django.utils import timezone

from apps.api_keys.models import APIKey
from apps.api_keys.operations import KEY_OPERATIONS
from apps.audit.events import changed_values, record_event, values_of
from apps.core.crypto import keyed_digest
from apps.core.domain_errors import DomainError
from apps.users.models import User

KEY_PREFIX: Final = "sk-audit-"
_ALPHABET: Final = string.digits + string.ascii_uppercase + string.ascii_lowercase
_RANDOM_LENGTH: Final = 26
_CHECKSUM_LENGTH: Final = 6
_RAW_KEY: Final = re.compile(r"sk-[A-Za-z0-9_\-]{4,252}", re.ASCII)


class KeyExists(DomainError):
    """The given raw key is already in use."""

    status_code = 409
    code = "key_exists"
    message = "This API key already exists."


class KeyMalformed(DomainError):
    """The given raw key does not look like one."""

    code = "key_malformed"
    message = "An API key is sk- and 4 to 252 letters, digits, - or _."


class NetworkMalformed(DomainError):
    """An allowed network cannot be read."""

    code = "network_malformed"
    message = "An allowed network is an address such as 10.0.0.7 or a network such as 10.0.0.0/8."


class OperationUnknown(DomainError):
    """An allowed operation is none."""

    code = "operation_unknown"
    message = f"An allowed operation is one of {', '.join(KEY_OPERATIONS)}."


class KeyLimits(TypedDict, total=False):
    """What a key may be restricted to; the fields of APIKey."""

    expires_at: datetime | None
    allowed_models: list[str]
    allowed_networks: list[str]
    allowed_operations: list[str]
    cap_nanos: int | None
    rpm: int | None
    tpm: int | None
    concurrency: int | None
    payload_mode: str
    cache_seconds: int | None


def make_raw_key() -> str:
    """Return a new random key."""
    body = KEY_PREFIX + "".join(secrets.choice(_ALPHABET) for _ in range(_RANDOM_LENGTH))
    return body + checksum(body)


def checksum(text: str) -> str:
    """Return the CRC-32 of `text` as six base62 characters."""
    number = binascii.crc32(text.encode())
    digits = ""
    for _ in range(_CHECKSUM_LENGTH):
        number, digit = divmod(number, len(_ALPHABET))
        digits = _ALPHABET[digit] + digits
    return digits


def digest_of(raw: str) -> bytes:
    """Return what is stored and looked up instead of the raw key."""
    return keyed_digest(settings.API_KEY_PEPPER, raw)


def issue_key(
    *,
    user: User,
    name: str,
    is_default: bool = False,
    raw: str | None = None,
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
    **limits: Unpack[KeyLimits],
) -> tuple[APIKey, str]:
    """Make a key for `user` and return it with the raw key, which nothing can show again.

    A new default takes the place of the old one, which stays valid. Raises KeyExists, KeyMalformed,
    NetworkMalformed and OperationUnknown.
    """
    raw = make_raw_key() if raw is None else raw
    if not _RAW_KEY.fullmatch(raw):
        raise KeyMalformed
    check_lists(limits)
    shown, last_four = _shown_parts(raw)
    try:
        with transaction.atomic():
            if is_default:
                lock_owner(user.pk)
                _retire_default(user, actor, request)
            key = APIKey.objects.create(
                user=user,
                name=name,
                digest=digest_of(raw),
                prefix=shown,
                last_four=last_four,
                is_default=is_default,
                **limits,
            )
            record_event(
                actor=actor,
                action="api_key.created",
                subject=key,
                after=values_of(key),
                request=request,
            )
    except IntegrityError as error:
        if APIKey.objects.filter(digest=digest_of(raw)).exists():
            raise KeyExists from error
        raise
    return key, raw


def reset_default_key(
    *, user: User, actor: AbstractBaseUser | None, request: HttpRequest | None = None
) -> tuple[APIKey, str]:
    """Replace the default key: the old one stops working, the new one keeps its limits.

    The owner can enable the old one again unless somebody else has replaced it.
    """
    with transaction.atomic():
        lock_owner(user.pk)
        old = APIKey.objects.filter(user=user, is_default=True).first()
        limits: KeyLimits = {}
        if old is not None:
            before = values_of(old)
            old.is_default = old.is_active = False
            if actor is None or actor.pk != user.pk:
                old.locked_at = old.locked_at or timezone.now()
            old.save(update_fields=["is_default", "is_active", "locked_at"])
            before, after = changed_values(before, values_of(old))
            record_event(
                actor=actor,
                action="api_key.deactivated",
                subject=old,
                before=before,
                after=after,
                reason="reset of the default key",
                request=request,
            )
            limits = _limits_of(old, timezone.now())
        return issue_key(
            user=user,
            name=old.name if old is not None else "default",
            is_default=True,
            actor=actor,
            request=request,
            **limits,
        )


def check_lists(limits: KeyLimits) -> None:
    """Refuse restrictions that name nothing. Raises NetworkMalformed and OperationUnknown."""
    check_networks(limits.get("allowed_networks", []))
    if not set(limits.get("allowed_operations", [])) <= set(KEY_OPERATIONS):
        raise OperationUnknown


def check_networks(networks: list[str]) -> None:
    """Refuse what is neither an address nor a network. Raises NetworkMalformed."""
    for text in networks:
        try:
            ipaddress.ip_network(text)
        except ValueError as error:
            raise NetworkMalformed from error


def lock_owner(user_id: int) -> None:
    """Let one change of a user's keys at a time go on, until the transaction ends.

    Two resets at once would both see no default and collide on the unique constraint.
    """
    User.objects.select_for_update(no_key=True).only("pk").filter(pk=user_id).first()


def _retire_default(
    user: User, actor: AbstractBaseUser | None, request: HttpRequest | None
) -> None:
    old = APIKey.objects.filter(user=user, is_default=True).first()
    if old is None:
        return
    APIKey.objects.filter(pk=old.pk).update(is_default=False)
    record_event(
        actor=actor,
        action="api_key.changed",
        subject=old,
        before={"is_default": True},
        after={"is_default": False},
        request=request,
    )


def _limits_of(key: APIKey, now: datetime) -> KeyLimits:
    # An expiry that has passed would make the new key useless.
    is_ahead = key.expires_at is not None and key.expires_at > now
    return {
        "expires_at": key.expires_at if is_ahead else None,
        "allowed_models": key.allowed_models,
        "allowed_networks": key.allowed_networks,
        "allowed_operations": key.allowed_operations,
        "cap_nanos": key.cap_nanos,
        "rpm": key.rpm,
        "tpm": key.tpm,
        "concurrency": key.concurrency,
        "payload_mode": key.payload_mode,
        "cache_seconds": key.cache_seconds,
    }


def _shown_parts(raw: str) -> tuple[str, str]:
    """Return the prefix and last characters to show: few enough of a short key to stay safe."""
    if raw.startswith(KEY_PREFIX) and len(raw) >= len(KEY_PREFIX) + 20:
        return raw[: len(KEY_PREFIX) + 4], raw[-4:]
    return raw[:3], raw[-4:] if len(raw) >= 24 else ""
