"""Calls recorded as gateways record them: each under an incarnation, in its chain."""

from __future__ import annotations

from typing import Any

from django.db.models import F
from django.utils import timezone

from apps.audit.models import APIRequest
from apps.billing.models import Incarnation
from tests.support import calls


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
