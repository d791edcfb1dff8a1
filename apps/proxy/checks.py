"""Health checks of providers of which routes rest: one that answers again is tried at once.

A list of models says that a provider can be reached and takes the key, not that a model works. So
a check that succeeds only ends the rest: the next call of every gateway is a probe, and a probe
that fails rests for longer than the one before. Rests that a provider asked for are not touched.
"""

from __future__ import annotations

from datetime import datetime

from django.db.models import Max, Min, Q

from apps.providers.asking import (
    NoActiveKey,
    ProviderFailed,
    StoredKeyUnreadable,
    ask_for_models,
)
from apps.providers.health import check_after
from apps.providers.models import Provider
from apps.providers.outgoing import Resolve, resolve_name
from apps.providers.registration import BaseUrlRefused
from apps.proxy.models import CircuitRest
from apps.proxy.rests import end_rests


def list_due_providers(*, now: datetime) -> list[Provider]:
    """Return the providers that are to be asked now, the longest due first."""
    rows = (
        CircuitRest.objects.filter(ends_at__gt=now, openings__gt=0)
        .values("provider_id")
        .annotate(due_at=Max("next_check_at"), began_at=Min("began_at"))
    )
    found = {row["provider_id"]: row for row in rows}
    providers = Provider.objects.filter(pk__in=found, is_active=True, check_seconds__gt=0)
    due: list[tuple[datetime, Provider]] = []
    for provider in providers:
        row = found[provider.pk]
        first = row["began_at"] + check_after(check_seconds=provider.check_seconds, failed_checks=0)
        due_at = row["due_at"] or first
        if due_at <= now:
            due.append((due_at, provider))
    return [provider for _, provider in sorted(due, key=lambda one: (one[0], one[1].pk))]


def check_provider(*, provider: Provider, now: datetime, resolve: Resolve = resolve_name) -> bool:
    """Ask a provider for its models; end the rests of its routes where it answers.

    Return whether it did. Asks outside of transactions. Of two checks at once only one asks.
    """
    resting = CircuitRest.objects.filter(provider_id=provider.pk, ends_at__gt=now, openings__gt=0)
    failed = resting.aggregate(most=Max("failed_checks"))["most"]
    if failed is None:
        return False
    wait = check_after(check_seconds=provider.check_seconds, failed_checks=failed + 1)
    is_due = Q(next_check_at=None) | Q(next_check_at__lte=now)
    if not resting.filter(is_due).update(next_check_at=now + wait, failed_checks=failed + 1):
        return False
    try:
        ask_for_models(provider, resolve=resolve)
    except (ProviderFailed, BaseUrlRefused, NoActiveKey, StoredKeyUnreadable):
        return False
    count = end_rests(Q(provider_id=provider.pk, openings__gt=0), now=now)
    return count > 0
