"""What calls were charged after their records had been written: entries of the ledger alone say it.

Such a charge belongs to its call, and so to the moment that it began and to all that it was made
with. Only calls that others ended for their owner can have one: few, and looked up one by one.
"""

from __future__ import annotations

from typing import Any, Final

from django.db.models import OuterRef, QuerySet, Subquery, Sum
from django.db.models.expressions import Combinable

from apps.audit.models import APIRequest, RequestState
from apps.billing.models import Entry, EntryKind

_STATES: Final = (RequestState.INTERRUPTED, RequestState.VOIDED)


def sum_late_charges(calls: QuerySet[APIRequest]) -> int:
    """Return what these calls were charged late in all, in nanos."""
    return -int(_with_late(calls).aggregate(nanos=Sum("late_nanos"))["nanos"] or 0)


def sum_late_charges_by(calls: QuerySet[APIRequest], what: Combinable) -> dict[Any, int]:
    """Return of what calls share what they were charged late, in nanos, where that is something."""
    rows = _with_late(calls).values(what=what).annotate(nanos=Sum("late_nanos"))
    return {row["what"]: -int(row["nanos"]) for row in rows.filter(nanos__lt=0)}


def _with_late(calls: QuerySet[APIRequest]) -> QuerySet[APIRequest]:
    """Return the calls that may have a late charge, each with its entries' sum, below zero."""
    entries = Entry.objects.filter(request_id=OuterRef("pk"), kind=EntryKind.LATE)
    sums = entries.order_by().values("request_id").annotate(nanos=Sum("amount_nanos"))
    late = calls.order_by().filter(state__in=_STATES)
    return late.annotate(late_nanos=Subquery(sums.values("nanos")))
