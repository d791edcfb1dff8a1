"""Registering providers, changing them and moving them to another address.

A stored key is never sent anywhere but to the base URL it was typed for, nor in another way: a move
leaves all keys behind, and none of them becomes active again before its secret is typed once more.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any, Final

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import IntegrityError, transaction
from django.http import HttpRequest
from django.utils import timezone

from apps.audit.events import changed_values, record_event, set_values, values_of
from apps.audit.history import Look, Trace, look_for_calls
from apps.core.addresses import UrlRefused, check_upstream_url
from apps.core.crypto import redact
from apps.core.domain_errors import DomainError
from apps.providers.credentials import (
    KeyRequired,
    add_key,
    check_secret,
    lock_provider,
    scheme_of,
)
from apps.providers.models import Dialect, Provider, ProviderKey

_HOST_LENGTH_MAX: Final = 253
# What stands between "//" (after any userinfo) and path, query or fragment, without the port.
_HOST: Final = re.compile(r"[^/]*//(?:[^/?#\\]*@)?(\[[^\]/?#\\]*\]|[^/?#\\@:]*)", re.ASCII)
# All that a base URL may ask: who reads providers sees it whole, so nothing secret may stand in it.
# Source: https://learn.microsoft.com/en-us/azure/ai-foundry/openai/api-version-lifecycle
_VERSION: Final = re.compile(
    r"api-version=(?:[0-9]{4}-[0-9]{2}-[0-9]{2}(?:-preview)?|latest|preview|v1)"
)


class ProviderExists(DomainError):
    """There is a provider of this name."""

    status_code = 409
    code = "provider_exists"
    message = "A provider with this name already exists."


class BaseUrlRefused(DomainError):
    """The gateway must not connect there. One text for every reason."""

    code = "url_refused"
    message = "This URL is not allowed."


class MovedMeanwhile(DomainError):
    """A key was typed for where the provider was when it was shown."""

    status_code = 409
    code = "moved_meanwhile"
    message = (
        "The provider has moved to another address or way of signing since this page was opened: "
        "nothing was saved. Type the secret again if it is meant for there."
    )


class KeyNotExpected(DomainError):
    """A key came with a change that does not move the provider."""

    code = "key_not_expected"
    message = (
        "A key comes with another base URL or kind of key only. Keys have a path of their own."
    )


def create_provider(
    *,
    name: str,
    base_url: str,
    secret: str,
    dialect: str = Dialect.OPENAI,
    values: Mapping[str, Any] | None = None,
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
) -> Provider:
    """Make a provider with its first key; `values` are further columns.

    Raises ProviderExists, BaseUrlRefused and SecretMalformed.
    """
    admit_base_url(base_url, actor=actor, request=request)
    with transaction.atomic():
        provider = register(
            values={"name": name, "base_url": base_url, "dialect": dialect, **(values or {})},
            actor=actor,
            request=request,
        )
        add_key(provider=provider, secret=secret, actor=actor, request=request)
    return provider


def register(
    *,
    values: Mapping[str, Any],
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
) -> Provider:
    """Make a provider without a key; its base URL has been admitted. Raises ProviderExists."""
    try:
        with transaction.atomic():
            provider = Provider.objects.create(**values)
            record_event(
                actor=actor,
                action="provider.created",
                subject=provider,
                after=values_of(provider),
                request=request,
            )
    except IntegrityError as error:
        if Provider.objects.filter(name=values["name"]).exists():
            raise ProviderExists from error
        raise
    return provider


def change_provider(
    *,
    provider: Provider,
    values: Mapping[str, Any],
    secret: str = "",
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
) -> Provider:
    """Set the given columns and return the provider. A move needs a secret with it.

    Raises ProviderExists, BaseUrlRefused, SecretMalformed, KeyRequired and KeyNotExpected.
    """
    base_url = values.get("base_url", provider.base_url)
    if base_url != provider.base_url:
        admit_base_url(base_url, actor=actor, request=request)
    if secret:
        check_secret(secret, values.get("key_header", provider.key_header))
    with transaction.atomic():
        row, is_move = change_row(provider=provider, values=values, actor=actor, request=request)
        if is_move and not secret:
            raise KeyRequired
        if secret and not is_move:
            raise KeyNotExpected
        if is_move:
            leave_keys_behind(provider=row, except_ids=(), actor=actor, request=request)
            add_key(provider=row, secret=secret, actor=actor, request=request)
    return row


def change_row(
    *,
    provider: Provider,
    values: Mapping[str, Any],
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
) -> tuple[Provider, bool]:
    """Set the given columns; return the provider and whether it moved away from its keys.

    For callers that leave its keys behind then, in the same transaction, and have admitted another
    base URL before. Raises ProviderExists and Gone.
    """
    try:
        with transaction.atomic():
            row = lock_provider(provider)
            is_move = is_moved(row, {**_place_of(row), **values})
            old, new = set_values(row, values)
            if new:
                row.save(update_fields=[*new, "updated_at"])
                record_event(
                    actor=actor,
                    action="provider.changed",
                    subject=row,
                    before=old,
                    after=new,
                    request=request,
                )
    except IntegrityError as error:
        if Provider.objects.exclude(pk=provider.pk).filter(name=values.get("name", "")).exists():
            raise ProviderExists from error
        raise
    return row, is_move


def is_moved(provider: Provider, values: Mapping[str, Any]) -> bool:
    """Return whether keys that were typed for the provider are of no use with these values: it is
    at another base URL, or its requests are signed in another way.
    """
    return bool(
        values["base_url"] != provider.base_url
        or scheme_of(values["key_header"]) != scheme_of(provider.key_header)
    )


def _place_of(provider: Provider) -> dict[str, str]:
    return {"base_url": provider.base_url, "key_header": provider.key_header}


def delete_provider(
    *,
    provider: Provider,
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
) -> bool:
    """Delete a provider with its keys; with history only deactivate it. Return whether deleted."""
    look = look_for_provider(provider)
    with transaction.atomic():
        row = lock_provider(provider)
        if not has_history(row, look):
            for key in row.keys.order_by("id"):
                record_event(
                    actor=actor,
                    action="provider_key.deleted",
                    subject=key,
                    before=values_of(key),
                    request=request,
                )
            record_event(
                actor=actor,
                action="provider.deleted",
                subject=row,
                before=values_of(row),
                request=request,
            )
            row.delete()
            return True
        if row.is_active:
            row.is_active = False
            row.save(update_fields=["is_active", "updated_at"])
            record_event(
                actor=actor,
                action="provider.deactivated",
                subject=row,
                before={"is_active": True},
                after={"is_active": False},
                request=request,
            )
    return False


def has_history(provider: Provider, look: Look | None = None) -> bool:
    """Return whether the provider has routes or calls, and so must stay.

    Inside a transaction with a look before it.
    """
    return provider.routes.exists() or (look or look_for_provider(provider)).is_called()


def look_for_provider(provider: Provider) -> Look:
    """Look for calls that name the provider."""
    return look_for_calls(
        Trace(
            row_id=provider.pk,
            created_at=provider.created_at,
            column="provider_id",
            requests={"provider_id": provider.pk},
            attempts={"provider_id": provider.pk},
        )
    )


def admit_base_url(
    base_url: str,
    *,
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
) -> None:
    """Refuse a URL that must not be connected to, on record. Raises BaseUrlRefused.

    Call it before the transaction of the change, which would take the record along.
    """
    try:
        check_base_url(base_url)
    except BaseUrlRefused:
        record_refused_url(base_url, actor=actor, request=request)
        raise


def check_base_url(base_url: str) -> None:
    """Refuse a URL that must not be connected to, or asks for more than Azure's version of an API.

    Raises BaseUrlRefused.
    """
    try:
        parsed = check_upstream_url(base_url, settings.PRIVATE_UPSTREAMS)
    except UrlRefused as error:
        raise BaseUrlRefused from error
    if parsed.query and _VERSION.fullmatch(parsed.query) is None:
        raise BaseUrlRefused


def record_refused_url(
    base_url: str,
    *,
    provider: Provider | None = None,
    actor: AbstractBaseUser | None,
    request: HttpRequest | None,
) -> None:
    """Record who wanted the gateway to connect to which host."""
    record_event(
        actor=actor,
        action="url.refused",
        subject=provider,
        after={"host": host_of(base_url)},
        request=request,
    )


def host_of(url: str) -> str:
    """Return the host a URL seems to name, "" for none: without whatever could be a secret."""
    found = _HOST.match(url)
    return redact(found[1])[:_HOST_LENGTH_MAX] if found else ""


def leave_keys_behind(
    *,
    provider: Provider,
    except_ids: Collection[int],
    actor: AbstractBaseUser | None,
    request: HttpRequest | None = None,
) -> int:
    """Deactivate the keys that were not typed again when the provider moved; return how many.

    Else whoever may edit a URL could have the stored keys sent to a server of his own.
    """
    with transaction.atomic():
        count = 0
        keys = ProviderKey.objects.select_for_update().filter(provider=provider)
        for key in keys.filter(left_behind_at=None).exclude(pk__in=except_ids).order_by("id"):
            before = values_of(key)
            key.is_active, key.left_behind_at = False, timezone.now()
            key.save(update_fields=["is_active", "left_behind_at"])
            old, new = changed_values(before, values_of(key))
            record_event(
                actor=actor,
                action="provider_key.deactivated",
                subject=key,
                before=old,
                after=new,
                reason="the provider moved to another address",
                request=request,
            )
            count += "is_active" in new
    return count
