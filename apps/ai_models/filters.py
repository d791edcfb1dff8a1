"""Filters of the lists of models and routes."""

from __future__ import annotations

from typing import Any, Final

import django_filters
from django.db.models import Exists, OuterRef, QuerySet, Subquery
from django.utils import timezone

from apps.ai_models.models import AIModel, PriceVersion, Strategy
from apps.core.filters import (
    FlagFilter,
    IdsFilter,
    SearchFilter,
    StableOrderingFilter,
    StrictFilterSet,
)

_NAME_LENGTH_MAX: Final = 200


class MembersFilter(IdsFilter):
    """Filters by any of several related rows, without repeating a row that has two of them."""

    def filter(self, qs: QuerySet[Any], value: list[Any]) -> QuerySet[Any]:
        """Return the rows that are related to one of them."""
        if not value:
            return qs
        related = qs.model._default_manager.filter(**{f"{self.field_name}__in": value})
        return qs.filter(pk__in=related.values("pk"))


class PricedFilter(FlagFilter):
    """Filters models by whether a price for input and output counts now."""

    def filter(self, qs: QuerySet[AIModel], value: bool | None) -> QuerySet[AIModel]:
        """Return the models with, or without, such a price."""
        if value is None:
            return qs
        newest = (
            PriceVersion.objects.filter(model=OuterRef("model"), effective_at__lte=timezone.now())
            .order_by("-effective_at", "-id")
            .values("id")
        )
        priced = PriceVersion.objects.filter(
            model=OuterRef("pk"),
            id=Subquery(newest[:1]),
            input_nanos__isnull=False,
            output_nanos__isnull=False,
        )
        return qs.filter(Exists(priced) if value else ~Exists(priced))


class ModelFilterSet(StrictFilterSet):
    """Filters of the list of models."""

    name = django_filters.CharFilter(max_length=_NAME_LENGTH_MAX)
    is_active = FlagFilter()
    provider = MembersFilter(field_name="routes__provider", label="Ids, with commas between them.")
    model_group = MembersFilter(field_name="model_groups", label="Ids, with commas between them.")
    strategy = django_filters.ChoiceFilter(choices=Strategy.choices)
    is_sticky = FlagFilter()
    is_priced = PricedFilter(label="Whether it has a price for input and output now.")
    search = SearchFilter(columns=("name", "display_name", "description"))
    ordering = StableOrderingFilter(fields=("position", "name", "created_at"))


class RouteFilterSet(StrictFilterSet):
    """Filters of the list of routes."""

    model = IdsFilter(label="Ids, with commas between them.")
    provider = IdsFilter(label="Ids, with commas between them.")
    is_active = FlagFilter()
    search = SearchFilter(columns=("upstream_name", "model__name", "provider__name"))
    ordering = StableOrderingFilter(fields=("model__name", "priority", "created_at"))
