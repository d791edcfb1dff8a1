"""Models and routes over REST. Prices: see `price_serializers`."""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from apps.ai_models.capabilities import CapabilitiesRefused, check_capabilities
from apps.ai_models.models import (
    CACHE_SECONDS_MAX,
    CONTEXT_LENGTH_MAX,
    IMAGE_TOKENS_MAX,
    OUTPUT_TOKENS_MAX,
    AIModel,
    PriceVersion,
    Route,
    Strategy,
)
from apps.ai_models.overrides import OverridesRefused, check_overrides
from apps.ai_models.price_serializers import (
    PER_1K_SCHEMA,
    PRICES_SCHEMA,
    PricedInput,
    PricesInput,
    show_per_1k,
    show_prices,
)
from apps.ai_models.prices import PriceChange
from apps.core.bounds import DESCRIPTION_LENGTH_MAX, INTEGER_MAX, NUMBER_MAX
from apps.core.names import NameRefused, check_model_name, check_parameter_name
from apps.core.rest import MaskedSerializer, MultiplierField, StrictSerializer, example
from apps.providers.models import Provider
from apps.users.models import Role

_WHOLE: Final = 1_000_000  # millionths


@extend_schema_field({"type": "object", "additionalProperties": True, "example": {"vision": True}})
class CapabilitiesField(serializers.Field[dict[str, Any], Any, dict[str, Any], dict[str, Any]]):
    """A JSON object of bounded size."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        """Return the object."""
        try:
            return check_capabilities(data)
        except CapabilitiesRefused as error:
            raise serializers.ValidationError(str(error), code="invalid") from error

    def to_representation(self, value: dict[str, Any]) -> dict[str, Any]:
        """Return the object."""
        return value


_OVERRIDES: Final = {
    "parameters": {"default": {"temperature": 0.6}, "remove": ["logit_bias"]},
    "headers": {"set": {"x-team": "research"}},
}


@extend_schema_field({"type": "object", "additionalProperties": True, "example": _OVERRIDES})
class OverridesField(serializers.Field[dict[str, Any], Any, dict[str, Any], dict[str, Any]]):
    """What a route changes of requests: see docs/routing.md."""

    def to_internal_value(self, data: Any) -> dict[str, Any]:
        """Return the overrides."""
        try:
            return check_overrides(data)
        except OverridesRefused as error:
            raise serializers.ValidationError(str(error), code="invalid") from error

    def to_representation(self, value: dict[str, Any]) -> dict[str, Any]:
        """Return the overrides."""
        return value


def validate_model_name(value: str) -> None:
    """Refuse names that clients could not write into a URL or a log line."""
    try:
        check_model_name(value)
    except NameRefused as error:
        raise serializers.ValidationError(str(error)) from error


@example(
    {
        "name": "gpt-4o",
        "display_name": "GPT-4o",
        "provider": 1,
        "upstream_name": "gpt-4o-2024-11-20",
        "prices": {"input": "2.5", "cache_read": "1.25", "output": "10"},
        "context_length": 128000,
        "max_output_tokens": 16384,
        "capabilities": {"vision": True, "tools": True},
        "cache_seconds": 3600,
        "cache_share": "0.1",
        "is_active": True,
    }
)
class ModelInput(PricedInput):
    """A model with its route and prices. Fields that are left out keep their values."""

    name = serializers.CharField(max_length=200, validators=[validate_model_name])
    display_name = serializers.CharField(max_length=200, required=False, allow_blank=True)
    description = serializers.CharField(
        max_length=DESCRIPTION_LENGTH_MAX, required=False, allow_blank=True
    )
    provider = serializers.PrimaryKeyRelatedField(
        queryset=Provider.objects.all(),
        required=False,
        pk_field=serializers.IntegerField(min_value=1, max_value=2**63 - 1),
        help_text="Gives the model a route to this provider, unless it has it already.",
    )
    upstream_name = serializers.CharField(
        max_length=200, required=False, help_text="What the provider calls the model."
    )
    context_length = serializers.IntegerField(
        min_value=1, max_value=CONTEXT_LENGTH_MAX, required=False
    )
    max_output_tokens = serializers.IntegerField(
        min_value=1,
        max_value=OUTPUT_TOKENS_MAX,
        required=False,
        help_text="The provider's own maximum: a call that sets none is held for so many tokens, "
        "and what its provider writes beyond is an excess.",
    )
    image_tokens_max = serializers.IntegerField(
        min_value=0, max_value=IMAGE_TOKENS_MAX, required=False
    )
    capabilities = CapabilitiesField(required=False)
    cache_seconds = serializers.IntegerField(
        min_value=1,
        max_value=CACHE_SECONDS_MAX,
        required=False,
        allow_null=True,
        help_text="For how long an answer may be given again to the same key, which must want it, "
        "too; null: never.",
    )
    cache_share = MultiplierField(
        source="cache_share_millionths",
        required=False,
        allow_null=True,
        help_text="What an answer costs that is given again, as a part of its price (0 to 1); "
        "null: all of it.",
    )
    position = serializers.IntegerField(
        min_value=-INTEGER_MAX, max_value=INTEGER_MAX, required=False
    )
    strategy = serializers.ChoiceField(
        choices=Strategy.choices,
        required=False,
        help_text="Orders the routes of one priority; a lower priority always goes first.",
    )
    is_sticky = serializers.BooleanField(
        required=False,
        help_text="Calls of one conversation go to the same route and provider key.",
    )
    is_active = serializers.BooleanField(required=False)

    def validate_cache_share(self, value: int | None) -> int | None:
        """Refuse to charge more for an answer the second time."""
        if value is not None and value > _WHOLE:
            raise serializers.ValidationError("A share is from 0 to 1.")
        return value

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse an upstream name without a provider."""
        attrs = super().validate(attrs)
        if "upstream_name" in attrs and "provider" not in attrs:
            raise serializers.ValidationError({"provider": ["An upstream name needs a provider."]})
        return attrs


class RouteOutput(serializers.Serializer[Any]):
    """A way to a provider."""

    id = serializers.IntegerField()
    provider = serializers.IntegerField(source="provider_id")
    upstream_name = serializers.CharField()
    priority = serializers.IntegerField()
    weight = serializers.IntegerField()
    max_tokens_parameter = serializers.CharField()
    is_active = serializers.BooleanField()


@example(
    {
        "id": 1,
        "name": "gpt-4o",
        "display_name": "GPT-4o",
        "description": "",
        "context_length": 128000,
        "max_output_tokens": 16384,
        "image_tokens_max": 5000,
        "capabilities": {"vision": True, "tools": True},
        "cache_seconds": 3600,
        "cache_share": "0.1",
        "position": 0,
        "strategy": "priority",
        "is_sticky": False,
        "is_active": True,
        "is_priced": True,
        "prices": {"input": "2.5", "cache_read": "1.25", "output": "10"},
        "input_price_per_1k": "0.0025",
        "output_price_per_1k": "0.01",
        "routes": [
            {
                "id": 1,
                "provider": 1,
                "upstream_name": "gpt-4o-2024-11-20",
                "priority": 0,
                "weight": 1,
                "max_tokens_parameter": "max_completion_tokens",
                "is_active": True,
            }
        ],
        "model_groups": [1],
        "created_at": "2026-11-01T08:00:00Z",
        "updated_at": "2026-11-01T08:00:00Z",
    }
)
class ModelOutput(serializers.Serializer[AIModel]):
    """A model with its routes, the prices that count now, and the ids of its groups."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    display_name = serializers.CharField()
    description = serializers.CharField()
    context_length = serializers.IntegerField()
    max_output_tokens = serializers.IntegerField()
    image_tokens_max = serializers.IntegerField()
    capabilities = CapabilitiesField()
    cache_seconds = serializers.IntegerField(allow_null=True)
    cache_share = MultiplierField(source="cache_share_millionths", allow_null=True)
    position = serializers.IntegerField()
    strategy = serializers.ChoiceField(choices=Strategy.choices)
    is_sticky = serializers.BooleanField()
    is_active = serializers.BooleanField()
    is_priced = serializers.SerializerMethodField()
    prices = serializers.SerializerMethodField()
    input_price_per_1k = serializers.SerializerMethodField()
    output_price_per_1k = serializers.SerializerMethodField()
    routes = RouteOutput(many=True)
    model_groups = serializers.SerializerMethodField()
    created_at = serializers.DateTimeField()
    updated_at = serializers.DateTimeField()

    def get_is_priced(self, model: AIModel) -> bool:
        """Return whether input and output have a price now."""
        return show_per_1k(_current(model), "input") is not None and (
            show_per_1k(_current(model), "output") is not None
        )

    @extend_schema_field(PRICES_SCHEMA)
    def get_prices(self, model: AIModel) -> dict[str, Any]:
        """Return the price in the form in which it is set; empty without one."""
        return show_prices(_current(model))

    @extend_schema_field(PER_1K_SCHEMA)
    def get_input_price_per_1k(self, model: AIModel) -> str | None:
        """Return USD per thousand tokens."""
        return show_per_1k(_current(model), "input")

    @extend_schema_field(PER_1K_SCHEMA)
    def get_output_price_per_1k(self, model: AIModel) -> str | None:
        """Return USD per thousand tokens."""
        return show_per_1k(_current(model), "output")

    def get_model_groups(self, model: AIModel) -> list[int]:
        """Return the ids of its groups."""
        return sorted(group.pk for group in model.model_groups.all())


@example(
    {
        "model": 1,
        "provider": 2,
        "upstream_name": "gpt-4o-2024-11-20",
        "priority": 10,
        "weight": 1,
        "max_tokens_parameter": "max_completion_tokens",
        "overrides": _OVERRIDES,
        "is_active": True,
        "cost_prices": {"input": "2", "output": "8"},
    }
)
class RouteInput(StrictSerializer):
    """A way from a model to a provider. Fields that are left out keep their values."""

    model = serializers.PrimaryKeyRelatedField(
        queryset=AIModel.objects.all(),
        pk_field=serializers.IntegerField(min_value=1, max_value=2**63 - 1),
    )
    provider = serializers.PrimaryKeyRelatedField(
        queryset=Provider.objects.all(),
        pk_field=serializers.IntegerField(min_value=1, max_value=2**63 - 1),
    )
    upstream_name = serializers.CharField(
        max_length=200,
        required=False,
        help_text="What the provider calls the model; a new route takes the model's name.",
    )
    priority = serializers.IntegerField(
        min_value=-INTEGER_MAX,
        max_value=INTEGER_MAX,
        required=False,
        help_text="Lower goes first; a new route takes the provider's.",
    )
    weight = serializers.IntegerField(
        min_value=0,
        max_value=NUMBER_MAX,
        required=False,
        help_text="Share among routes of one priority; a new route takes the provider's.",
    )
    max_tokens_parameter = serializers.CharField(
        max_length=50,
        required=False,
        allow_blank=True,
        help_text="The parameter by which this provider takes a cap on output; empty: the one "
        "that servers at its address are known to take.",
    )
    overrides = OverridesField(
        required=False, help_text="What is changed of requests; replaced as a whole."
    )
    is_active = serializers.BooleanField(required=False)
    cost_prices = PricesInput(
        required=False, help_text="What the provider bills; a change is a new version."
    )

    def validate_max_tokens_parameter(self, value: str) -> str:
        """Refuse what is no name of a parameter."""
        try:
            return check_parameter_name(value) if value else value
        except NameRefused as error:
            raise serializers.ValidationError(str(error)) from error

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Return the cost as a change of all of it."""
        if "cost_prices" in attrs:
            attrs["cost"] = PriceChange(whole=attrs.pop("cost_prices"))
        return attrs


@example(
    {
        "id": 1,
        "model": 1,
        "model_name": "gpt-4o",
        "provider": 2,
        "provider_name": "openai",
        "upstream_name": "gpt-4o-2024-11-20",
        "priority": 10,
        "weight": 1,
        "max_tokens_parameter": "max_completion_tokens",
        "overrides": _OVERRIDES,
        "is_active": True,
        "cost_prices": {"input": "2", "output": "8"},
        "created_at": "2026-11-01T08:00:00Z",
    }
)
class RouteDetailOutput(MaskedSerializer):
    """A route with both ends and what the provider bills now.

    Viewers see neither costs nor overrides.
    """

    hidden_from = {Role.VIEWER: frozenset({"cost_prices", "overrides"})}

    id = serializers.IntegerField()
    model = serializers.IntegerField(source="model_id")
    model_name = serializers.CharField(source="model.name")
    provider = serializers.IntegerField(source="provider_id")
    provider_name = serializers.CharField(source="provider.name")
    upstream_name = serializers.CharField()
    priority = serializers.IntegerField()
    weight = serializers.IntegerField()
    max_tokens_parameter = serializers.CharField()
    overrides = OverridesField(allow_null=True)
    is_active = serializers.BooleanField()
    cost_prices = serializers.SerializerMethodField()
    created_at = serializers.DateTimeField()

    @extend_schema_field({**PRICES_SCHEMA, "nullable": True})
    def get_cost_prices(self, route: Route) -> dict[str, Any]:
        """Return token class → USD per million tokens; empty where no cost is known."""
        return show_prices(_current(route))


def _current(owner: AIModel | Route) -> PriceVersion | None:
    """Return the version that the list's query has put beside the row."""
    versions: list[PriceVersion] = getattr(owner, "current_prices", [])
    return versions[0] if versions else None
