"""What lists of API keys can be filtered by."""

from __future__ import annotations

from typing import Any

import django_filters
from django.db.models import Q, QuerySet, TextField
from django.db.models.functions import Cast
from django.utils import timezone

from apps.api_keys.models import APIKey
from apps.api_keys.operations import KEY_OPERATIONS
from apps.core.filters import (
    FlagFilter,
    IdFilter,
    SearchFilter,
    StableOrderingFilter,
    StrictFilterSet,
)
from apps.users.models import User


class OwnKeyFilterSet(StrictFilterSet):
    """Filters of one's own keys."""

    is_active = FlagFilter()
    is_default = FlagFilter()
    expired = FlagFilter(method="filter_expired")
    operation = django_filters.ChoiceFilter(
        choices=[(name, name) for name in KEY_OPERATIONS],
        method="filter_operation",
        label="Those that may be used for it.",
    )
    prefix = django_filters.CharFilter(max_length=16)
    last_four = django_filters.CharFilter(max_length=4)
    search = SearchFilter(columns=("name",))
    ordering = StableOrderingFilter(
        fields=(("name", "name"), ("created_at", "created_at"), ("expires_at", "expires_at"))
    )

    class Meta:
        model = APIKey
        fields: list[str] = []

    def filter_expired(self, rows: QuerySet[Any], name: str, value: bool) -> QuerySet[Any]:
        """Return the keys that have expired, or those that have not."""
        now = timezone.now()
        if value:
            return rows.filter(expires_at__lte=now)
        return rows.filter(Q(expires_at__isnull=True) | Q(expires_at__gt=now))

    def filter_operation(self, rows: QuerySet[Any], name: str, value: str) -> QuerySet[Any]:
        """Return the keys that may be used for an operation: it is named, or nothing is."""
        # As text: SQLite cannot look into a list, and the words need no escaping.
        rows = rows.alias(operations=Cast("allowed_operations", TextField()))
        return rows.filter(Q(operations="[]") | Q(operations__contains=f'"{value}"'))


class _KeySearchFilter(SearchFilter):
    """Searches people by themselves: joined to their keys, each would be read several times."""

    def filter(self, qs: QuerySet[Any], value: str) -> QuerySet[Any]:
        """Return the keys whose name or user holds the text."""
        if not value:
            return qs
        people = SearchFilter(columns=("username", "name", "email")).filter(
            User.objects.all(), value
        )
        return qs.filter(Q(name__icontains=value) | Q(user__in=people.values("pk")))


class KeyFilterSet(OwnKeyFilterSet):
    """Filters of all keys."""

    user = IdFilter(field_name="user_id")
    search = _KeySearchFilter(columns=())
