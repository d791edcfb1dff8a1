"""What calls were charged after their records had been written, and what was told then of what they
cost: the ledger alone says it.

Such a charge belongs to its call, and so to the moment that it began and to all that it was made
with. Only calls that others ended for their owner can have one: few, and found by their charges.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import date, timedelta
from typing import Any, Final, NamedTuple, TypeVar
from uuid import UUID

from django.db.models import F, QuerySet, Sum

from apps.analytics.parts import in_parts
from apps.analytics.ranges import Range
from apps.audit.models import APIRequest
from apps.audit.totals import Sums, UTCDay
from apps.billing.late_records import read_reason
from apps.billing.models import Entry, EntryKind, TransactionKind

# A charge is posted after its call began, by the clock of another process.
_CLOCKS_APART: Final = timedelta(days=1)

SomeSums = TypeVar("SomeSums", bound=Sums)


class LateCharge(NamedTuple):
    """What one call was charged late, and what its record does not say of what it cost."""

    nanos: int
    cost_nanos: int
    tells_cost: bool  # of which the record knows nothing
    began_on: date  # in UTC
    posted_on: date  # in UTC
    user_id: int
    model_id: int
    provider_id: int | None


class _Posted(NamedTuple):
    nanos: int
    cost_nanos: int | None  # of the whole call
    on: date


def list_late_charges(over: Range, subject: Mapping[str, int]) -> list[LateCharge]:
    """Return the late charges of the calls that began in a range and have `subject` in common."""
    entries = Entry.objects.filter(transaction__created_at__gte=over.start - _CLOCKS_APART)
    calls = APIRequest.objects.filter(
        started_at__gte=over.start, started_at__lt=over.end, **subject
    )
    return _charges_of(calls, _posted(entries))


def list_posted(over: Range) -> list[LateCharge]:
    """Return the late charges that were posted in a range, whenever their calls began."""
    entries = Entry.objects.filter(
        transaction__created_at__gte=over.start, transaction__created_at__lt=over.end
    )
    found = _charges_of(APIRequest.objects.all(), _posted(entries))
    # The record that does not know the cost may be one of another range.
    return [charge._replace(tells_cost=False) for charge in found]


def late_by(
    what: Callable[[LateCharge], Any], charges: Iterable[LateCharge]
) -> dict[Any, list[LateCharge]]:
    """Return the charges by what they have in common."""
    groups: dict[Any, list[LateCharge]] = defaultdict(list)
    for charge in charges:
        groups[what(charge)].append(charge)
    return groups


def with_late(sums: SomeSums, charges: Iterable[LateCharge]) -> SomeSums:
    """Return the sums of some calls with what they were charged late, and cost beside."""
    listed = list(charges)
    return replace(
        sums,
        late_charges_nanos=sum(charge.nanos for charge in listed),
        cost_nanos=sums.cost_nanos + sum(charge.cost_nanos for charge in listed),
        requests_without_cost=sums.requests_without_cost
        - sum(charge.tells_cost for charge in listed),
    )


def _posted(entries: QuerySet[Entry]) -> dict[UUID, _Posted]:
    """Return what was posted late among these entries, by call."""
    rows = (
        entries.filter(kind=EntryKind.LATE, transaction__kind=TransactionKind.LATE_SETTLEMENT)
        .order_by()
        .values_list("request_id", "transaction__reason", UTCDay(F("transaction__created_at")))
        .annotate(nanos=Sum("amount_nanos"))
    )
    # Signed from the customer's side there.
    return {
        request_id: _Posted(-int(nanos), (read_reason(reason) or {}).get("cost_nanos"), day)
        for request_id, reason, day, nanos in rows
        if request_id
    }


def _charges_of(calls: QuerySet[APIRequest], posted: Mapping[UUID, _Posted]) -> list[LateCharge]:
    found: list[LateCharge] = []
    for part in in_parts(posted):
        rows = calls.filter(pk__in=part).values_list(
            "pk", "cost_nanos", UTCDay(F("started_at")), "user_id", "model_id", "provider_id"
        )
        for call_id, recorded, began_on, *who in rows:
            late = posted[call_id]
            beyond = 0 if late.cost_nanos is None else late.cost_nanos - (recorded or 0)
            tells_cost = recorded is None and late.cost_nanos is not None
            found.append(LateCharge(late.nanos, beyond, tells_cost, began_on, late.on, *who))
    return found
