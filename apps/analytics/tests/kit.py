"""Calls recorded as gateways record them: each under an incarnation, in its chain."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from django.db.models import F
from django.utils import timezone

from apps.analytics.ranges import Range
from apps.audit.models import APIRequest
from apps.billing.models import Incarnation
from tests.support import calls

MIDNIGHT: Final = datetime(2026, 11, 20, tzinfo=UTC)
DAY: Final = timedelta(days=1)
# When the calls that are made up began.
WEEK: Final = Range(MIDNIGHT - 3 * DAY, MIDNIGHT + 4 * DAY)


def start_incarnation() -> Incarnation:
    """Write the lease of a gateway that has recorded nothing yet."""
    now = timezone.now()
    return Incarnation.objects.create(
        kind="gateway", host="here", pid=1, started_at=now, renewed_at=now, expires_at=now
    )


def record(incarnation: Incarnation, **changes: Any) -> APIRequest:
    """Write the next call of an incarnation's chain."""
    Incarnation.objects.filter(pk=incarnation.pk).update(sequence=F("sequence") + 1)
    incarnation.refresh_from_db()
    return calls.record_call(
        incarnation_id=incarnation.pk, sequence=incarnation.sequence, **changes
    )


def record_call(**changes: Any) -> APIRequest:
    """Write the next call of the only incarnation there is."""
    return record(Incarnation.objects.first() or start_incarnation(), **changes)


def make_up(source: random.Random) -> dict[str, Any]:
    """Return what a call may be: some end days after they began, some have no provider, no cost."""
    started_at = WEEK.start + source.random() * (WEEK.end - WEEK.start)
    user, provider = source.randrange(1, 4), source.choice((None, 3, 4))
    return {
        "started_at": started_at,
        "settled_at": started_at + source.choice((timedelta(seconds=9), timedelta(hours=30))),
        "user_id": user,
        "user_name": f"user {user}",
        "api_key_id": 10 * user + source.randrange(3),
        "model_id": (model := source.randrange(1, 6)),
        "requested_model": f"model {model}",
        "provider_id": provider,
        "provider_name": "" if provider is None else f"provider {provider}",
        "state": source.choice(("completed", "failed")),
        "charge_nanos": source.randrange(10**9),
        "cost_nanos": source.choice((None, source.randrange(10**9))),
        "input_tokens": source.randrange(1_000),
        "cache_read_tokens": source.randrange(1_000),
        "reasoning_tokens": source.randrange(1_000),
    }
