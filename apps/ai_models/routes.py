"""Routes: making and changing the ways from models to providers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import IntegrityError, transaction
from django.http import HttpRequest

from apps.ai_models.catalogue import change_price
from apps.ai_models.locks import lock_ends, lock_route
from apps.ai_models.models import AIModel, Route
from apps.ai_models.prices import PriceChange
from apps.ai_models.removal import is_route_used
from apps.ai_models.traces import look_for_route
from apps.audit.events import record_event, set_values, values_of
from apps.core.domain_errors import DomainError
from apps.providers.models import Provider


class RouteExists(DomainError):
    """The model has this route already."""

    status_code = 409
    code = "route_exists"
    message = "This model already has a route to this provider under this name."


class RouteInUse(DomainError):
    """Calls or costs explain themselves by this route's ends."""

    status_code = 409
    code = "route_in_use"
    message = "A route that has been used keeps its model and provider. Make another one."


def create_route(
    *,
    model: AIModel,
    provider: Provider,
    upstream_name: str = "",
    values: Mapping[str, Any] | None = None,
    cost: PriceChange | None = None,
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
) -> Route:
    """Make a route; `values` are other fields, the provider's defaults stand in for the rest.

    Raises RouteExists, and OwnerGone where model or provider were deleted meanwhile.
    """
    defaults = {"priority": provider.priority, "weight": provider.weight}
    with transaction.atomic():
        lock_ends(model=model, provider=provider)
        route = Route(
            model=model,
            provider=provider,
            upstream_name=upstream_name or model.name,
            **{**defaults, **(values or {})},
        )
        _save(route)
        record_event(
            actor=actor,
            action="route.created",
            subject=route,
            after=values_of(route),
            request=request,
        )
        if cost is not None:
            change_price(route=route, change=cost, actor=actor, request=request)
    return route


def change_route(
    *,
    route: Route,
    values: Mapping[str, Any],
    cost: PriceChange | None = None,
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
) -> Route:
    """Set the given fields of a route and return it as it is now.

    Raises RouteExists, RouteInUse and OwnerGone.
    """
    is_moved = "model" in values or "provider" in values
    look = look_for_route(route) if is_moved else None
    with transaction.atomic():
        if is_moved:
            # Before the route, as everywhere: who removes a model locks its routes after it.
            lock_ends(
                model=values.get("model", route.model),
                provider=values.get("provider", route.provider),
            )
        locked = lock_route(route)
        old, new = set_values(locked, values)
        if {"model_id", "provider_id"} & new.keys() and is_route_used(locked, look):
            raise RouteInUse
        if new:
            _save(locked, fields=list(new))
            record_event(
                actor=actor,
                action="route.changed",
                subject=locked,
                before=old,
                after=new,
                request=request,
            )
        if cost is not None:
            change_price(route=locked, change=cost, actor=actor, request=request)
    return locked


def _save(route: Route, *, fields: list[str] | None = None) -> None:
    try:
        with transaction.atomic():
            route.save(update_fields=fields)
    except IntegrityError as error:
        taken = Route.objects.filter(
            model_id=route.model_id,
            provider_id=route.provider_id,
            upstream_name=route.upstream_name,
        ).exclude(pk=route.pk)
        if taken.exists():
            raise RouteExists from error
        raise
