"""Places the hold of a call: which caps count it, and which providers may answer under it.

The caps of the key, its user and his user group have to cover the hold, so have their budgets of
the day and the month, and so has the budget of the provider that is tried first. A provider that
may take over is counted, too, where its budget covers the hold; otherwise the call does not fail
over to it. So no budget is ever exceeded by a call that it had not been asked for, whoever answers.
An answer is lowered to what a provider's budget leaves only when no other provider could give it
whole.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from apps.audit.records import Row
from apps.billing.ledger.commands import Cap, Held, HoldRefused, PlaceHold, has_spent
from apps.billing.periods import bounds_of, is_month
from apps.billing.reaper import QUOTE_SECONDS
from apps.billing.writer import LedgerBusy, LedgerUnavailable
from apps.core.errors import GatewayError
from apps.proxy.health import WHOLE
from apps.proxy.provider_limits import find_shortest_wait
from apps.proxy.quote_holds import quote_gone
from apps.proxy.repeats import Repeated
from apps.proxy.routing import ATTEMPTS_MAX, PLANNED_MAX, plan_routes
from apps.proxy.snapshot import Route
from apps.proxy.strategies import find_rank

if TYPE_CHECKING:
    from apps.proxy.call import Call

# How long a provider is passed over after its budget did not cover a small call.
SPENT_SECONDS: Final = 2.0
_REFUSALS: Final = {"balance": "E19", "owing": "E19", "cap": "E20", "broken": "E35"}
_REACHED: Final = {
    "api_key": "The spending limit of this API key is reached.",
    "user": "The spending limit of this user is reached.",
    "user_group": "The spending limit of this user group is reached.",
    "provider": "The spending limit of this model's providers is reached.",
}


async def place_hold(call: Call) -> tuple[Held, list[Route], Row]:
    """Reserve the worst case of a call and return the hold, the routes that may be tried, and the
    columns of its APIRequest that the hold keeps.

    Raises E19 to E21, E32 to E37, E41, E42, Repeated where its idempotency key has been used, and
    Interrupted where the client left meanwhile; E33 also where all providers are at their limits.
    """
    if call.cached is not None:
        return await _place_for_cached(call)
    routes: Sequence[Route] = call.plan.routes
    refusal: GatewayError | None = None
    able: list[Route] = []  # of providers that could give a lowered answer
    is_whole = len({route.provider.id for route in routes}) > 1
    # Each turn leaves one provider less, and each provider has two turns at most.
    while True:
        planned = _plan(call, routes)
        if able and is_whole and (not planned or _is_resting(call, planned[0])):
            routes, is_whole = [*able, *routes], False
            planned = _plan(call, routes)
        if not planned:
            none_left = _without_room(call, routes) or refusal
            raise none_left or call.gateway.health.refusal(call.plan.routes)
        caps, spare_caps = caps_of_providers(planned)
        detail = _describe(call, planned[0])
        answer = await _place(call, detail, caps, spare_caps, is_whole=is_whole)
        if isinstance(answer, Held):
            return answer, within(planned, (*caps, *answer.spares)), detail
        if answer.cap is None or answer.cap.scope != "provider":
            raise _reason(answer)
        refusal = _refusal(answer)
        spent = [route for route in routes if route.provider.id == answer.cap.scope_id]
        routes = [route for route in routes if route not in spent]
        if answer.left_nanos >= call.plan.least_nanos:
            able += spent
        _rest(call, spent, answer.left_nanos)


async def _place_for_cached(call: Call) -> tuple[Held, list[Route], Row]:
    """Reserve the charge of a call that no provider is asked for."""
    detail = _describe(call, call.plan.routes[0]) | {
        "route_id": None,
        "provider_id": None,
        "provider_name": "",
        "upstream_model": "",
    }
    answer = await _place(call, detail, (), (), is_whole=False)
    if isinstance(answer, Held):
        return answer, [], detail
    raise _reason(answer)


def _plan(call: Call, routes: Sequence[Route]) -> list[Route]:
    gateway, model = call.gateway, call.plan.model
    health = gateway.health
    if len(routes) == 1 and health.is_good:
        provider = routes[0].provider
        if provider.credentials and not provider.is_limited:
            return list(routes)  # The usual model.
    limits, tokens = gateway.provider_limits, call.reserved_tokens
    now = gateway.monotonic()
    resting = {route.id for route in routes if health.is_resting(route, now)}
    planned = plan_routes(
        [route for route in routes if health.has_key(route)],
        random=gateway.random,
        is_open=resting.__contains__,
        is_full=lambda route: limits.find_wait(route, tokens) is not None,
        rank=find_rank(
            call.plan,
            sticky_key=call.sticky_key,
            latencies=gateway.latencies,
            draw_at=gateway.random(),
            started_at=call.started_at,
            now=now,
        ),
        tried_at=health.tried_at,
        count_max=PLANNED_MAX if any(r.provider.is_limited for r in routes) else ATTEMPTS_MAX,
    )
    if planned and model.strategy == "least_latency":
        gateway.latencies.note_try(planned[0].id, call.plan.request.is_stream, now)
    return planned


def _without_room(call: Call, routes: Sequence[Route]) -> GatewayError | None:
    """Return E33 where one of these providers is only at its limits, and may have room later."""
    usable = [route for route in routes if call.gateway.health.has_key(route)]
    wait = find_shortest_wait(call.gateway.provider_limits, usable, call.reserved_tokens)
    return None if wait is None else GatewayError("E33", retry_after=wait)


def _is_resting(call: Call, route: Route) -> bool:
    return call.gateway.health.is_resting(route, call.gateway.monotonic())


def _rest(call: Call, routes: Sequence[Route], left_nanos: int) -> None:
    """Pass a provider over for a while where its budget is spent for others, too: what refused a
    large call may still serve small ones.
    """
    if left_nanos > 0 and left_nanos >= call.plan.small_nanos:
        return
    for route in routes:
        door = (route.id, WHOLE)
        call.gateway.health.circuits.rest(door, call.gateway.monotonic(), SPENT_SECONDS)


def caps_of_providers(routes: Sequence[Route]) -> tuple[tuple[Cap, ...], tuple[Cap, ...]]:
    """Return the cap of the first route's provider and those of the others, if they have any."""
    first = routes[0].provider
    if len(routes) == 1:
        return (() if first.cap is None else (first.cap,)), ()
    others = {route.provider.id: route.provider.cap for route in routes[1:]}
    others.pop(first.id, None)
    return (
        () if first.cap is None else (first.cap,),
        tuple(cap for cap in others.values() if cap is not None),
    )


def within(routes: Sequence[Route], counted: tuple[Cap, ...]) -> list[Route]:
    """Return the routes whose providers have no cap, or one that counts the hold."""
    return [
        route for route in routes if route.provider.cap is None or route.provider.cap in counted
    ]


async def _place(
    call: Call,
    detail: Row,
    caps: tuple[Cap, ...],
    spare_caps: tuple[Cap, ...],
    *,
    is_whole: bool,
) -> Held | HoldRefused:
    plan = call.plan
    hold = PlaceHold(
        request_id=call.request_id,
        customer_id=call.member.customer_id,
        buckets=plan.access.buckets,
        receivable_id=call.member.receivable_id,
        amount_nanos=plan.wanted_nanos,
        amount_nanos_min=plan.least_nanos,
        detail=detail,
        caps=(*plan.caller.caps_at(call.started_at), *caps),
        spare_caps=spare_caps,
        is_whole_at_provider=is_whole,
        claim=None if call.keyed is None else call.keyed.claim,
        spends=call.spends,
    )
    # Placed or refused, it ends what is spent: the next try finds it gone.
    call.spends = None
    call.open_to_interruption()
    try:
        answer = await call.gateway.writer.place(hold)
        if hold.spends is not None and has_spent(hold, answer):
            call.gateway.quotes.forget(hold.spends.request_id)
        return answer
    except LedgerUnavailable as error:
        raise GatewayError("E34") from error
    except LedgerBusy as error:
        raise GatewayError("E37") from error
    except asyncio.CancelledError:
        raise call.translate_cancellation() from None
    finally:
        call.close_to_interruption()


def _reason(answer: HoldRefused) -> Exception:
    """Return why a hold was refused that no other provider would change."""
    if answer.first is not None:
        return Repeated(answer.first)
    return quote_gone() if answer.reason == "spent" else _refusal(answer)


def _refusal(answer: HoldRefused) -> GatewayError:
    cap = answer.cap
    if cap is None:
        return GatewayError(_REFUSALS[answer.reason])
    if not cap.period:
        return GatewayError(_REFUSALS[answer.reason], message=_REACHED[cap.scope])
    name = "monthly" if is_month(cap.period) else "daily"
    _, ends_at = bounds_of(cap.period)
    whose = cap.scope.replace("_", " ")
    return GatewayError(
        "E21",
        message=f"The {name} budget of this {whose} does not cover this request. It begins anew "
        f"at {ends_at:%Y-%m-%dT%H:%MZ}.",
    )


def _describe(call: Call, route: Route) -> Row:
    plan, member, key = call.plan, call.member, call.plan.caller.key
    detail = {
        "customer_id": member.customer_id,
        "wallet_id": member.wallet_id,
        "receivable_id": member.receivable_id,
        "user_id": member.id,
        "user_name": member.name,
        "api_key_id": key.id,
        "api_key_name": key.name,
        "model_id": plan.model.id,
        "requested_model": plan.request.model,
        "route_id": route.id,
        "provider_id": route.provider.id,
        "provider_name": route.provider.name,
        "upstream_model": route.upstream_name,
        "endpoint": call.path,
        "method": "POST",
        "dialect": plan.request.dialect,
        "is_stream": plan.request.is_stream,
        "price_version_id": plan.price.id,
        "cost_version_id": None,
        "multiplier_millionths": plan.access.multiplier_millionths,
        "input_bytes": len(call.body),
        "started_at": call.started_at,
        "ip_address": call.address,
        "user_agent": call.user_agent,
    }
    if plan.request.service_tier:
        detail["service_tier"] = plan.request.service_tier
    if call.quote_seconds is not None:
        detail[QUOTE_SECONDS] = call.quote_seconds
    return detail
