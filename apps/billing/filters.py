"""What users can be filtered by."""

from __future__ import annotations

from typing import Any

import django_filters
from django.db.models import QuerySet
from rest_framework.exceptions import ValidationError

from apps.billing.models import ProposalStatus, ProposedAdjustment
from apps.core.filters import (
    TEXT_LENGTH_MAX,
    FlagFilter,
    IdFilter,
    IdsFilter,
    MomentFilter,
    StableOrderingFilter,
    StrictFilterSet,
)
from apps.users.filters import PersonSearchFilter, sees_addresses
from apps.users.models import Role, User


class _AddressFilter(django_filters.CharFilter):
    """Finds a user by address, for those who may see addresses: others could guess them."""

    def filter(self, qs: QuerySet[Any], value: str) -> QuerySet[Any]:
        """Return the rows with the address."""
        if not value:
            return qs
        if not sees_addresses(self):
            raise ValidationError({"email": ["Unknown filter."]}, code="unknown_filter")
        return qs.filter(email=value.lower())


class UserFilterSet(StrictFilterSet):
    """What users can be filtered by. Addresses: only by administrators."""

    id = IdsFilter()
    username = django_filters.CharFilter(max_length=TEXT_LENGTH_MAX)
    email = _AddressFilter(max_length=TEXT_LENGTH_MAX)
    role = django_filters.ChoiceFilter(choices=Role.choices)
    is_active = FlagFilter()
    user_group = IdsFilter(field_name="user_group_id")
    search = PersonSearchFilter(columns=("username", "name", "email"))
    created_after = MomentFilter(field_name="date_joined", lookup_expr="gte")
    created_before = MomentFilter(field_name="date_joined", lookup_expr="lt")
    ordering = StableOrderingFilter(
        fields=(
            ("id", "id"),
            ("username", "username"),
            ("date_joined", "created_at"),
            ("last_login", "last_login"),
        )
    )

    class Meta:
        model = User
        fields: list[str] = []


class ProposedAdjustmentFilterSet(StrictFilterSet):
    """What adjustments that want a second administrator can be filtered by."""

    status = django_filters.ChoiceFilter(choices=ProposalStatus.choices)
    user = IdFilter(field_name="user_id")
    requested_by = IdFilter(field_name="requested_by_id")
    transaction = django_filters.UUIDFilter(field_name="transaction_id")

    class Meta:
        model = ProposedAdjustment
        fields: list[str] = []
