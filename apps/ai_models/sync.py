"""What a provider offers against what is offered here, and trying whether it answers.

Nothing here ever changes a model or a route that there is: choosing a name makes what is missing.
Providers are asked outside of transactions.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from django.db import transaction
from django.http import HttpRequest
from django.utils import timezone

from apps.ai_models.catalogue import create_model, ensure_route
from apps.ai_models.models import AIModel, PriceVersion, Route
from apps.audit.events import record_event
from apps.core.domain_errors import DomainError
from apps.core.pieces import in_pieces
from apps.providers.asking import (
    NoActiveKey,
    Offer,
    ProviderFailed,
    StoredKeyUnreadable,
    ask_for_models,
    ask_for_one_token,
    count_ask,
)
from apps.providers.credentials import lock_provider
from apps.providers.models import Provider
from apps.providers.outgoing import Resolve, resolve_name
from apps.providers.registration import BaseUrlRefused, record_refused_url
from apps.users.models import User

CHOICES_MAX: Final = 1_000
# A model with its route and events takes SQLite about 4 ms.
_PIECE: Final = 8
ROUTES_MAX: Final = 20_000
_NAMES_SHOWN_MAX: Final = 10


class NotOffered(DomainError):
    """A chosen name is not on the provider's list."""

    code = "not_offered"
    message = "The provider does not offer this model."


@dataclass(frozen=True, slots=True)
class Choice:
    """A model of the provider that shall be offered here."""

    upstream_name: str
    name: str


@dataclass(frozen=True, slots=True)
class Made:
    """A route that was made, with its model."""

    route: Route
    is_new_model: bool
    is_priced: bool  # without a price a model cannot be called

    @property
    def assumed(self) -> tuple[str, ...]:
        """The values of a new model that the provider's list does not have."""
        return ("context_length", "max_output_tokens") if self.is_new_model else ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """The provider's list beside the routes to it."""

    added: tuple[str, ...]  # upstream names without a route
    known: tuple[Route, ...]  # whose upstream name is listed
    missing: tuple[Route, ...]  # whose upstream name is not listed any more
    ignored_count: int  # entries of the list whose name cannot be used
    fetched_at: datetime
    made: tuple[Made, ...] = ()


@dataclass(frozen=True, slots=True)
class Trial:
    """Whether a provider answered."""

    success: bool
    message: str  # a class of failure, never what the provider said
    latency_ms: int
    tested_at: datetime


def compare_models(
    *,
    provider: Provider,
    actor: User,
    request: HttpRequest | None = None,
    resolve: Resolve = resolve_name,
) -> Comparison:
    """Return what the provider offers against what there is.

    Raises ProviderFailed, NoActiveKey, StoredKeyUnreadable, BaseUrlRefused and TooManyAsks.
    """
    offer, fetched_at = _fetch_offer(provider, actor, request, resolve)
    return _compare(provider, offer, fetched_at)


def add_models(
    *,
    provider: Provider,
    choices: Sequence[Choice],
    actor: User,
    request: HttpRequest | None = None,
    resolve: Resolve = resolve_name,
) -> Comparison:
    """Make models and routes for what was chosen of the provider's list.

    A model of that name gets the route and stays as it is; a route that exists is passed over, so
    that a call that broke off between two pieces can be made again. New models are active but have
    no price, so that they cannot be called. Raises NotOffered and what `compare_models` raises.
    """
    offer, fetched_at = _fetch_offer(provider, actor, request, resolve)
    offered = set(offer.names)
    unknown = [choice.upstream_name for choice in choices if choice.upstream_name not in offered]
    if unknown:
        raise NotOffered(f"Not offered by the provider: {', '.join(unknown[:_NAMES_SHOWN_MAX])}")
    made = []
    for piece in in_pieces(choices[:CHOICES_MAX], _PIECE):
        with transaction.atomic():
            locked = lock_provider(provider)
            made += [_add(locked, choice, actor, request) for choice in piece]
    return _compare(provider, offer, fetched_at, [row for row in made if row is not None])


def try_provider(
    *,
    provider: Provider,
    upstream_name: str = "",
    actor: User,
    request: HttpRequest | None = None,
    resolve: Resolve = resolve_name,
) -> Trial:
    """Ask the provider for its models, or one of them for one token, and record how it went.

    The token is paid for by whoever owns the provider's key. Raises TooManyAsks.
    """
    count_ask(actor.pk)
    tested_at, began = timezone.now(), time.monotonic()
    message = "The provider answered."
    success = False
    try:
        if upstream_name:
            ask_for_one_token(
                provider,
                upstream_name=upstream_name,
                max_tokens_parameter=_max_tokens_parameter(provider, upstream_name),
                resolve=resolve,
            )
        else:
            ask_for_models(provider, resolve=resolve)
        success = True
    except BaseUrlRefused as error:
        message = str(error)
        record_refused_url(provider.base_url, provider=provider, actor=actor, request=request)
    except (ProviderFailed, NoActiveKey, StoredKeyUnreadable) as error:
        message = str(error)
    trial = Trial(success, message, round((time.monotonic() - began) * 1000), tested_at)
    record_event(
        actor=actor,
        action="provider.tested",
        subject=provider,
        after={
            "success": success,
            "message": message,
            "latency_ms": trial.latency_ms,
            **({"model": upstream_name} if upstream_name else {}),
        },
        request=request,
    )
    return trial


def _fetch_offer(
    provider: Provider, actor: User, request: HttpRequest | None, resolve: Resolve
) -> tuple[Offer, datetime]:
    count_ask(actor.pk)
    fetched_at = timezone.now()
    try:
        offer = ask_for_models(provider, resolve=resolve)
    except BaseUrlRefused:
        record_refused_url(provider.base_url, provider=provider, actor=actor, request=request)
        raise
    except (ProviderFailed, NoActiveKey, StoredKeyUnreadable) as error:
        _record_asked(provider, actor, request, {"success": False, "message": str(error)})
        raise
    _record_asked(provider, actor, request, {"success": True, "models": len(offer.names)})
    return offer, fetched_at


def _record_asked(
    provider: Provider, actor: User, request: HttpRequest | None, outcome: dict[str, object]
) -> None:
    record_event(
        actor=actor,
        action="provider.models_listed",
        subject=provider,
        after=outcome,
        request=request,
    )


def _compare(
    provider: Provider, offer: Offer, fetched_at: datetime, made: Sequence[Made] = ()
) -> Comparison:
    rows = Route.objects.filter(provider=provider).select_related("model")
    routes = list(rows.order_by("upstream_name", "id")[:ROUTES_MAX])
    offered, routed = set(offer.names), {route.upstream_name for route in routes}
    return Comparison(
        added=tuple(name for name in offer.names if name not in routed),
        known=tuple(route for route in routes if route.upstream_name in offered),
        missing=tuple(route for route in routes if route.upstream_name not in offered),
        ignored_count=offer.ignored_count,
        fetched_at=fetched_at,
        made=tuple(made),
    )


def _add(
    provider: Provider, choice: Choice, actor: User, request: HttpRequest | None
) -> Made | None:
    """Make the route of one choice, and its model where there is none; None where both exist."""
    model = AIModel.objects.filter(name=choice.name).first()
    is_new_model = model is None
    if model is None:
        model = create_model(name=choice.name, actor=actor, request=request)
    elif Route.objects.filter(
        model=model, provider=provider, upstream_name=choice.upstream_name
    ).exists():
        return None
    route = ensure_route(
        model=model,
        provider=provider,
        upstream_name=choice.upstream_name,
        actor=actor,
        request=request,
    )
    is_priced = (
        not is_new_model
        and PriceVersion.objects.filter(model=model, effective_at__lte=timezone.now()).exists()
    )
    return Made(route, is_new_model, is_priced)


def _max_tokens_parameter(provider: Provider, upstream_name: str) -> str:
    route = Route.objects.filter(provider=provider, upstream_name=upstream_name).first()
    return "" if route is None else route.max_tokens_parameter
