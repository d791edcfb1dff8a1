"""What lists of quotas and of offers can be filtered by."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet

from apps.ai_models.models import AIModel
from apps.core.filters import (
    FlagFilter,
    IdFilter,
    MomentFilter,
    SearchFilter,
    StableOrderingFilter,
    StrictFilterSet,
)
from apps.quotas.models import UserQuota
from apps.users.filters import PersonSearchFilter


class OwnQuotaFilterSet(StrictFilterSet):
    """Filters of one's own quotas."""

    model_group = IdFilter(field_name="model_group_id")
    is_active = FlagFilter()
    expires_before = MomentFilter(field_name="expires_at", lookup_expr="lt")
    expires_after = MomentFilter(field_name="expires_at", lookup_expr="gte")
    is_exhausted = FlagFilter(method="filter_exhausted")
    ordering = StableOrderingFilter(
        fields=(
            ("created_at", "created_at"),
            ("expires_at", "expires_at"),
            ("total_nanos", "total_quota"),
            ("remaining_nanos", "remaining_quota"),
        )
    )

    class Meta:
        model = UserQuota
        fields: list[str] = []

    def filter_exhausted(self, rows: QuerySet[Any], name: str, value: bool) -> QuerySet[Any]:
        """Return the quotas with nothing left, or those with something left."""
        return rows.filter(remaining_nanos__lte=0) if value else rows.filter(remaining_nanos__gt=0)


class QuotaFilterSet(OwnQuotaFilterSet):
    """Filters of all quotas."""

    user = IdFilter(field_name="user_id")
    search = PersonSearchFilter(
        columns=("user__username", "user__name", "user__email", "model_group__name")
    )


class OfferFilterSet(StrictFilterSet):
    """Filters of the models that one may call."""

    search = SearchFilter(columns=("name", "display_name"))

    class Meta:
        model = AIModel
        fields: list[str] = []
