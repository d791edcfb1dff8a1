"""Filters of the lists of risk rules and findings."""

from __future__ import annotations

from typing import Final

import django_filters

from apps.audit.filter_fields import AddressFilter, ChoicesFilter
from apps.core.filters import (
    FlagFilter,
    IdFilter,
    IdsFilter,
    MomentFilter,
    SearchFilter,
    StableOrderingFilter,
    StrictFilterSet,
    WordsFilter,
)
from apps.risk.models import NAME_LENGTH_MAX, RuleAction, RuleKind

_KINDS: Final = tuple(str(kind) for kind in RuleKind.values)
_ACTIONS: Final = tuple(str(action) for action in RuleAction.values)


class RiskRuleFilterSet(StrictFilterSet):
    """Filters of the list of rules."""

    name = django_filters.CharFilter(max_length=NAME_LENGTH_MAX)
    kind = ChoicesFilter(known=_KINDS)
    action = ChoicesFilter(known=_ACTIONS)
    is_active = FlagFilter()
    search = SearchFilter(columns=("name", "description"))
    ordering = StableOrderingFilter(fields=("name", "priority", "created_at"))


class RiskFindingFilterSet(StrictFilterSet):
    """Filters of the list of findings."""

    rule = IdsFilter(field_name="rule_id")
    kind = ChoicesFilter(known=_KINDS)
    action = ChoicesFilter(known=_ACTIONS)
    user = IdFilter(field_name="user_id")
    api_key = IdFilter(field_name="api_key_id")
    model = WordsFilter(field_name="requested_model")
    operation = WordsFilter(field_name="operation")
    request_id = django_filters.UUIDFilter(field_name="request_id")
    address = AddressFilter(field_name="ip_address")
    created_after = MomentFilter(field_name="created_at", lookup_expr="gte")
    created_before = MomentFilter(field_name="created_at", lookup_expr="lt")
