"""Builds the Snapshot's providers from their rows, and what limits anything at all.

One bad row must not keep the rest of the configuration from loading: it is left out, and said so.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from django.conf import settings

from apps.core.addresses import AllowedNetwork, UrlRefused, check_upstream_url
from apps.core.crypto import Vault
from apps.providers.authorisation import find_authorisation
from apps.providers.headers import HeadersRefused, check_headers
from apps.providers.hosting import find_hosting
from apps.providers.models import LeavingPolicy
from apps.providers.models import Provider as ProviderRow
from apps.proxy.credentials import open_keys
from apps.proxy.dialects.amazon_events import load_parser
from apps.proxy.scopes import cap_of, scope_of
from apps.proxy.snapshot import Provider

RouteHeaders = tuple[tuple[str, str | None], ...]

logger = logging.getLogger(__name__)


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
        credentials, keyless_row = open_keys(row, vault)
        scope = scope_of(f"provider:{row.pk}", row.rpm, row.tpm, row.concurrency)
        hosting = find_hosting(row.dialect, row.base_url)
        if hosting is not None and hosting.is_framed:
            load_parser()  # Here, where no call waits for it.
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
            failures_max=row.failures_max,
            key_strategy=row.key_strategy,
            credentials=credentials,
            keyless_row=keyless_row,
            scope=scope,
            daily_cost_nanos=row.daily_cost_nanos,
            is_limited=any(limit is not None for limit in (scope, *daily))
            or any(key.scope is not None for key in credentials),
            authorisation=find_authorisation(
                row.dialect, row.key_header, is_hosted=hosting is not None
            ),
            hosting=hosting,
            drain_seconds=row.drain_seconds if row.leaving_policy == LeavingPolicy.DRAIN else 0.0,
        )
        found[row.pk] = provider, tuple(headers.items())
    return found
