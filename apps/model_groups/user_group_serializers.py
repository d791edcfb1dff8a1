"""User groups over REST. Amounts are decimal strings of US dollars."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Final

from rest_framework import serializers
from rest_framework.validators import UniqueValidator

from apps.core.bounds import DESCRIPTION_LENGTH_MAX, INTEGER_MAX
from apps.core.rest import MaskedSerializer, MultiplierField, StrictSerializer, USDField, example
from apps.model_groups.models import ModelGroup
from apps.users.models import Role, UserGroup

_MODEL_GROUPS_MAX: Final = 1_000
_ID_MAX: Final = 2**63 - 1
_GROUP: Final = {
    "name": "staff",
    "description": "Everybody who works here.",
    "multiplier": "0.8",
    "model_groups": [1, 3],
    "rpm": 600,
    "tpm": None,
    "concurrency": 50,
    "cap": "1000",
    "daily_budget": None,
    "monthly_budget": "200",
}


def _limit() -> serializers.IntegerField:
    return serializers.IntegerField(
        min_value=0, max_value=INTEGER_MAX, allow_null=True, required=False
    )


@example(_GROUP)
class UserGroupInput(StrictSerializer):
    """A user group; what is left out stays, or is the default of a new one."""

    name = serializers.CharField(
        max_length=100, validators=[UniqueValidator(queryset=UserGroup.objects.all())]
    )
    description = serializers.CharField(
        max_length=DESCRIPTION_LENGTH_MAX, required=False, allow_blank=True
    )
    multiplier = MultiplierField(source="multiplier_millionths", required=False)
    model_groups = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=_ID_MAX),
        max_length=_MODEL_GROUPS_MAX,
        required=False,
    )
    rpm = _limit()
    tpm = _limit()
    concurrency = _limit()
    cap = USDField(source="cap_nanos", allow_null=True, required=False)
    daily_budget = USDField(source="daily_budget_nanos", allow_null=True, required=False)
    monthly_budget = USDField(source="monthly_budget_nanos", allow_null=True, required=False)

    def validate_model_groups(self, value: list[int]) -> list[ModelGroup]:
        """Return the model groups; all of them must exist."""
        found = ModelGroup.objects.in_bulk(value)
        missing = [pk for pk in value if pk not in found]
        if missing:
            raise serializers.ValidationError(f"There is no model group {missing[0]}.")
        return list(found.values())


@example({"id": 2, **_GROUP, "user_count": 12, "created_at": "2026-11-21T03:44:00Z"})
class UserGroupOutput(MaskedSerializer):
    """A user group and how many users it has. Cap and budgets are null for viewers."""

    hidden_from: ClassVar[Mapping[str, frozenset[str]]] = {
        Role.VIEWER: frozenset({"cap", "daily_budget", "monthly_budget"})
    }

    id = serializers.IntegerField()
    name = serializers.CharField()
    description = serializers.CharField()
    multiplier = MultiplierField(source="multiplier_millionths")
    model_groups = serializers.SerializerMethodField()
    rpm = serializers.IntegerField(allow_null=True)
    tpm = serializers.IntegerField(allow_null=True)
    concurrency = serializers.IntegerField(allow_null=True)
    cap = USDField(source="cap_nanos", allow_null=True)
    daily_budget = USDField(source="daily_budget_nanos", allow_null=True)
    monthly_budget = USDField(source="monthly_budget_nanos", allow_null=True)
    user_count = serializers.IntegerField()
    created_at = serializers.DateTimeField()

    def get_model_groups(self, group: Any) -> list[int]:
        """Return the ids of the model groups that are open to its users."""
        return sorted(found.pk for found in group.model_groups.all())
