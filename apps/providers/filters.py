"""Filters of the list of providers."""

from __future__ import annotations

import django_filters

from apps.core.filters import FlagFilter, IdsFilter, SearchFilter, StrictFilterSet
from apps.providers.models import Dialect, LeavingPolicy


class ProviderFilterSet(StrictFilterSet):
    """Filters of providers. Nothing filters by the address, which not every reader may see."""

    id = IdsFilter(field_name="id", label="One or several ids, with commas between them.")
    name = django_filters.CharFilter(field_name="name", max_length=100)
    dialect = django_filters.ChoiceFilter(field_name="dialect", choices=Dialect.choices)
    leaving_policy = django_filters.ChoiceFilter(choices=LeavingPolicy.choices)
    is_active = FlagFilter(field_name="is_active")
    search = SearchFilter(columns=("name",), label="A piece of the name.")
