"""Models, routes and prices over REST. Prices are decimal strings: USD per million tokens."""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from apps.ai_models.catalogue import PRICE_NANOS_MAX
from apps.ai_models.models import AIModel, PriceVersion
from apps.core.money import format_usd
from apps.core.rest import StrictSerializer, USDField
from apps.core.usage import TOKEN_CLASSES
from apps.providers.models import Provider

# The price of a request as such, beside the token classes.
REQUEST_PRICE: Final = "request"


class PricesInput(StrictSerializer):
    """USD per million tokens by token class; `request` is USD per request."""

    def get_fields(self) -> dict[str, Any]:
        """Return one optional amount for each thing that has a price."""
        return {
            name: USDField(required=False, nanos_max=PRICE_NANOS_MAX)
            for name in (*TOKEN_CLASSES, REQUEST_PRICE)
        }


class ModelInput(StrictSerializer):
    """A model with its route and prices. The name of a known model changes that one."""

    name = serializers.CharField(max_length=200)
    display_name = serializers.CharField(max_length=200, required=False, allow_blank=True)
    provider = serializers.PrimaryKeyRelatedField(queryset=Provider.objects.all(), required=False)
    upstream_name = serializers.CharField(max_length=200, required=False)
    prices = PricesInput(required=False)
    context_length = serializers.IntegerField(min_value=1, max_value=100_000_000, required=False)
    max_output_tokens = serializers.IntegerField(min_value=1, max_value=10_000_000, required=False)
    is_active = serializers.BooleanField(required=False)

    def validate_name(self, value: str) -> str:
        """Refuse names that clients could not write into a URL or a log line."""
        if not value.isprintable() or any(character.isspace() for character in value):
            raise serializers.ValidationError("A name holds no spaces or control characters.")
        return value

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Refuse an upstream name without a provider."""
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
    is_active = serializers.BooleanField()


class ModelOutput(serializers.Serializer[AIModel]):
    """A model with its routes and the prices that count now."""

    id = serializers.IntegerField()
    name = serializers.CharField()
    display_name = serializers.CharField()
    description = serializers.CharField()
    context_length = serializers.IntegerField()
    max_output_tokens = serializers.IntegerField()
    position = serializers.IntegerField()
    is_active = serializers.BooleanField()
    routes = RouteOutput(many=True)
    prices = serializers.SerializerMethodField()
    created_at = serializers.DateTimeField()

    @extend_schema_field(
        {
            "type": "object",
            "additionalProperties": {"type": "string", "format": "decimal"},
            "example": {"input": "2.5", "output": "10"},
        }
    )
    def get_prices(self, model: AIModel) -> dict[str, str]:
        """Return token class → USD per million tokens, and `request`; empty without a price."""
        versions: list[PriceVersion] = getattr(model, "current_prices", [])
        if not versions:
            return {}
        prices = {name: format_usd(nanos) for name, nanos in versions[0].prices().items()}
        if versions[0].request_nanos:
            prices[REQUEST_PRICE] = format_usd(versions[0].request_nanos)
        return prices
