"""Model groups over REST."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, TypeVar

from rest_framework import serializers
from rest_framework.validators import UniqueValidator

from apps.ai_models.models import AIModel
from apps.core.bounds import DESCRIPTION_LENGTH_MAX
from apps.core.rest import MultiplierField, StrictSerializer, example
from apps.model_groups.groups import MEMBERS_MAX
from apps.model_groups.models import ModelGroup
from apps.users.models import UserGroup

_Member = TypeVar("_Member", AIModel, UserGroup)


def _ids() -> serializers.ListField:
    return serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=2**63 - 1),
        max_length=MEMBERS_MAX,
        required=False,
    )


@example(
    {
        "name": "chat models",
        "description": "Everything for conversations.",
        "models": [1, 2],
        "user_groups": [1],
        "is_public": False,
        "is_active": True,
        "multiplier": "1.2",
    }
)
class ModelGroupInput(StrictSerializer):
    """A group of models. Fields that are left out keep their values; lists are replaced whole."""

    name = serializers.CharField(
        max_length=100, validators=[UniqueValidator(queryset=ModelGroup.objects.all())]
    )
    description = serializers.CharField(
        max_length=DESCRIPTION_LENGTH_MAX, required=False, allow_blank=True
    )
    models = _ids()
    user_groups = _ids()
    is_public = serializers.BooleanField(required=False, help_text="Open to every user.")
    is_active = serializers.BooleanField(required=False)
    multiplier = MultiplierField(
        source="multiplier_millionths",
        required=False,
        help_text="What the models' prices are multiplied by.",
    )

    def validate_models(self, value: list[int]) -> list[AIModel]:
        """Return the models; all of them must exist."""
        return _get_all(AIModel, value, noun="model")

    def validate_user_groups(self, value: list[int]) -> list[UserGroup]:
        """Return the user groups; all of them must exist."""
        return _get_all(UserGroup, value, noun="user group")


@example(
    {
        "id": 1,
        "name": "chat models",
        "description": "Everything for conversations.",
        "models": [1, 2],
        "user_groups": [1],
        "is_public": False,
        "is_active": True,
        "multiplier": "1.2",
        "created_at": "2026-11-01T08:00:00Z",
    }
)
class ModelGroupOutput(serializers.Serializer[ModelGroup]):
    """A group of models, with the ids of its models and of the user groups that may call them."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    description = serializers.CharField()
    models = serializers.SerializerMethodField()
    user_groups = serializers.SerializerMethodField()
    is_public = serializers.BooleanField()
    is_active = serializers.BooleanField()
    multiplier = MultiplierField(source="multiplier_millionths")
    created_at = serializers.DateTimeField()

    def get_models(self, group: ModelGroup) -> list[int]:
        """Return the ids of its models."""
        return _sorted_ids(group.models.all())

    def get_user_groups(self, group: ModelGroup) -> list[int]:
        """Return the ids of its user groups."""
        return _sorted_ids(group.user_groups.all())


def _sorted_ids(members: Iterable[Any]) -> list[int]:
    return sorted(member.pk for member in members)


def _get_all(kind: type[_Member], ids: list[int], *, noun: str) -> list[_Member]:
    found: dict[int, _Member] = kind._default_manager.in_bulk(ids)
    missing = [pk for pk in ids if pk not in found]
    if missing:
        raise serializers.ValidationError(f"There is no {noun} {missing[0]}.")
    return list(found.values())
