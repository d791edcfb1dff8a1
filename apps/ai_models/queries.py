"""What the lists of models and routes read: rows with the prices that count now beside them."""

from __future__ import annotations

from typing import Any

from django.db.models import OuterRef, Prefetch, QuerySet, Subquery
from django.utils import timezone

from apps.ai_models.models import AIModel, PriceVersion, Route


def list_models() -> QuerySet[AIModel]:
    """Return models with routes, ids of groups and, as `current_prices`, the version of now."""
    # Models know their groups from the other side only; texts of groups are not shown here.
    groups: Any = AIModel._meta.get_field("model_groups").related_model
    return AIModel.objects.prefetch_related(
        Prefetch("routes", queryset=Route.objects.order_by("priority", "id")),
        Prefetch("model_groups", queryset=groups.objects.only("id")),
        Prefetch("price_versions", queryset=_newest("model"), to_attr="current_prices"),
    ).order_by("position", "name")


def list_routes() -> QuerySet[Route]:
    """Return routes with both ends and, as `current_prices`, the cost version of now."""
    return (
        Route.objects.select_related("model", "provider")
        .prefetch_related(
            Prefetch("cost_versions", queryset=_newest("route"), to_attr="current_prices")
        )
        .order_by("model__name", "priority", "id")
    )


def _newest(owner: str) -> QuerySet[PriceVersion]:
    newest = PriceVersion.objects.filter(
        **{owner: OuterRef(owner)}, effective_at__lte=timezone.now()
    ).order_by("-effective_at", "-id")
    return PriceVersion.objects.filter(id=Subquery(newest.values("id")[:1]))
