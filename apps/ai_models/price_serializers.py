"""Prices over REST: decimal strings, USD per million tokens or per thousand."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from django.utils import timezone
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from apps.ai_models.models import AIModel, PriceVersion, Route
from apps.ai_models.prices import (
    PRICE_NANOS_MAX,
    PRICE_STATES,
    Price,
    PriceChange,
    find_version,
    format_per_1k,
    list_upcoming,
    parse_per_1k,
    price_of,
    state_of,
)
from apps.ai_models.term_serializers import (
    TERMS_EXAMPLE,
    TERMS_SCHEMA,
    TermsInput,
    readable_terms,
)
from apps.core.money import AMOUNT_SCHEMA, InvalidAmount, format_usd
from apps.core.rest import StrictSerializer, USDField, example
from apps.core.usage import COUNTS, TOKEN_CLASSES

# What a price holds beside what is priced by class and by the piece.
REQUEST_PRICE: Final = "request"
MINIMUM: Final = "minimum"
TERMS: Final = "terms"
_AHEAD_MAX: Final = timedelta(days=3_660)
_PER_1K: Final = {"input_price_per_1k": "input", "output_price_per_1k": "output"}

PRICES_SCHEMA: Final = {
    "type": "object",
    "properties": {TERMS: TERMS_SCHEMA},
    "additionalProperties": {"type": "string", "format": "decimal"},
    "example": {"input": "2.5", "output": "10"},
}
PER_1K_SCHEMA: Final = {
    "type": "string",
    "format": "decimal",
    "nullable": True,
    "example": "0.0025",
}


@extend_schema_field(
    {
        "oneOf": [AMOUNT_SCHEMA, {"type": "integer", "minimum": 0, "maximum": 1_000}],
        "example": "0.0025",
    }
)
class Per1kField(serializers.Field[int, Any, str, int]):
    """USD per thousand tokens outside, nanos per million tokens inside; exact both ways."""

    def to_internal_value(self, data: Any) -> int:
        """Return nanos per million tokens."""
        try:
            return parse_per_1k(data)
        except InvalidAmount as error:
            raise serializers.ValidationError(str(error), code="invalid_amount") from error

    def to_representation(self, value: int) -> str:
        """Return the decimal string."""
        return format_per_1k(value)


@example(
    {
        "input": "2.5",
        "cache_read": "0.25",
        "output": "10",
        "request": "0.001",
        "web_search": "0.01",
        "minimum": "0.0001",
        "terms": TERMS_EXAMPLE,
    }
)
class PricesInput(StrictSerializer):
    """USD per million tokens by token class, and per million characters; `request`, `image`,
    `second`, `web_search` and `tool_call` are USD by the piece, `minimum` USD of a request.

    This is the whole price: a class that is left out has no price of its own. Without one for input
    and output a model cannot be called.
    """

    def get_fields(self) -> dict[str, Any]:
        """Return one optional amount for each thing that has a price."""
        amounts: dict[str, Any] = {
            name: USDField(required=False, nanos_max=PRICE_NANOS_MAX)
            for name in (*TOKEN_CLASSES, REQUEST_PRICE, *COUNTS, MINIMUM)
        }
        return {**amounts, TERMS: TermsInput(required=False, allow_null=True)}

    def validate(self, attrs: dict[str, Any]) -> Any:
        """Return a Price."""
        classes: dict[str, int] = {
            name: attrs[name] for name in (*TOKEN_CLASSES, *COUNTS) if name in attrs
        }
        return Price(classes, attrs.get(REQUEST_PRICE, 0), attrs.get(MINIMUM, 0), attrs.get(TERMS))


class PricedInput(StrictSerializer):
    """Something with a price: `price` of the validated values is a PriceChange, where given."""

    prices = PricesInput(required=False)
    input_price_per_1k = Per1kField(
        required=False,
        help_text="USD per thousand tokens; alone it changes this class only.",
    )
    output_price_per_1k = Per1kField(
        required=False,
        help_text="USD per thousand tokens; alone it changes this class only.",
    )

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Put the two ways to write a price together; they must not contradict each other."""
        whole: Price | None = attrs.pop("prices", None)
        classes = {}
        for field, name in _PER_1K.items():
            if field not in attrs:
                continue
            classes[name] = attrs.pop(field)
            if whole is not None and whole.classes.get(name) != classes[name]:
                raise serializers.ValidationError(
                    {field: [f"This is not the price in prices.{name}, per thousand."]}
                )
        if whole is not None or classes:
            attrs["price"] = PriceChange(whole=whole, classes=classes)
        return attrs


@example(
    {"prices": {"input": "2", "output": "8"}, "effective_at": "2027-01-01T00:00:00Z"},
)
class PriceVersionInput(PricedInput):
    """A new price; without `effective_at` it counts from now on. With one it needs `prices`."""

    effective_at = serializers.DateTimeField(required=False)

    def validate_effective_at(self, value: Any) -> Any:
        """Refuse moments that nobody means. What lies in the past is refused by the catalogue."""
        if value > timezone.now() + _AHEAD_MAX:
            raise serializers.ValidationError("At most ten years ahead.")
        return value

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Require a price."""
        attrs = super().validate(attrs)
        if "price" not in attrs:
            raise serializers.ValidationError({"prices": ["This field is required."]})
        return attrs


@example({"prices": {"input": "1", "output": "4"}, "effective_at": "2027-01-01T00:00:00Z"})
class CostVersionInput(StrictSerializer):
    """What the provider bills from a moment on; without `effective_at` from now on."""

    prices = PricesInput()
    effective_at = serializers.DateTimeField(required=False)

    def validate_effective_at(self, value: Any) -> Any:
        """Refuse moments that nobody means."""
        if value > timezone.now() + _AHEAD_MAX:
            raise serializers.ValidationError("At most ten years ahead.")
        return value

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Return the price as a change of all of it."""
        attrs["price"] = PriceChange(whole=attrs.pop("prices"))
        return attrs


@example(
    {
        "id": 7,
        "effective_at": "2026-11-01T00:00:00Z",
        "state": "current",
        "prices": {"input": "2.5", "output": "10"},
        "input_price_per_1k": "0.0025",
        "output_price_per_1k": "0.01",
        "created_at": "2026-10-20T08:00:00Z",
    }
)
class PriceVersionOutput(serializers.Serializer[PriceVersion]):
    """A price version. `superseded`: a later version counts from the same moment in its place."""

    id = serializers.IntegerField()
    effective_at = serializers.DateTimeField()
    state = serializers.SerializerMethodField()
    prices = serializers.SerializerMethodField()
    input_price_per_1k = serializers.SerializerMethodField()
    output_price_per_1k = serializers.SerializerMethodField()
    created_at = serializers.DateTimeField()

    @extend_schema_field(serializers.ChoiceField(choices=PRICE_STATES))
    def get_state(self, version: PriceVersion) -> str:
        """Return where the version stands. The context is that of `moment_of`."""
        return state_of(version, current_id=self.context.get("current_id"), now=self.context["now"])

    @extend_schema_field(PRICES_SCHEMA)
    def get_prices(self, version: PriceVersion) -> dict[str, Any]:
        """Return the price in the form in which it is set."""
        return show_prices(version)

    @extend_schema_field(PER_1K_SCHEMA)
    def get_input_price_per_1k(self, version: PriceVersion) -> str | None:
        """Return USD per thousand tokens."""
        return show_per_1k(version, "input")

    @extend_schema_field(PER_1K_SCHEMA)
    def get_output_price_per_1k(self, version: PriceVersion) -> str | None:
        """Return USD per thousand tokens."""
        return show_per_1k(version, "output")


class _FutureVersionOutput(serializers.Serializer[PriceVersion]):
    """A version that will count from a later moment on."""

    id = serializers.IntegerField()
    effective_at = serializers.DateTimeField()
    prices = serializers.SerializerMethodField()

    @extend_schema_field(PRICES_SCHEMA)
    def get_prices(self, version: PriceVersion) -> dict[str, Any]:
        """Return the price in the form in which it is set."""
        return show_prices(version)


@example(
    {
        "id": 7,
        "effective_at": "2026-11-01T00:00:00Z",
        "state": "current",
        "prices": {"input": "2.5", "output": "10"},
        "input_price_per_1k": "0.0025",
        "output_price_per_1k": "0.01",
        "created_at": "2026-11-01T00:00:00Z",
        "upcoming": [
            {
                "id": 6,
                "effective_at": "2027-01-01T00:00:00Z",
                "prices": {"input": "2", "output": "8"},
            }
        ],
    }
)
class NewPriceVersionOutput(PriceVersionOutput):
    """A price version that was just added, and what takes its place later."""

    upcoming = serializers.SerializerMethodField(
        help_text="Versions set before that will take its place, the next one first; at most 100."
    )

    @extend_schema_field(_FutureVersionOutput(many=True))
    def get_upcoming(self, version: PriceVersion) -> Any:
        """Return the versions that will count after this one."""
        return [_FutureVersionOutput(later).data for later in list_upcoming(version)]


def moment_of(*, model: AIModel | None = None, route: Route | None = None) -> dict[str, Any]:
    """Return the context that `PriceVersionOutput` needs."""
    now = timezone.now()
    current = find_version(at=now, model=model, route=route)
    return {"now": now, "current_id": current.pk if current else None}


def show_prices(version: PriceVersion | None) -> dict[str, Any]:
    """Return a price in the form of `PricesInput`, without what is not in it."""
    return show_price(price_of(version))


def show_price(price: Price, show_amount: Callable[[int], str] = format_usd) -> dict[str, Any]:
    """Return a price in the form of `PricesInput`, its amounts as `show_amount` writes them."""
    amounts = dict(price.classes)
    if price.request_nanos:
        amounts[REQUEST_PRICE] = price.request_nanos
    if price.minimum_nanos:
        amounts[MINIMUM] = price.minimum_nanos
    shown: dict[str, Any] = {name: show_amount(nanos) for name, nanos in amounts.items()}
    if price.terms is not None:
        shown[TERMS] = readable_terms(price.terms, show_amount)
    return shown


def show_per_1k(version: PriceVersion | None, name: str) -> str | None:
    """Return USD per thousand tokens of a class, None where it has no price."""
    nanos = price_of(version).classes.get(name)
    return None if nanos is None else format_per_1k(nanos)
