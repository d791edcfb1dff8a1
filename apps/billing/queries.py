"""Recorded calls with what only the ledger knows of them: one query for a page of any length."""

from __future__ import annotations

from typing import Any

from django.db.models import BigIntegerField, F, OuterRef, QuerySet, Subquery, Sum
from django.db.models.functions import Cast, Coalesce

from apps.audit.models import APIRequest
from apps.billing.models import Entry, EntryKind


def list_calls() -> QuerySet[Any]:
    """Return recorded calls with `late_charges_nanos`: what they were charged beyond their records.

    It costs an index look-up for each row that is shown.
    """
    entries = Entry.objects.filter(request_id=OuterRef("pk"), kind=EntryKind.LATE)
    # Signed from the customer's side there.
    charged = entries.order_by().values("request_id").annotate(nanos=Sum(-F("amount_nanos")))
    # PostgreSQL's sum of 64-bit numbers is a decimal.
    late = Cast(Coalesce(Subquery(charged.values("nanos")), 0), BigIntegerField())
    return APIRequest.objects.annotate(late_charges_nanos=late)
