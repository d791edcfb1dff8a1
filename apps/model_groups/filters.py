"""Filters of the list of model groups."""

from __future__ import annotations

from typing import Final

import django_filters

from apps.ai_models.filters import MembersFilter
from apps.core.filters import (
    FlagFilter,
    SearchFilter,
    StableOrderingFilter,
    StrictFilterSet,
)

_NAME_LENGTH_MAX: Final = 100


class ModelGroupFilterSet(StrictFilterSet):
    """Filters of the list of model groups."""

    name = django_filters.CharFilter(max_length=_NAME_LENGTH_MAX)
    is_public = FlagFilter()
    is_active = FlagFilter()
    model = MembersFilter(field_name="models", label="Ids, with commas between them.")
    user_group = MembersFilter(field_name="user_groups", label="Ids, with commas between them.")
    search = SearchFilter(columns=("name", "description"))
    ordering = StableOrderingFilter(fields=("name", "created_at"))
