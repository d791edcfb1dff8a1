"""Quotas and API keys as screens show them: the same few queries for a page of any length."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from django.db.models import Case, F, OuterRef, QuerySet, Subquery, When
from django.db.models.functions import Coalesce

from apps.api_keys.models import APIKey
from apps.audit.models import APIRequest
from apps.billing.models import SpendCounter
from apps.quotas.models import UserQuota

KEY_SCOPE: Final = "api_key"


def list_quotas() -> QuerySet[UserQuota]:
    """Return quotas with `used_nanos`, `held_nanos` and `remaining_nanos`, as of one moment."""
    return (
        UserQuota.objects.select_related("user", "model_group")
        .annotate(
            used_nanos=F("total_nanos") - F("account__posted_nanos"),
            held_nanos=F("account__held_nanos"),
            remaining_nanos=F("account__posted_nanos") - F("account__held_nanos"),
        )
        .order_by("-id")
    )


def list_keys() -> QuerySet[APIKey]:
    """Return keys with `last_used_at`, and `spent_nanos` and `held_nanos` where they are counted.

    For a few keys: what is added costs an index look-up for each row, also for those passed over.
    """
    counter = SpendCounter.objects.filter(scope=KEY_SCOPE, scope_id=OuterRef("pk"))
    newest = APIRequest.objects.filter(api_key_id=OuterRef("pk")).order_by("-started_at")
    return APIKey.objects.select_related("user").annotate(
        spent_nanos=_zero_under_a_cap(Subquery(counter.values("spent_nanos")[:1])),
        held_nanos=_zero_under_a_cap(Subquery(counter.values("held_nanos")[:1])),
        last_used_at=Subquery(newest.values("started_at")[:1]),
    )


def _zero_under_a_cap(counted: Subquery) -> Case:
    """Return what is counted; with the first call under a cap it begins to be, at zero."""
    return Case(When(cap_nanos=None, then=counted), default=Coalesce(counted, 0))


def add_use(page: Sequence[APIKey]) -> list[APIKey]:
    """Return the keys of a page, in their order, as `list_keys` gives them."""
    found = list_keys().in_bulk([key.pk for key in page])
    return [found[key.pk] for key in page if key.pk in found]
