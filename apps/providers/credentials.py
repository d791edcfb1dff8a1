"""Provider keys at rest: sealed with the deployment's encryption keys and bound to their row."""

from __future__ import annotations

import re
from typing import Final

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import transaction
from django.http import HttpRequest

from apps.audit.events import record_event, values_of
from apps.core.crypto import Vault
from apps.core.domain_errors import DomainError
from apps.providers.models import Provider, ProviderKey

# A secret goes into a header: no white space, no control characters.
_SECRET: Final = re.compile(r"[\x21-\x7e]{1,4096}", re.ASCII)


class SecretMalformed(DomainError):
    """The secret could not be sent in a header."""

    code = "secret_malformed"
    message = "A provider key is 1 to 4096 printable ASCII characters without spaces."


def add_key(
    *,
    provider: Provider,
    secret: str,
    actor: AbstractBaseUser | None = None,
    name: str = "",
    weight: int = 1,
    is_active: bool = True,
    request: HttpRequest | None = None,
) -> ProviderKey:
    """Store a new credential of `provider`, sealed. Raises SecretMalformed."""
    check_secret(secret)
    with transaction.atomic():
        # The seal is bound to the primary key, which exists only after the insert.
        key = ProviderKey.objects.create(
            provider=provider,
            name=name,
            weight=weight,
            is_active=is_active,
            sealed_secret="",
            last_four=_last_four(secret),
        )
        _seal(key, secret)
        record_event(
            actor=actor,
            action="provider_key.created",
            subject=key,
            after=values_of(key),
            request=request,
        )
    return key


def replace_secret(
    *,
    key: ProviderKey,
    secret: str,
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
) -> None:
    """Put another secret in the place of the old one. Raises SecretMalformed."""
    check_secret(secret)
    with transaction.atomic():
        before = {"last_four": key.last_four}
        _seal(key, secret)
        record_event(
            actor=actor,
            action="provider_key.secret_replaced",
            subject=key,
            before=before,
            after={"last_four": key.last_four},
            request=request,
        )


def open_secret(key: ProviderKey) -> str:
    """Return the secret in clear. Raises SecretUnreadable when it was damaged or moved."""
    return _vault().open(key.sealed_secret, context=key.seal_context)


def check_secret(secret: str) -> None:
    """Refuse what cannot be a header value. Raises SecretMalformed."""
    if not _SECRET.fullmatch(secret):
        raise SecretMalformed


def _seal(key: ProviderKey, secret: str) -> None:
    key.sealed_secret = _vault().seal(secret, context=key.seal_context)
    key.last_four = _last_four(secret)
    key.save(update_fields=["sealed_secret", "last_four"])


def _vault() -> Vault:
    return Vault.from_text(settings.ENCRYPTION_KEY)


def _last_four(secret: str) -> str:
    # Four characters of a short secret would be a good part of it.
    return secret[-4:] if len(secret) >= 16 else ""
