"""The catalogue: models, their first routes and their price versions.

A price is never edited: a new one is a new version.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final, TypedDict, Unpack

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import IntegrityError, transaction
from django.db.models import F
from django.http import HttpRequest
from django.utils import timezone

from apps.ai_models.locks import lock_ends, lock_model, lock_provider_end, lock_route
from apps.ai_models.models import AIModel, PriceVersion, Route
from apps.ai_models.prices import Price, PriceChange, find_version, price_of
from apps.ai_models.traces import look_for_model
from apps.audit.events import record_event, set_values, values_of
from apps.audit.history import Look
from apps.core.domain_errors import DomainError
from apps.core.price_terms import Terms
from apps.providers.models import Provider

# How far the clocks of a client and of this process may be apart.
_CLOCK_TOLERANCE: Final = timedelta(seconds=60)
# How far the clocks of two hosts may be apart, or one may step back.
_CLOCK_DIFFERENCE_MAX: Final = timedelta(minutes=5)
# A price that was to count from now on begins before it is written, but for a clock that steps.
_AT_ONCE: Final = timedelta(seconds=1)


class ModelExists(DomainError):
    """There is a model of this name."""

    status_code = 409
    code = "model_exists"
    message = "A model with this name already exists."


class ModelNameInUse(DomainError):
    """Calls are on record under this name."""

    status_code = 409
    code = "model_name_in_use"
    message = "This model has been called under its name, which therefore stays."


class EffectiveInPast(DomainError):
    """A price would count for calls that were charged already."""

    code = "effective_in_past"
    message = "A price cannot count from a moment in the past."


class WholePriceNeeded(DomainError):
    """A price that counts later was given by some of its classes."""

    code = "whole_price_needed"
    message = (
        "A price that counts later needs the whole `prices`: the other classes may change until "
        "then."
    )


class ModelValues(TypedDict, total=False):
    """What a model has beside its name; the fields of AIModel."""

    display_name: str
    description: str
    context_length: int
    max_output_tokens: int
    image_tokens_max: int
    capabilities: dict[str, Any]
    cache_seconds: int | None
    cache_share_millionths: int | None
    position: int
    strategy: str
    is_sticky: bool
    is_active: bool


def create_model(
    *,
    name: str,
    provider: Provider | None = None,
    upstream_name: str = "",
    prices: Mapping[str, int] | None = None,
    request_nanos: int = 0,
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
    **values: Unpack[ModelValues],
) -> AIModel:
    """Make a model with its route and first price, as far as these are given.

    Raises ModelExists, PriceOutOfRange and UnknownTokenClass. Without a price it cannot be called.
    """
    with transaction.atomic():
        if provider is not None:
            lock_provider_end(provider)
        model, is_new = AIModel.objects.get_or_create(name=name, defaults=values)
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
            price=PriceChange(whole=Price(prices or {}, request_nanos)),
            actor=actor,
            request=request,
        )
    return model


def change_model(
    *,
    model: AIModel,
    values: Mapping[str, Any],
    provider: Provider | None = None,
    upstream_name: str = "",
    price: PriceChange | None = None,
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
) -> AIModel:
    """Set the given fields of a model, give it a route and a price, and return it as it is now.

    Raises ModelExists, ModelNameInUse, OwnerGone, PriceOutOfRange and UnknownTokenClass.
    """
    look = look_for_model(model) if values.get("name", model.name) != model.name else None
    with transaction.atomic():
        if provider is not None:
            lock_provider_end(provider)
        locked = lock_model(model)
        old, new = set_values(locked, values)
        if "name" in new:
            _check_new_name(locked, look or look_for_model(model))
        if new:
            _save_model(locked, fields=[*new, "updated_at"])
            record_event(
                actor=actor,
                action="model.changed",
                subject=locked,
                before=old,
                after=new,
                request=request,
            )
        _offer(
            locked,
            provider=provider,
            upstream_name=upstream_name,
            price=price,
            actor=actor,
            request=request,
        )
    return locked


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
        lock_ends(model=model, provider=provider)
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
    minimum_nanos: int = 0,
    terms: Terms | None = None,
    effective_at: datetime | None = None,
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
) -> PriceVersion:
    """Add a price version: a model's (what clients pay) or a route's (what the provider bills).

    Without `effective_at` it counts from now on, until the next version that was given a moment; of
    several from one moment the last one counts. Raises EffectiveInPast, PriceOutOfRange,
    UnknownTokenClass, TermsRefused and OwnerGone.
    """
    return add_price(
        model=model,
        route=route,
        change=PriceChange(whole=Price(prices, request_nanos, minimum_nanos, terms)),
        effective_at=effective_at,
        actor=actor,
        request=request,
    )


def add_price(
    *,
    change: PriceChange,
    model: AIModel | None = None,
    route: Route | None = None,
    effective_at: datetime | None = None,
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
) -> PriceVersion:
    """Add the version that `change` makes of the price that counts at its moment.

    Raises what `set_price` does, and WholePriceNeeded.
    """
    with transaction.atomic():
        _lock_owner(model, route)
        now = timezone.now()
        if effective_at is not None and effective_at < now - _CLOCK_TOLERANCE:
            raise EffectiveInPast
        if effective_at is not None and effective_at > now:
            # Copied now, the other classes would undo by then what is changed at once meanwhile.
            if change.whole is None:
                raise WholePriceNeeded
            moment = effective_at
        else:
            # What was charged stays explained: inside the tolerance it counts from now on.
            moment = _next_moment(model, route, now)
        old = find_version(at=moment, model=model, route=route)
        price = change.of(price_of(old))
        price.check()
        version = PriceVersion.objects.create(
            model=model,
            route=route,
            effective_at=moment,
            **price.columns(),
        )
        record_event(
            actor=actor,
            action="price.created",
            subject=version,
            before=None if old is None else values_of(old),
            after=values_of(version),
            request=request,
        )
    return version


def change_price(
    *,
    change: PriceChange,
    model: AIModel | None = None,
    route: Route | None = None,
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
) -> PriceVersion | None:
    """Have another price count from now on; return its version, None where it is the same.

    Raises what `set_price` does.
    """
    with transaction.atomic():
        _lock_owner(model, route)
        moment = _next_moment(model, route, timezone.now())
        old = price_of(find_version(at=moment, model=model, route=route))
        if change.of(old) == old:
            return None
        return add_price(model=model, route=route, change=change, actor=actor, request=request)


def put_model(
    *,
    name: str,
    values: Mapping[str, Any],
    provider: Provider | None = None,
    upstream_name: str = "",
    price: PriceChange | None = None,
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
) -> tuple[AIModel, bool]:
    """Make the model of this name, or change it; return it and whether it is new.

    `values` are fields of AIModel. Raises what `change_model` does.
    """
    with transaction.atomic():
        model = AIModel.objects.filter(name=name).first()
        if model is None:
            created = create_model(
                name=name,
                provider=provider,
                upstream_name=upstream_name,
                actor=actor,
                request=request,
                **values,
            )
            if price is not None:
                change_price(model=created, change=price, actor=actor, request=request)
            return created, True
        changed = change_model(
            model=model,
            values=values,
            provider=provider,
            upstream_name=upstream_name,
            price=price,
            actor=actor,
            request=request,
        )
    return changed, False


def _offer(
    model: AIModel,
    *,
    provider: Provider | None,
    upstream_name: str,
    price: PriceChange | None,
    actor: AbstractBaseUser | None,
    request: HttpRequest | None,
) -> None:
    """Give a model the route and the price that are given, as far as it lacks them."""
    if provider is not None:
        ensure_route(
            model=model,
            provider=provider,
            upstream_name=upstream_name,
            actor=actor,
            request=request,
        )
    if price is not None:
        change_price(model=model, change=price, actor=actor, request=request)


def _lock_owner(model: AIModel | None, route: Route | None) -> None:
    if (model is None) == (route is None):
        raise ValueError("A price belongs to a model or to a route.")
    if model is not None:
        lock_model(model)
    if route is not None:
        lock_route(route)


def _next_moment(model: AIModel | None, route: Route | None, now: datetime) -> datetime:
    """Return from when a price counts that is to count at once.

    The last one that is set counts: not before one that a host set at once whose clock is ahead,
    which would else take its place soon and for ever.
    """
    ahead = PriceVersion.objects.filter(
        model=model,
        route=route,
        effective_at__gt=now,
        effective_at__lte=now + _CLOCK_DIFFERENCE_MAX,
    ).filter(effective_at__lte=F("created_at") + _AT_ONCE)
    newest = ahead.order_by("-effective_at").values_list("effective_at", flat=True).first()
    return now if newest is None else newest


def _check_new_name(model: AIModel, look: Look) -> None:
    if AIModel.objects.filter(name=model.name).exclude(pk=model.pk).exists():
        raise ModelExists
    if look.is_called():
        raise ModelNameInUse


def _save_model(model: AIModel, *, fields: list[str]) -> None:
    try:
        with transaction.atomic():
            model.save(update_fields=fields)
    except IntegrityError as error:
        # Somebody else took the name between the check and now.
        if AIModel.objects.filter(name=model.name).exclude(pk=model.pk).exists():
            raise ModelExists from error
        raise
