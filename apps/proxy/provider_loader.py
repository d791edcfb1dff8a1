"""Builds the Snapshot's providers from their rows, and what limits anything at all.

One bad row must not keep the rest of the configuration from loading: it is left out, and said so.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from django.conf import settings

from apps.billing.ledger.commands import Cap, CapScope
from apps.core.addresses import AllowedNetwork, UrlRefused, check_upstream_url
from apps.core.crypto import SecretUnreadable, Vault
from apps.providers.headers import HeadersRefused, check_headers
from apps.providers.models import LeavingPolicy
from apps.providers.models import Provider as ProviderRow
from apps.proxy.snapshot import Credential, Provider
from apps.quotas.limits import Scope

RouteHeaders = tuple[tuple[str, str | None], ...]

logger = logging.getLogger(__name__)


def scope_of(name: str, rpm: int | None, tpm: int | None, concurrency: int | None) -> Scope | None:
    """Return what limits a thing, None where nothing does."""
    if rpm is None and tpm is None and concurrency is None:
        return None
    return Scope(name, rpm, tpm, concurrency)


def cap_of(scope: CapScope, scope_id: int, nanos: int | None) -> Cap | None:
    """Return what a thing may spend in all, None where it may spend anything."""
    return None if nanos is None else Cap(scope, scope_id, nanos)


def load_providers() -> dict[int, tuple[Provider, RouteHeaders]]:
    """Return the providers that can be called by id, each with its headers."""
    vault = Vault.from_text(settings.ENCRYPTION_KEY)
    private: tuple[AllowedNetwork, ...] = settings.PRIVATE_UPSTREAMS
    found: dict[int, tuple[Provider, RouteHeaders]] = {}
    for row in ProviderRow.objects.filter(is_active=True).prefetch_related("keys"):
        try:
            url = check_upstream_url(row.base_url, private)
        except UrlRefused:
            logger.error("provider %s is left out: its URL is not allowed", row.name)
            continue
        try:
            headers: Mapping[str, str | None] = check_headers(row.headers)
        except HeadersRefused as error:
            logger.error("provider %s is left out: %s", row.name, error)
            continue
        credentials = []
        for key in row.keys.all():
            if not key.is_active:
                continue
            try:
                secret = vault.open(key.sealed_secret, context=key.seal_context)
            except SecretUnreadable as error:
                logger.error("a key of provider %s is left out: %s", row.name, error)
                continue
            credentials.append(
                Credential(
                    id=key.pk,
                    weight=key.weight,
                    secret=secret,
                    scope=scope_of(f"provider_key:{key.pk}", key.rpm, key.tpm, key.concurrency),
                    daily_cost_nanos=key.daily_cost_nanos,
                )
            )
        scope = scope_of(f"provider:{row.pk}", row.rpm, row.tpm, row.concurrency)
        daily = [row.daily_cost_nanos, *(key.daily_cost_nanos for key in credentials)]
        provider = Provider(
            id=row.pk,
            name=row.name,
            url=url,
            base_url=row.base_url.rstrip("/"),
            dialect=row.dialect,
            payload_mode=row.payload_mode,
            connect_timeout_seconds=row.connect_timeout_seconds,
            first_byte_timeout_seconds=row.first_byte_timeout_seconds,
            idle_timeout_seconds=row.idle_timeout_seconds,
            total_timeout_seconds=row.total_timeout_seconds,
            cap=cap_of("provider", row.pk, row.cap_nanos),
            credentials=tuple(credentials),
            scope=scope,
            daily_cost_nanos=row.daily_cost_nanos,
            is_limited=any(limit is not None for limit in (scope, *daily))
            or any(key.scope is not None for key in credentials),
            drain_seconds=row.drain_seconds if row.leaving_policy == LeavingPolicy.DRAIN else 0.0,
        )
        found[row.pk] = provider, tuple(headers.items())
    return found
