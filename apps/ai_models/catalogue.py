"""The catalogue: models, their routes and their prices.

Prices are nanos per million tokens by token class. A price is never edited: a new one is a new
version.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import transaction
from django.http import HttpRequest
from django.utils import timezone

from apps.ai_models.models import AIModel, PriceVersion, Route
from apps.audit.events import changed_values, record_event, values_of
from apps.core.domain_errors import DomainError
from apps.core.usage import TOKEN_CLASSES
from apps.providers.models import Provider

PRICE_NANOS_MAX: Final = 10**15


class ModelExists(DomainError):
    """There is a model of this name."""

    status_code = 409
    code = "model_exists"
    message = "A model with this name already exists."


class PriceOutOfRange(DomainError):
    """A price is negative or absurdly high."""

    code = "price_out_of_range"
    message = "A price must be from 0 to 1000000 USD."


class UnknownTokenClass(DomainError):
    """A price is given for something that is not counted."""

    code = "unknown_token_class"
    message = "Prices are by token class: " + ", ".join(TOKEN_CLASSES) + "."


def create_model(
    *,
    name: str,
    provider: Provider | None = None,
    upstream_name: str = "",
    prices: Mapping[str, int] | None = None,
    request_nanos: int = 0,
    display_name: str = "",
    description: str = "",
    context_length: int = 128_000,
    max_output_tokens: int = 16_384,
    position: int = 0,
    is_active: bool = True,
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
) -> AIModel:
    """Make a model with its route and first price, as far as these are given.

    Raises ModelExists, PriceOutOfRange and UnknownTokenClass. Without a price it cannot be called.
    """
    with transaction.atomic():
        model, is_new = AIModel.objects.get_or_create(
            name=name,
            defaults={
                "display_name": display_name,
                "description": description,
                "context_length": context_length,
                "max_output_tokens": max_output_tokens,
                "position": position,
                "is_active": is_active,
            },
        )
        if not is_new:
            raise ModelExists
        record_event(
            actor=actor,
            action="model.created",
            subject=model,
            after=values_of(model),
            request=request,
        )
        _offer(
            model,
            provider=provider,
            upstream_name=upstream_name,
            prices=prices,
            request_nanos=request_nanos,
            actor=actor,
            request=request,
        )
    return model


def change_model(
    *,
    model: AIModel,
    values: Mapping[str, Any],
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
) -> AIModel:
    """Set the given fields of a model (all but its name)."""
    with transaction.atomic():
        before = values_of(model)
        for field, value in values.items():
            setattr(model, field, value)
        model.save(update_fields=[*values, "updated_at"])
        old, new = changed_values(before, values_of(model))
        if new:
            record_event(
                actor=actor,
                action="model.changed",
                subject=model,
                before=old,
                after=new,
                request=request,
            )
    return model


def ensure_route(
    *,
    model: AIModel,
    provider: Provider,
    upstream_name: str = "",
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
) -> Route:
    """Return the model's route to the provider, made with the provider's defaults if absent."""
    with transaction.atomic():
        route, is_new = Route.objects.get_or_create(
            model=model,
            provider=provider,
            upstream_name=upstream_name or model.name,
            defaults={"priority": provider.priority, "weight": provider.weight},
        )
        if is_new:
            record_event(
                actor=actor,
                action="route.created",
                subject=route,
                after=values_of(route),
                request=request,
            )
    return route


def set_price(
    *,
    prices: Mapping[str, int],
    model: AIModel | None = None,
    route: Route | None = None,
    request_nanos: int = 0,
    effective_at: datetime | None = None,
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
) -> PriceVersion:
    """Add a price version: a model's (what clients pay) or a route's (what the provider bills).

    Raises PriceOutOfRange and UnknownTokenClass.
    """
    if (model is None) == (route is None):
        raise ValueError("A price belongs to a model or to a route.")
    if not prices.keys() <= set(TOKEN_CLASSES):
        raise UnknownTokenClass
    if not all(0 <= nanos <= PRICE_NANOS_MAX for nanos in (*prices.values(), request_nanos)):
        raise PriceOutOfRange
    with transaction.atomic():
        version = PriceVersion.objects.create(
            model=model,
            route=route,
            effective_at=effective_at or timezone.now(),
            request_nanos=request_nanos,
            **{f"{name}_nanos": nanos for name, nanos in prices.items()},
        )
        record_event(
            actor=actor,
            action="price.created",
            subject=version,
            after=values_of(version),
            request=request,
        )
    return version


def put_model(
    *,
    name: str,
    values: Mapping[str, Any],
    provider: Provider | None = None,
    upstream_name: str = "",
    prices: Mapping[str, int] | None = None,
    request_nanos: int = 0,
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
) -> tuple[AIModel, bool]:
    """Make the model of this name, or change it; return it and whether it is new.

    `values` are fields of AIModel. Prices, where given, make a new version.
    """
    with transaction.atomic():
        model = AIModel.objects.filter(name=name).first()
        if model is None:
            created = create_model(
                name=name,
                provider=provider,
                upstream_name=upstream_name,
                prices=prices,
                request_nanos=request_nanos,
                actor=actor,
                request=request,
                **values,
            )
            return created, True
        change_model(model=model, values=values, actor=actor, request=request)
        _offer(
            model,
            provider=provider,
            upstream_name=upstream_name,
            prices=prices,
            request_nanos=request_nanos,
            actor=actor,
            request=request,
        )
    return model, False


def _offer(
    model: AIModel,
    *,
    provider: Provider | None,
    upstream_name: str,
    prices: Mapping[str, int] | None,
    request_nanos: int,
    actor: AbstractBaseUser | None,
    request: HttpRequest | None,
) -> None:
    """Give a model the route and the price that are given."""
    if provider is not None:
        ensure_route(
            model=model,
            provider=provider,
            upstream_name=upstream_name,
            actor=actor,
            request=request,
        )
    if prices or request_nanos:
        set_price(
            model=model,
            prices=prices or {},
            request_nanos=request_nanos,
            actor=actor,
            request=request,
        )
