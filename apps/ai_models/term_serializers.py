"""Terms of prices over REST: clock times in UTC, decimal strings in USD, multipliers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from rest_framework import serializers

from apps.core.money import format_multiplier, format_usd
from apps.core.price_terms import (
    AMOUNT_NAMES,
    AMOUNT_NANOS_MAX,
    CONTEXT_TOKENS_MAX,
    TERMS_MAX,
    Amounts,
    ServiceTier,
    Terms,
    TermsInvalid,
    TimeWindow,
    clock_time,
    parse_terms,
)
from apps.core.rest import MultiplierField, StrictSerializer, USDField, example

_CLOCK: Final = r"^([01][0-9]|2[0-3]):[0-5][0-9]$"
_ONE: Final = "1"

TERMS_EXAMPLE: Final[dict[str, list[dict[str, Any]]]] = {
    "context_tiers": [{"above_input_tokens": 200_000, "prices": {"input": "5", "output": "15"}}],
    "service_tiers": [{"name": "flex", "multiplier": "0.5"}],
    "windows": [{"from_time": "16:30", "to_time": "00:30", "multiplier": "0.5"}],
}
_AMOUNTS_SCHEMA: Final = {
    "type": "object",
    "additionalProperties": {"type": "string", "format": "decimal"},
}
_CHANGE_SCHEMA: Final = {
    "multiplier": {"type": "string", "format": "decimal"},
    "prices": _AMOUNTS_SCHEMA,
}
TERMS_SCHEMA: Final = {
    "type": "object",
    "properties": {
        "context_tiers": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "above_input_tokens": {"type": "integer"},
                    "prices": _AMOUNTS_SCHEMA,
                },
            },
        },
        "service_tiers": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {"name": {"type": "string"}, **_CHANGE_SCHEMA},
            },
        },
        "windows": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "from_time": {"type": "string", "pattern": _CLOCK},
                    "to_time": {"type": "string", "pattern": _CLOCK},
                    **_CHANGE_SCHEMA,
                },
            },
        },
    },
}


@example({"input": "5", "output": "15"})
class TermPricesInput(StrictSerializer):
    """Amounts that count under these terms; what is left out keeps the price's own."""

    def get_fields(self) -> dict[str, Any]:
        """Return one optional amount for each thing that has a price."""
        return {name: USDField(required=False, nanos_max=AMOUNT_NANOS_MAX) for name in AMOUNT_NAMES}


@example(TERMS_EXAMPLE["context_tiers"][0])
class ContextTierInput(StrictSerializer):
    """Amounts of requests with more input than so many tokens, for all of the request."""

    above_input_tokens = serializers.IntegerField(min_value=1, max_value=CONTEXT_TOKENS_MAX)
    prices = TermPricesInput()

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Return the tier as it is stored."""
        return {
            "above_input_tokens": attrs["above_input_tokens"],
            "amounts": dict(attrs["prices"]),
        }


class _ChangeInput(StrictSerializer):
    multiplier = MultiplierField(
        required=False, help_text="Of the token classes that `prices` does not name."
    )
    prices = TermPricesInput(required=False)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Return the change as it is stored."""
        stored: dict[str, Any] = {}
        if "multiplier" in attrs:
            stored["multiplier_millionths"] = attrs["multiplier"]
        if "prices" in attrs:
            stored["amounts"] = dict(attrs["prices"])
        return stored


@example(TERMS_EXAMPLE["service_tiers"][0])
class ServiceTierInput(_ChangeInput):
    """What a `service_tier` costs that a request may ask for. The usual one is the price itself."""

    name = serializers.CharField(max_length=32)

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Return the tier as it is stored."""
        return {"name": attrs["name"], **super().validate(attrs)}


@example(TERMS_EXAMPLE["windows"][0])
class WindowInput(_ChangeInput):
    """What calls cost that begin at these times of the day in UTC; it may go over midnight."""

    from_time = serializers.RegexField(_CLOCK, help_text="The first minute, such as 16:30.")
    to_time = serializers.RegexField(_CLOCK, help_text="The minute after the last one.")

    def validate(self, attrs: dict[str, Any]) -> dict[str, Any]:
        """Return the window as it is stored."""
        return {
            "from_minute": _minute(attrs["from_time"]),
            "to_minute": _minute(attrs["to_time"]),
            **super().validate(attrs),
        }


@example(TERMS_EXAMPLE)
class TermsInput(StrictSerializer):
    """What makes the amounts of a price other ones, applied in this order; eight of each at most.

    A longer request must not cost less, and windows must not overlap.
    """

    context_tiers = serializers.ListField(
        child=ContextTierInput(), required=False, max_length=TERMS_MAX
    )
    service_tiers = serializers.ListField(
        child=ServiceTierInput(), required=False, max_length=TERMS_MAX
    )
    windows = serializers.ListField(child=WindowInput(), required=False, max_length=TERMS_MAX)

    def validate(self, attrs: dict[str, Any]) -> Any:
        """Return Terms, None where they are empty."""
        try:
            return parse_terms(dict(attrs))
        except TermsInvalid as error:
            raise serializers.ValidationError(str(error), code="invalid_terms") from error


def readable_terms(
    terms: Terms, show_amount: Callable[[int], str] = format_usd
) -> dict[str, list[dict[str, Any]]]:
    """Return terms in the form of `TermsInput`, without what is empty."""

    def prices(amounts: Amounts) -> dict[str, str]:
        return {name: show_amount(nanos) for name, nanos in amounts}

    def change(term: ServiceTier | TimeWindow) -> dict[str, Any]:
        multiplier = format_multiplier(term.multiplier_millionths)
        shown: dict[str, Any] = {} if multiplier == _ONE else {"multiplier": multiplier}
        return shown | ({"prices": prices(term.amounts)} if term.amounts else {})

    shown: dict[str, list[dict[str, Any]]] = {
        "context_tiers": [
            {"above_input_tokens": tier.above_input_tokens, "prices": prices(tier.amounts)}
            for tier in terms.context_tiers
        ],
        "service_tiers": [{"name": tier.name} | change(tier) for tier in terms.service_tiers],
        "windows": [
            {
                "from_time": clock_time(window.from_minute),
                "to_time": clock_time(window.to_minute),
            }
            | change(window)
            for window in terms.windows
        ],
    }
    return {name: items for name, items in shown.items() if items}


def _minute(text: str) -> int:
    return int(text[:2]) * 60 + int(text[3:])
