"""Bodies of synchronising a provider's models and of testing it."""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from apps.ai_models.models import Route
from apps.ai_models.sync import CHOICES_MAX, Choice, Comparison, Made, Trial
from apps.core.rest import StrictSerializer, example
from apps.providers.asking import NAME_LENGTH_MAX, is_name

_FIELDS: Final = frozenset({"upstream_name", "name"})
_NAME: Final = {"type": "string", "minLength": 1, "maxLength": NAME_LENGTH_MAX}


@extend_schema_field(
    {
        "oneOf": [
            {**_NAME, "description": "The provider's name, which becomes the model's too."},
            {
                "type": "object",
                "properties": {"upstream_name": _NAME, "name": _NAME},
                "required": ["upstream_name"],
                "additionalProperties": False,
            },
        ]
    }
)
class ChoiceField(serializers.Field[Choice, Any, str, Choice]):
    """A name, or `{upstream_name, name?}`."""

    default_error_messages = {
        "shape": "Give a name, or an object with upstream_name and, if wanted, name.",
        "name": f"A name has 1 to {NAME_LENGTH_MAX} printable characters and no spaces.",
    }

    def to_internal_value(self, data: Any) -> Choice:
        """Return the choice."""
        if isinstance(data, str):
            data = {"upstream_name": data}
        if not isinstance(data, dict) or not data.keys() <= _FIELDS or "upstream_name" not in data:
            self.fail("shape")
        names = [data["upstream_name"], data.get("name", data["upstream_name"])]
        if not all(isinstance(name, str) for name in names):
            self.fail("shape")
        if not all(is_name(name) for name in names):
            self.fail("name")
        return Choice(upstream_name=names[0], name=names[1])

    def to_representation(self, value: Choice) -> str:
        """Return the provider's name."""
        return value.upstream_name


@example(
    {
        "apply": True,
        "models": [
            "google/gemini-2.5-pro-preview",
            {"upstream_name": "anthropic/claude-sonnet-4", "name": "claude-sonnet-4"},
        ],
    }
)
class SyncInput(StrictSerializer):
    """Without `apply` nothing is made; with it, what is chosen in `models`."""

    apply = serializers.BooleanField(required=False, default=False)
    models = serializers.ListField(
        child=ChoiceField(), max_length=CHOICES_MAX, required=False, default=list
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse a choice that is empty, double or not meant to be applied."""
        choices = attrs["models"]
        if attrs["apply"] and not choices:
            raise serializers.ValidationError({"models": ["Choose at least one model."]})
        if choices and not attrs["apply"]:
            raise serializers.ValidationError({"models": ["A choice needs apply: true."]})
        if len(set(choices)) != len(choices):
            raise serializers.ValidationError({"models": ["A model is chosen twice."]})
        return attrs


class SyncedRouteOutput(serializers.Serializer[Route]):
    """A route to the provider."""

    name = serializers.CharField(source="upstream_name", help_text="What the provider calls it.")
    route = serializers.IntegerField(source="id")
    model = serializers.IntegerField(source="model_id")
    model_name = serializers.CharField(source="model.name")
    is_active = serializers.BooleanField(help_text="Of the route.")


class MadeOutput(serializers.Serializer[Made]):
    """A route that was made."""

    name = serializers.CharField(source="route.upstream_name")
    route = serializers.IntegerField(source="route.id")
    model = serializers.IntegerField(source="route.model_id")
    model_name = serializers.CharField(source="route.model.name")
    is_new_model = serializers.BooleanField()
    is_priced = serializers.BooleanField(help_text="Without a price a model cannot be called.")
    assumed = serializers.ListField(
        child=serializers.CharField(),
        help_text="Values of a new model that nobody told: set them to the provider's own.",
    )


@example(
    {
        "added": ["x-ai/grok-3-beta"],
        "known": [
            {
                "name": "anthropic/claude-sonnet-4",
                "route": 12,
                "model": 5,
                "model_name": "claude-sonnet-4",
                "is_active": True,
            }
        ],
        "missing": [],
        "ignored": 0,
        "made": [
            {
                "name": "anthropic/claude-sonnet-4",
                "route": 12,
                "model": 5,
                "model_name": "claude-sonnet-4",
                "is_new_model": True,
                "is_priced": False,
                "assumed": ["context_length", "max_output_tokens"],
            }
        ],
        "fetched_at": "2026-11-02T08:15:30.123456Z",
    }
)
class SyncOutput(serializers.Serializer[Comparison]):
    """The provider's list beside what there is, and what was made."""

    added = serializers.ListField(
        child=serializers.CharField(), help_text="Names that no route leads to yet."
    )
    known = SyncedRouteOutput(many=True)
    missing = SyncedRouteOutput(
        many=True, help_text="Routes whose name the provider does not list any more."
    )
    ignored = serializers.IntegerField(
        source="ignored_count", help_text="Entries of the list whose name cannot be used."
    )
    made = MadeOutput(many=True)
    fetched_at = serializers.DateTimeField()


@example({"model": "anthropic/claude-sonnet-4"})
class TrialInput(StrictSerializer):
    """With `model` (the provider's name for it) that model is asked for one token."""

    model = serializers.CharField(max_length=NAME_LENGTH_MAX, required=False)

    def validate_model(self, value: str) -> str:
        """Refuse what is no name of a model."""
        if not is_name(value):
            raise serializers.ValidationError("A name holds no spaces or control characters.")
        return value


@example(
    {
        "success": False,
        "message": "The provider refused the key.",
        "latency_ms": 212,
        "tested_at": "2026-11-02T08:15:30.123456Z",
    }
)
class TrialOutput(serializers.Serializer[Trial]):
    """Whether the provider answered; of a failure only its class."""

    success = serializers.BooleanField()
    message = serializers.CharField()
    latency_ms = serializers.IntegerField()
    tested_at = serializers.DateTimeField()
