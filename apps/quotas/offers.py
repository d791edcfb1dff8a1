"""What a user may call and at which price: the rule of the data plane, asked of the database.

Open are public groups, groups of his user group, and groups for which he has a running quota; the
cheapest counts, times his user group's multiplier, rounded up. A model is offered while it and a
route of it are active, the route's provider can be called, and its price now is complete. What is
known only to a running gateway (circuits, unreadable secrets, what a key restricts) takes no part.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.conf import settings
from django.db.models import OuterRef, Q, QuerySet, Subquery

from apps.ai_models.models import AIModel, PriceVersion, Route
from apps.ai_models.price_serializers import show_price
from apps.ai_models.prices import price_of
from apps.core.addresses import UrlRefused, check_upstream_url
from apps.model_groups.models import ModelGroup
from apps.providers.models import Provider
from apps.quotas.models import UserQuota
from apps.users.models import User, UserGroup

_MILLION = 1_000_000
# Nanos times millionths: the unit in which a price times a multiplier is a whole number.
_PLACES = 15
_PLACES_PER_THOUSAND = 18


@dataclass(frozen=True, slots=True)
class Offer:
    """A model that a user may call, at which price and multiplier, by which groups."""

    model: AIModel
    price: PriceVersion
    multiplier_millionths: int
    model_groups: tuple[str, ...]

    @property
    def prices(self) -> dict[str, Any]:
        """The price in the form in which it is set, its amounts after the multiplier, exact."""
        return show_price(
            price_of(self.price),
            lambda nanos: _decimal(nanos * self.multiplier_millionths, _PLACES),
        )

    @property
    def input_price_per_1k(self) -> str:
        """USD per thousand input tokens after the multiplier, exact."""
        return _decimal(
            (self.price.input_nanos or 0) * self.multiplier_millionths, _PLACES_PER_THOUSAND
        )

    @property
    def output_price_per_1k(self) -> str:
        """USD per thousand output tokens after the multiplier, exact."""
        return _decimal(
            (self.price.output_nanos or 0) * self.multiplier_millionths, _PLACES_PER_THOUSAND
        )


def list_offers(
    *, user: User, now: datetime, models: QuerySet[AIModel] | None = None
) -> list[Offer]:
    """Return what the user may call now, of `models` or of all, in the order of lists."""
    groups = _open_groups(user, now)
    discount = _group_multiplier(user)
    newest = PriceVersion.objects.filter(model=OuterRef("pk"), effective_at__lte=now).order_by(
        "-effective_at", "-id"
    )
    found = (
        (AIModel.objects.all() if models is None else models)
        .filter(pk__in=groups.keys() & _models_with_a_way(), is_active=True)
        .annotate(price_id=Subquery(newest.values("id")[:1]))
        .order_by("position", "name")
    )
    rows = list(found)
    prices = PriceVersion.objects.filter(
        input_nanos__isnull=False, output_nanos__isnull=False
    ).in_bulk([row.price_id for row in rows if row.price_id is not None])
    return [
        Offer(
            model=row,
            price=prices[row.price_id],
            # Rounded up, so that no product of discounts becomes free by rounding.
            multiplier_millionths=-(
                -min(group.multiplier_millionths for group in groups[row.pk]) * discount // _MILLION
            ),
            model_groups=tuple(sorted(group.name for group in groups[row.pk])),
        )
        for row in rows
        if row.price_id in prices
    ]


def list_callable_names(*, user: User, now: datetime) -> frozenset[str]:
    """Return the names of the models that the user may call, whether they are up or not."""
    open_ids = _open_groups(user, now).keys()
    rows = AIModel.objects.filter(pk__in=open_ids, is_active=True)
    return frozenset(rows.values_list("name", flat=True))


def _open_groups(user: User, now: datetime) -> dict[int, list[ModelGroup]]:
    """Return model id → the groups by which the user may call it."""
    funded = UserQuota.objects.filter(user=user, is_active=True).filter(
        Q(expires_at__isnull=True) | Q(expires_at__gt=now)
    )
    is_open = Q(is_public=True) | Q(pk__in=funded.values("model_group_id"))
    if user.user_group_id is not None:
        links = ModelGroup.user_groups.through._default_manager.filter(
            usergroup_id=user.user_group_id
        )
        is_open |= Q(pk__in=links.values("modelgroup_id"))
    groups = ModelGroup.objects.filter(is_open, is_active=True).in_bulk()
    found: dict[int, list[ModelGroup]] = defaultdict(list)
    members = ModelGroup.models.through._default_manager.filter(modelgroup_id__in=groups)
    for group_id, model_id in members.values_list("modelgroup_id", "aimodel_id"):
        found[model_id].append(groups[group_id])
    return found


def _group_multiplier(user: User) -> int:
    if user.user_group_id is None:
        return _MILLION
    rows = UserGroup.objects.filter(pk=user.user_group_id)
    found = rows.values_list("multiplier_millionths", flat=True).first()
    return _MILLION if found is None else found


def _models_with_a_way() -> set[int]:
    """Return the ids of models with an active route to a provider that can be called."""
    providers = Provider.objects.filter(is_active=True, keys__is_active=True).distinct()
    callable_ids = []
    for provider_id, base_url in providers.values_list("pk", "base_url"):
        try:
            check_upstream_url(base_url, settings.PRIVATE_UPSTREAMS)
        except UrlRefused:
            continue
        callable_ids.append(provider_id)
    routes = Route.objects.filter(is_active=True, provider_id__in=callable_ids)
    return set(routes.values_list("model_id", flat=True))


def _decimal(units: int, places: int) -> str:
    """Return units of 10^-places as the shortest exact decimal string."""
    whole, fraction = divmod(units, 10**places)
    return f"{whole}.{fraction:0{places}d}".rstrip("0").rstrip(".")
