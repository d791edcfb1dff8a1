"""Model groups over REST."""

from __future__ import annotations

from rest_framework import serializers
from rest_framework.validators import UniqueValidator

from apps.ai_models.models import AIModel
from apps.core.rest import MultiplierField, StrictSerializer
from apps.model_groups.models import ModelGroup

_MODELS_MAX = 1_000


class ModelGroupInput(StrictSerializer):
    """A new group of models."""

    name = serializers.CharField(
        max_length=100, validators=[UniqueValidator(queryset=ModelGroup.objects.all())]
    )
    description = serializers.CharField(
        max_length=10_000, required=False, default="", allow_blank=True
    )
    models = serializers.ListField(
        child=serializers.IntegerField(min_value=1, max_value=2**63 - 1),
        max_length=_MODELS_MAX,
        required=False,
        default=list,
    )
    is_public = serializers.BooleanField(required=False, default=False)

    def validate_models(self, value: list[int]) -> list[AIModel]:
        """Return the models; all of them must exist."""
        found = AIModel.objects.in_bulk(value)
        missing = [pk for pk in value if pk not in found]
        if missing:
            raise serializers.ValidationError(f"There is no model {missing[0]}.")
        return list(found.values())


class ModelGroupOutput(serializers.Serializer[ModelGroup]):
    """A group of models."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    description = serializers.CharField()
    models = serializers.SerializerMethodField()
    is_public = serializers.BooleanField()
    is_active = serializers.BooleanField()
    multiplier = MultiplierField(source="multiplier_millionths")
    created_at = serializers.DateTimeField()

    def get_models(self, group: ModelGroup) -> list[int]:
        """Return the ids of its models."""
        return sorted(model.pk for model in group.models.all())
