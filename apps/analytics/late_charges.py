"""What calls were charged after their records had been written: entries of the ledger alone say it.

Such a charge belongs to its call, and so to the moment that it began and to all that it was made
with. Only calls that others ended for their owner can have one: few, and found by their charges.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, timedelta
from typing import Final, NamedTuple
from uuid import UUID

from django.db.models import F, Sum

from apps.analytics.parts import in_parts
from apps.analytics.ranges import Range
from apps.audit.models import APIRequest
from apps.audit.totals import UTCDay
from apps.billing.models import Entry, EntryKind, TransactionKind

# A charge is posted after its call began, by the clock of another process.
_CLOCKS_APART: Final = timedelta(days=1)


class LateCharge(NamedTuple):
    """What one call was charged late."""

    nanos: int
    day: date  # on which the call began, in UTC
    user_id: int
    model_id: int
    provider_id: int | None


def list_late_charges(over: Range, subject: Mapping[str, int]) -> list[LateCharge]:
    """Return the late charges of the calls that began in a range and have `subject` in common."""
    entries = (
        Entry.objects.filter(
            kind=EntryKind.LATE,
            transaction__kind=TransactionKind.LATE_SETTLEMENT,
            transaction__created_at__gte=over.start - _CLOCKS_APART,
        )
        .order_by()
        .values_list("request_id")
        .annotate(nanos=Sum("amount_nanos"))
    )
    # Signed from the customer's side there.
    charges = {request_id: -int(nanos) for request_id, nanos in entries if request_id}
    found: list[LateCharge] = []
    for part in in_parts(charges):
        found += _charges_of(part, charges, over, subject)
    return found


def _charges_of(
    ids: list[UUID], charges: Mapping[UUID, int], over: Range, subject: Mapping[str, int]
) -> list[LateCharge]:
    calls = APIRequest.objects.filter(
        pk__in=ids, started_at__gte=over.start, started_at__lt=over.end, **subject
    ).values_list("pk", UTCDay(F("started_at")), "user_id", "model_id", "provider_id")
    return [LateCharge(charges[call_id], *rest) for call_id, *rest in calls]
