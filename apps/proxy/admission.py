"""What a call may do and what it costs at most: its plan, decided on the Snapshot alone. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from apps.billing.pricing import (
    MULTIPLIER_ONE,
    NO_COUNTS,
    USUAL,
    Conditions,
    Price,
    PriceIncomplete,
    affordable_output_tokens,
    conditions_of,
    worst_case_nanos,
)
from apps.core.errors import GatewayError
from apps.proxy.dialects.openai_refusals import unsupported
from apps.proxy.dialects.parsed_request import (
    READING_ENDPOINTS,
    WEB_SEARCHES_MAX,
    ParsedRequest,
)
from apps.proxy.dialects.reasoning import thoughts_bound
from apps.proxy.dialects.surfaces import input_tokens_bound, within_context
from apps.proxy.json_body import serialise
from apps.proxy.route_bodies import NOT_CONVERTED, get_bodies
from apps.proxy.routing import no_key_row
from apps.proxy.snapshot import Access, Caller, Model, Route, Snapshot, find_access

# The least cap on output that is worth sending to a provider.
OUTPUT_CAP_MIN: Final = 256
# What Cohere ranks for one unit, and the tokens above which a text counts as several.
# Source: https://cohere.com/pricing
RANKED_A_UNIT: Final = 100
RANKED_TOKENS: Final = 500
# Whose answers may hold images beside their text.
_WRITTEN_ENDPOINTS: Final = frozenset(
    {"chat/completions", "generateContent", "messages", "responses"}
)
# What OpenAI writes to a cache for longer costs more.
# Source: https://developers.openai.com/api/docs/guides/prompt-caching
_CACHING: Final = "prompt_cache_options"
_SHORT_TTLS: Final = (None, "30m")


class Plan(NamedTuple):
    """An admitted call: what it asks for, at which price, and the most that it can cost."""

    caller: Caller
    model: Model
    access: Access
    price: Price
    request: ParsedRequest
    input_bound: int  # tokens
    output_bound: int  # tokens for each choice
    wanted_nanos: int  # the worst case
    least_nanos: int  # the worst case with the lowest cap that may be sent; same as wanted if fixed
    is_text_only: bool
    routes: Sequence[Route] = ()  # that it can be sent on
    converted: Mapping[int, dict[str, Any]] = NOT_CONVERTED  # into what, by route
    conditions: Conditions = USUAL  # by which its price counts
    count_bounds: Mapping[str, int] = NO_COUNTS  # of what is counted by the piece

    @property
    def small_nanos(self) -> int:
        """The most that a small call of this model costs at its list price, whoever makes it."""
        return worst_case_nanos(
            0,
            min(OUTPUT_CAP_MIN, self.model.max_output_tokens),
            self.price,
            MULTIPLIER_ONE,
            is_text_only=True,
        )

    @property
    def is_by_the_unit(self) -> bool:
        """Whether this is a ranking in which nothing that is read has a price."""
        is_free = self.price.input == 0 and self.price.terms is None
        return self.request.endpoint == "rerank" and is_free

    def cap_for(self, held_nanos: int) -> int | None:
        """Return the cap on output that the hold covers, None where it covers the worst case."""
        if held_nanos >= self.wanted_nanos:
            return None
        affordable = affordable_output_tokens(
            held_nanos,
            self.input_bound,
            self.price,
            self.access.multiplier_millionths,
            self.request.choices,
            is_text_only=self.is_text_only,
            conditions=self.conditions,
            count_bounds=self.count_bounds,
        )
        return min(affordable - self.request.beside_bound, self.output_bound)


def get_model(snapshot: Snapshot, caller: Caller, name: str, now: datetime) -> tuple[Model, Access]:
    """Return a model and the caller's access to it.

    Raises E07 alike for unknown and for closed ones.
    """
    model = snapshot.catalogue.models.get(name)
    access = find_access(caller, model, now) if model is not None else None
    if model is None or access is None:
        raise GatewayError("E07", param="model")
    return model, access


class Promise(NamedTuple):
    """At what a call was promised to be charged."""

    model_id: int
    price_version_id: int
    multiplier_millionths: int


def plan_call(
    snapshot: Snapshot,
    caller: Caller,
    request: ParsedRequest,
    now: datetime,
    promised: Promise | None = None,
) -> Plan:
    """Return the plan of a call, at the price of now or at a promised one.

    Raises E07, E13, E14, E32 (also where a model searches by itself and searches have no price),
    and E41 and E42 where no key is left.
    """
    model, access = get_model(snapshot, caller, request.model, now)
    price, access = _get_price(model, access, now, promised)
    if not any(route.provider.credentials for route in model.routes):
        raise GatewayError(no_key_row(model.routes))
    if _searches_unasked(request, model):
        if price.web_search is None:
            raise GatewayError("E32")
        request = request._replace(search_parameter="model")
    _check_price(price, request)
    is_reading = request.endpoint in READING_ENDPOINTS
    output_bound = 0 if is_reading else _output_bound(request, model)
    if request.headers:
        request = request._replace(headers=within_context(request.headers, model.context_length))
    routes, converted = get_bodies(request, model.routes, output_bound)
    if thoughts := 0 if is_reading else _thoughts_bound(request, model, routes, converted):
        request = request._replace(beside_bound=request.beside_bound + thoughts)
    input_bound = _input_bound(request, model, converted)
    conditions = USUAL if price.terms is None else conditions_of(request.service_tier, now)
    count_bounds = _count_bounds(price, request, input_bound)
    is_text_only = _is_text_only(price, request)
    wanted, least = _worst_cases(
        request,
        price,
        access,
        input_bound,
        output_bound,
        is_text_only=is_text_only,
        conditions=conditions,
        count_bounds=count_bounds,
    )
    return Plan(
        caller=caller,
        model=model,
        access=access,
        price=price,
        request=request,
        input_bound=input_bound,
        output_bound=output_bound,
        wanted_nanos=wanted,
        least_nanos=least,
        is_text_only=is_text_only,
        routes=routes,
        converted=converted,
        conditions=conditions,
        count_bounds=count_bounds,
    )


def _get_price(
    model: Model, access: Access, now: datetime, promised: Promise | None
) -> tuple[Price, Access]:
    """Return the price and the access that count, of now or as promised. Raises E13 and E32."""
    price = model.prices.at(now)
    if promised is not None:
        if promised.model_id != model.id:
            raise GatewayError("E13", param="model", message="The quote is for another model.")
        price = model.prices.find(promised.price_version_id)
        access = access._replace(multiplier_millionths=promised.multiplier_millionths)
    if price is None:
        raise GatewayError("E32")
    return price, access


def _input_bound(
    request: ParsedRequest, model: Model, converted: Mapping[int, dict[str, Any]]
) -> int:
    """Return the most tokens that a request is read as, on whichever route."""
    is_reading = request.endpoint in READING_ENDPOINTS
    serialised = serialise(request.body)
    bound = input_tokens_bound(request, serialised, model.context_length, model.image_tokens_max)
    if converted and not is_reading:
        # What a dialect says in more words (tools, above all) is read, too.
        longest = max(len(serialise(body)) for body in converted.values())
        growth = max(longest - len(serialised), 0)
        bound = min(bound + growth, model.context_length)
    if request.has_web_search:
        # What is found is read, too, and nobody knows its length before.
        return model.context_length
    return bound + model.added_tokens


def _is_text_only(price: Price, request: ParsedRequest) -> bool:
    """Return whether text is all that is read and written."""
    if price.image_out is not None and request.endpoint in _WRITTEN_ENDPOINTS:
        return False  # Such a model may draw where nobody asked for it.
    return not (request.has_images or request.has_audio or request.audio_parameter)


def _worst_cases(
    request: ParsedRequest,
    price: Price,
    access: Access,
    input_bound: int,
    output_bound: int,
    *,
    is_text_only: bool,
    conditions: Conditions,
    count_bounds: Mapping[str, int],
) -> tuple[int, int]:
    """Return the most that a call can cost in nanos, and that with the lowest cap on output that
    may be sent; both are the same where it is fixed.

    Raises E32.
    """
    is_fixed = request.endpoint in READING_ENDPOINTS or request.output_tokens_asked is not None
    least_cap = output_bound if is_fixed else min(OUTPUT_CAP_MIN, output_bound)

    def worst_case(cap: int) -> int:
        return worst_case_nanos(
            input_bound,
            (cap + request.beside_bound) * request.choices,
            price,
            access.multiplier_millionths,
            is_text_only=is_text_only,
            conditions=conditions,
            count_bounds=count_bounds,
        )

    try:
        wanted = worst_case(output_bound)
        return wanted, wanted if least_cap == output_bound else worst_case(least_cap)
    except PriceIncomplete as error:
        raise GatewayError("E32") from error


def _count_bounds(price: Price, request: ParsedRequest, input_bound: int) -> Mapping[str, int]:
    """Return how much that is counted by the piece a call holds for, where that has a price."""
    bounds: dict[str, int] = {}
    if request.has_web_search:
        bounds["web_search"] = request.searches_max or WEB_SEARCHES_MAX
    if price.image is not None and request.endpoint in _WRITTEN_ENDPOINTS:
        bounds["image"] = request.choices
    if price.tool_call is not None and request.endpoint == "rerank":
        texts = len(request.body["documents"]) + input_bound // RANKED_TOKENS
        bounds["tool_call"] = -(-texts // RANKED_A_UNIT)
    return bounds or NO_COUNTS


def _searches_unasked(request: ParsedRequest, model: Model) -> bool:
    """Return whether the model searches though the request does not say so."""
    return (
        not request.has_web_search
        and request.endpoint in _WRITTEN_ENDPOINTS
        and any(route.target.always_searches for route in model.routes)
    )


def _check_price(price: Price, request: ParsedRequest) -> None:
    """Refuse what a request asks for and its price does not name. Raises E14."""
    tier = request.service_tier
    if tier and (price.terms is None or price.terms.find_service(tier) is None):
        raise unsupported("service_tier")
    if request.has_web_search and price.web_search is None:
        raise unsupported(request.search_parameter)
    if request.audio_parameter and price.audio_out is None:
        raise unsupported(request.audio_parameter)
    caching = request.body.get(_CACHING)
    is_longer = isinstance(caching, dict) and caching.get("ttl") not in _SHORT_TTLS
    if is_longer and price.cache_write_1h is None:
        raise unsupported(f"{_CACHING}.ttl")


def _output_bound(request: ParsedRequest, model: Model) -> int:
    asked = request.output_tokens_asked
    if asked is None:
        return model.max_output_tokens
    if asked > model.max_output_tokens:
        raise GatewayError(
            "E13",
            code="integer_above_max_value",
            param=request.output_parameter,
            message=f"The model writes at most {model.max_output_tokens} tokens.",
        )
    return asked


def _thoughts_bound(
    request: ParsedRequest,
    model: Model,
    routes: Sequence[Route],
    converted: Mapping[int, dict[str, Any]],
) -> int:
    """Return the most that can be thought beside the maximum, on whichever route."""
    bound = 0
    for route in routes:
        if route.target.thoughts_beside is not None:
            body: Mapping[str, Any] = converted.get(route.id, request.body)
            if route.parameters is not None:
                body, _ = route.parameters.apply(body)
            bound = max(bound, thoughts_bound(route.target, body, model.max_output_tokens))
    return min(bound, model.context_length)
