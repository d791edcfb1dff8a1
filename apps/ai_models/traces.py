"""Finds the calls that name a model or a route."""

from __future__ import annotations

from apps.ai_models.models import AIModel, Route
from apps.audit.history import Look, Trace, look_for_calls


def look_for_model(model: AIModel) -> Look:
    """Look for calls that name the model."""
    return look_for_calls(
        Trace(
            row_id=model.pk,
            created_at=model.created_at,
            column="model_id",
            requests={"requested_model": model.name, "model_id": model.pk},
        )
    )


def look_for_route(route: Route) -> Look:
    """Look for calls that name the route."""
    return look_for_calls(
        Trace(
            row_id=route.pk,
            created_at=route.created_at,
            column="route_id",
            # A route that was used keeps its ends.
            requests={
                "requested_model": route.model.name,
                "provider_id": route.provider_id,
                "route_id": route.pk,
            },
            attempts={"route_id": route.pk},
        )
    )
