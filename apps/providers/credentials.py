"""Provider keys at rest: sealed with the deployment's encryption keys and bound to their row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypedDict, Unpack

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import transaction
from django.http import HttpRequest

from apps.audit.events import record_event, set_values, values_of
from apps.audit.history import Look, Trace, look_for_calls
from apps.core.crypto import Vault
from apps.core.domain_errors import DomainError, Gone
from apps.core.locks import lock_row
from apps.providers.identities import SCHEMES, KeyUnusable, keep_secret, shown_part
from apps.providers.models import Provider, ProviderKey

KEYS_MAX: Final = 100


class ProviderKeyLimits(TypedDict, total=False):
    """What may go through one key; None is no limit."""

    rpm: int | None
    tpm: int | None
    concurrency: int | None
    daily_cost_nanos: int | None


class SecretMalformed(DomainError):
    """The secret is none of the kind that the provider wants."""

    code = "secret_malformed"
    message = "The provider key cannot be used."


class KeyRequired(DomainError):
    """The stored secret was typed for another address or use: it must be typed for this one."""

    code = "key_required"
    message = "The base URL or the kind of key is another one: type the provider's key again."


class TooManyKeys(DomainError):
    """A provider has as many keys as it may have."""

    status_code = 409
    code = "too_many_keys"
    message = f"A provider has at most {KEYS_MAX} keys."


def add_key(
    *,
    provider: Provider,
    secret: str,
    actor: AbstractBaseUser | None = None,
    name: str = "",
    weight: int = 1,
    is_active: bool = True,
    request: HttpRequest | None = None,
    **limits: Unpack[ProviderKeyLimits],
) -> ProviderKey:
    """Store a new credential of `provider`, sealed. Raises SecretMalformed and TooManyKeys."""
    kept = check_secret(secret, provider.key_header)
    with transaction.atomic():
        # Locked, so that two at once count one after the other.
        lock_provider(provider)
        if provider.keys.count() >= KEYS_MAX:
            raise TooManyKeys
        # The seal is bound to the primary key, which exists only after the insert.
        key = ProviderKey.objects.create(
            provider=provider,
            name=name,
            weight=weight,
            is_active=is_active,
            sealed_secret="",
            last_four=shown_part(kept),
            **limits,
        )
        _seal(key, kept)
        record_event(
            actor=actor,
            action="provider_key.created",
            subject=key,
            after=values_of(key),
            request=request,
        )
    return key


def change_key(
    *,
    key: ProviderKey,
    values: Mapping[str, Any],
    secret: str = "",
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
) -> ProviderKey:
    """Set the given columns (name, weight, is_active, limits) and, where given, another secret.

    Raises SecretMalformed, and KeyRequired where a key that was left behind shall be active again.
    """
    kept = check_secret(secret, key.provider.key_header) if secret else ""
    with transaction.atomic():
        row = lock_key(key)
        if kept:
            _replace(row, kept, actor=actor, request=request)
        old, new = set_values(row, values)
        if row.is_active and row.left_behind_at is not None:
            raise KeyRequired
        if new:
            row.save(update_fields=list(new))
            record_event(
                actor=actor,
                action="provider_key.changed",
                subject=row,
                before=old,
                after=new,
                request=request,
            )
    return row


def delete_key(
    *,
    key: ProviderKey,
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
) -> bool:
    """Delete a key; one that was used is only deactivated. Return whether it was deleted."""
    look = look_for_key(key)
    with transaction.atomic():
        row = lock_key(key)
        if not look.is_called():
            record_event(
                actor=actor,
                action="provider_key.deleted",
                subject=row,
                before=values_of(row),
                request=request,
            )
            row.delete()
            return True
        if row.is_active:
            row.is_active = False
            row.save(update_fields=["is_active"])
            record_event(
                actor=actor,
                action="provider_key.deactivated",
                subject=row,
                before={"is_active": True},
                after={"is_active": False},
                request=request,
            )
    return False


def lock_provider(provider: Provider) -> Provider:
    """Return the row, locked until the end of the transaction. Raises Gone."""
    return lock_row(Provider.objects, provider.pk, gone=Gone)


def lock_key(key: ProviderKey) -> ProviderKey:
    """Return the row, locked until the end of the transaction. Raises Gone."""
    return lock_row(ProviderKey.objects, key.pk, gone=Gone)


def is_used(key: ProviderKey) -> bool:
    """Return whether calls were made with the key, and so it must stay."""
    return look_for_key(key).is_called()


def look_for_key(key: ProviderKey) -> Look:
    """Look for calls that were made with the key."""
    return look_for_calls(
        Trace(
            row_id=key.pk,
            created_at=key.created_at,
            attempts={"provider_key_id": key.pk},
        )
    )


def open_secret(key: ProviderKey) -> str:
    """Return the secret in clear, as it is kept (see `identities`).

    Raises SecretUnreadable when it was damaged or moved.
    """
    return _vault().open(key.sealed_secret, context=key.seal_context)


def check_secret(secret: str, key_header: str = "") -> str:
    """Return what is kept of a secret as it was typed, for a provider of that `key_header`.

    Raises SecretMalformed for what is none of its kind.
    """
    try:
        return keep_secret(secret, scheme_of(key_header), settings.PRIVATE_UPSTREAMS)
    except KeyUnusable as error:
        raise SecretMalformed(str(error)) from error


def scheme_of(key_header: str) -> str:
    """Return what requests are signed with, "" where the key goes into a header as it is."""
    return key_header if key_header in SCHEMES else ""


def _replace(
    key: ProviderKey,
    kept: str,
    *,
    actor: AbstractBaseUser | None,
    request: HttpRequest | None,
) -> None:
    before = {"last_four": key.last_four}
    _seal(key, kept)
    record_event(
        actor=actor,
        action="provider_key.secret_replaced",
        subject=key,
        before=before,
        after={"last_four": key.last_four},
        request=request,
    )


def _seal(key: ProviderKey, kept: str) -> None:
    key.sealed_secret = _vault().seal(kept, context=key.seal_context)
    key.last_four = shown_part(kept)
    key.left_behind_at = None
    # What the provider said about the secret before says nothing about this one.
    key.disabled_at, key.disabled_reason = None, ""
    key.enabled_at = key.next_check_at = None
    key.failed_checks = 0
    key.save(
        update_fields=[
            *("sealed_secret", "last_four", "left_behind_at", "disabled_at", "disabled_reason"),
            *("enabled_at", "next_check_at", "failed_checks"),
        ]
    )


def _vault() -> Vault:
    return Vault.from_text(settings.ENCRYPTION_KEY)
