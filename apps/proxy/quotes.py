"""What a call would cost, at most and likely, with the lines of both. Pure.

A quote is asked for with the body of the call itself, inside `request`. At most is what its hold
would be; likely is what such calls came to lately, where this process has seen any. Neither binds
anybody, unless a hold is asked for as well: see `quote_holds`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final, NamedTuple

from apps.billing.pricing import PER_MILLION, ChargeLine, Conditions, charge_nanos, explain
from apps.core.money import format_multiplier, format_usd
from apps.core.price_terms import format_factor
from apps.core.usage import INPUT_CLASSES, OUTPUT_CLASSES, Usage
from apps.proxy.admission import Plan
from apps.proxy.dialects.openai_refusals import (
    above,
    below_one,
    missing,
    unsupported,
    wrong_type,
    wrong_value,
)
from apps.proxy.dialects.parsed_request import ParsedRequest
from apps.proxy.dialects.surfaces import parse_request
from apps.proxy.estimate import within
from apps.proxy.operations import CALLS

HOLD_SECONDS: Final = 60
HOLD_SECONDS_MAX: Final = 300
# What a call is taken to write whose model this process has not seen answering.
OUTPUT_TOKENS_ASSUMED: Final = 500
# The weight of the latest answer in the mean of a model's answers.
_LATEST: Final = 0.05

_FIELDS: Final = frozenset({"endpoint", "hold", "hold_seconds", "request"})
_TEXT_INPUT: Final = ("input", "cache_read", "cache_write_5m", "cache_write_1h")
_TEXT_OUTPUT: Final = ("output", "reasoning")


class QuoteRequest(NamedTuple):
    """What is asked to be quoted."""

    request: ParsedRequest
    hold_seconds: int  # 0: nothing is to be held


class Likely(NamedTuple):
    """A usage that is to be expected, and on what that rests."""

    usage: Usage
    basis: str  # recent_calls, or assumed


def parse_quote(body: Mapping[str, Any]) -> QuoteRequest:
    """Return what a request for a quote asks for. Raises E13 and E14."""
    for name in body:
        if name not in _FIELDS:
            raise unsupported(name)
    endpoint = body.get("endpoint", "chat/completions")
    if not isinstance(endpoint, str) or endpoint not in CALLS:
        raise wrong_value("endpoint", f"one of {', '.join(CALLS)}")
    request = body.get("request")
    if request is None:
        raise missing("request")
    if not isinstance(request, dict):
        raise wrong_type("request", "an object")
    return QuoteRequest(
        parse_request(CALLS[endpoint].endpoint, CALLS[endpoint].dialect, request),
        _hold_seconds(body),
    )


def _hold_seconds(body: Mapping[str, Any]) -> int:
    is_held = body.get("hold", False)
    if not isinstance(is_held, bool):
        raise wrong_type("hold", "a boolean")
    seconds = body.get("hold_seconds", HOLD_SECONDS)
    # type() and not isinstance(): true is an int.
    if type(seconds) is not int:
        raise wrong_type("hold_seconds", "an integer")
    if seconds < 1:
        raise below_one("hold_seconds")
    if seconds > HOLD_SECONDS_MAX:
        raise above("hold_seconds", HOLD_SECONDS_MAX)
    return seconds if is_held else 0


class Habits:
    """How much the models of this process write into an answer: a mean that forgets slowly."""

    def __init__(self) -> None:
        self._means: dict[int, float] = {}

    def note(self, model_id: int, output_tokens: float) -> None:
        """Count what a call that ended well wrote; `output_tokens` are the mean of its choices."""
        mean = self._means.get(model_id)
        if mean is None:
            self._means[model_id] = output_tokens
        else:
            self._means[model_id] = mean + (output_tokens - mean) * _LATEST

    def expect(self, model_id: int) -> int | None:
        """Return how many tokens the model may be expected to write into an answer, None where it
        was not seen.
        """
        mean = self._means.get(model_id)
        return None if mean is None else round(mean)


def expect_usage(plan: Plan, habits: Habits, *, read: Usage) -> Likely:
    """Return what a call is likely to use; `read` is an estimate of what is read."""
    read = within(read, plan.input_bound)
    if not plan.output_bound:
        return Likely(read, "assumed")
    seen = habits.expect(plan.model.id)
    each = OUTPUT_TOKENS_ASSUMED if seen is None else seen
    written = min(each, plan.output_bound) * plan.request.choices
    searches = min(1, plan.count_bounds.get("web_search", 0))
    usage = read._replace(output=written, web_search=searches)
    return Likely(usage, "assumed" if seen is None else "recent_calls")


def dearest_usage(plan: Plan) -> tuple[Usage, Conditions]:
    """Return a usage inside the bounds of a plan that costs as much as any can, and how it is
    served: its charge is what the plan holds for.
    """

    def charge(found: tuple[Usage, Conditions]) -> int:
        usage, conditions = found
        return charge_nanos(usage, plan.price, plan.access.multiplier_millionths, conditions)

    return max(_extremes(plan), key=charge)


def _extremes(plan: Plan) -> Iterator[tuple[Usage, Conditions]]:
    """Yield the usages at the corners of a plan's bounds: one of them is the dearest."""
    terms, bound = plan.price.terms, plan.input_bound
    lengths = {bound}
    tiers = {plan.conditions}
    if terms is not None:
        lengths.update(min(tier.above_input_tokens, bound) for tier in terms.context_tiers)
        tiers.add(plan.conditions._replace(service_tier=""))
    written = (plan.output_bound + plan.request.beside_bound) * plan.request.choices
    counts = {name: bound for name, bound in plan.count_bounds.items() if _is_priced(plan, name)}
    for read in sorted(lengths, reverse=True):
        for conditions in sorted(tiers, reverse=True):
            for name_in in _TEXT_INPUT if plan.is_text_only else INPUT_CLASSES:
                for name_out in _TEXT_OUTPUT if plan.is_text_only else OUTPUT_CLASSES:
                    amounts = {name_in: read, name_out: written, **counts}
                    yield Usage.from_dict({**amounts, "source": "estimated"}), conditions


def _is_priced(plan: Plan, name: str) -> bool:
    return getattr(plan.price, name) is not None


def describe_quote(plan: Plan, likely: Likely, *, quote_id: str) -> dict[str, Any]:
    """Return a quote as it is answered; money as decimal strings of US dollars."""
    dearest, conditions = dearest_usage(plan)
    return {
        "id": quote_id,
        "object": "quote",
        "model": plan.model.name,
        "endpoint": plan.request.endpoint,
        "currency": "USD",
        "price_version": plan.price.id,
        "multiplier": format_multiplier(plan.access.multiplier_millionths),
        "at_most": _cost(plan, dearest, conditions),
        "likely": {**_cost(plan, likely.usage, plan.conditions), "basis": likely.basis},
        "hold": None,
    }


def describe_hold(
    *, hold_id: str, amount_nanos: int, output_cap: int | None, expires_at: datetime
) -> dict[str, Any]:
    """Return the hold of a quote as it is answered."""
    return {
        "id": hold_id,
        "amount": format_usd(amount_nanos),
        "output_cap": output_cap,
        "expires_at": expires_at.isoformat(timespec="seconds"),
    }


def _cost(plan: Plan, usage: Usage, conditions: Conditions) -> dict[str, Any]:
    multiplier = plan.access.multiplier_millionths
    lines = explain(usage, plan.price, multiplier, conditions)
    return {
        "amount": format_usd(sum(line.amount_nanos for line in lines)),
        "input_tokens": usage.input_tokens,
        "output_tokens": usage.output_tokens,
        "service_tier": conditions.service_tier or "default",
        "lines": [_line(line) for line in lines],
    }


def _line(line: ChargeLine) -> dict[str, Any]:
    return {
        "item": line.item,
        "count": line.count,
        "price": format_usd(line.price_nanos),
        "per": 1_000_000 if line.item in PER_MILLION else 1,
        "terms_multiplier": format_factor(line.factor),
        "amount": format_usd(line.amount_nanos),
    }
