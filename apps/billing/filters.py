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
    SearchFilter,
    StableOrderingFilter,
    StrictFilterSet,
)
from apps.users.models import Role, User


class _PersonSearchFilter(SearchFilter):
    """Finds a piece of text in what the caller may see of a user."""

    def filter(self, qs: QuerySet[Any], value: str) -> QuerySet[Any]:
        """Return the rows that hold the text."""
        columns = ("username", "name", *(("email",) if _sees_addresses(self) else ()))
        return SearchFilter(columns=columns).filter(qs, value)


class _AddressFilter(django_filters.CharFilter):
    """Finds a user by address, for those who may see addresses: others could guess them."""

    def filter(self, qs: QuerySet[Any], value: str) -> QuerySet[Any]:
        """Return the rows with the address."""
        if not value:
            return qs
        if not _sees_addresses(self):
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
    search = _PersonSearchFilter(columns=("username", "name"))
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


def _sees_addresses(asked: django_filters.Filter) -> bool:
    return getattr(asked.parent.request.user, "role", None) == Role.ADMIN
