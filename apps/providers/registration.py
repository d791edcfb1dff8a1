"""Registering providers and moving them to another address."""

from __future__ import annotations

from collections.abc import Collection

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import IntegrityError, transaction
from django.http import HttpRequest

from apps.audit.events import record_event, values_of
from apps.core.addresses import UrlRefused, check_upstream_url
from apps.core.domain_errors import DomainError
from apps.providers.credentials import add_key
from apps.providers.models import Dialect, Provider, ProviderKey


class ProviderExists(DomainError):
    """There is a provider of this name."""

    status_code = 409
    code = "provider_exists"
    message = "A provider with this name already exists."


class BaseUrlRefused(DomainError):
    """The gateway must not connect there. One text for every reason."""

    code = "url_refused"
    message = "This URL is not allowed."


def create_provider(
    *,
    name: str,
    base_url: str,
    secret: str,
    dialect: str = Dialect.OPENAI,
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
) -> Provider:
    """Make a provider with its first key.

    Raises ProviderExists, BaseUrlRefused and SecretMalformed.
    """
    check_base_url(base_url)
    try:
        with transaction.atomic():
            provider = Provider.objects.create(name=name, base_url=base_url, dialect=dialect)
            record_event(
                actor=actor,
                action="provider.created",
                subject=provider,
                after=values_of(provider),
                request=request,
            )
            add_key(provider=provider, secret=secret, actor=actor, request=request)
    except IntegrityError as error:
        if Provider.objects.filter(name=name).exists():
            raise ProviderExists from error
        raise
    return provider


def check_base_url(base_url: str) -> str:
    """Return the URL's origin, or refuse it. Raises BaseUrlRefused."""
    try:
        parsed = check_upstream_url(base_url, settings.PRIVATE_UPSTREAMS)
    except UrlRefused as error:
        raise BaseUrlRefused from error
    if parsed.query:
        raise BaseUrlRefused
    return parsed.origin


def deactivate_keys_of_old_origin(
    *,
    provider: Provider,
    except_ids: Collection[int],
    actor: AbstractBaseUser | None,
    request: HttpRequest | None = None,
) -> int:
    """Deactivate the keys that were not typed again after the provider moved to another origin.

    Else whoever may edit a URL could have the stored keys sent to a server of his own.
    """
    with transaction.atomic():
        count = 0
        for key in ProviderKey.objects.filter(provider=provider, is_active=True).exclude(
            pk__in=except_ids
        ):
            ProviderKey.objects.filter(pk=key.pk).update(is_active=False)
            record_event(
                actor=actor,
                action="provider_key.deactivated",
                subject=key,
                before={"is_active": True},
                after={"is_active": False},
                reason="the provider moved to another address",
                request=request,
            )
            count += 1
    return count
