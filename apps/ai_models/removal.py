"""Removing models and routes: what calls or prices name is deactivated instead of deleted."""

from __future__ import annotations

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import transaction
from django.http import HttpRequest

from apps.ai_models.locks import lock_model, lock_route
from apps.ai_models.models import AIModel, Route
from apps.ai_models.traces import look_for_model, look_for_route
from apps.audit.events import record_event, values_of
from apps.audit.history import Look


def remove_model(
    *,
    model: AIModel,
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
) -> bool:
    """Delete a model with its routes and return True; deactivate one with history, return False.

    Prices are append-only, so a model that ever had one has history.
    """
    look = look_for_model(model)
    looks: dict[int, Look] = {}
    for row in Route.objects.filter(model=model).order_by("pk"):
        looks[row.pk] = look_for_route(row)
        # One that is used decides: others, which may take long, are not asked below either.
        if looks[row.pk].is_found:
            break
    with transaction.atomic():
        locked = lock_model(model)
        routes = list(
            Route.objects.select_for_update(of=("self",))
            .select_related("model", "provider")
            .filter(model=locked)
            .order_by("pk")
        )
        if (
            locked.price_versions.exists()
            or any(is_route_used(route, looks.get(route.pk)) for route in routes)
            or look.is_called()
        ):
            _deactivate(locked, action="model.deactivated", actor=actor, request=request)
            return False
        for route in routes:
            _delete(route, action="route.deleted", actor=actor, request=request)
        _delete(locked, action="model.deleted", actor=actor, request=request)
    return True


def remove_route(
    *,
    route: Route,
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
) -> bool:
    """Delete a route that was never used and return True; deactivate any other, return False."""
    look = look_for_route(route)
    with transaction.atomic():
        locked = lock_route(route)
        if is_route_used(locked, look):
            _deactivate(locked, action="route.deactivated", actor=actor, request=request)
            return False
        _delete(locked, action="route.deleted", actor=actor, request=request)
    return True


def is_route_used(route: Route, look: Look | None = None) -> bool:
    """Return whether costs or calls name the route, inside a transaction with a look before it."""
    return route.cost_versions.exists() or (look or look_for_route(route)).is_called()


def _deactivate(
    row: AIModel | Route,
    *,
    action: str,
    actor: AbstractBaseUser | None,
    request: HttpRequest | None,
) -> None:
    if not row.is_active:
        return
    row.is_active = False
    row.save()
    record_event(
        actor=actor,
        action=action,
        subject=row,
        before={"is_active": True},
        after={"is_active": False},
        request=request,
    )


def _delete(
    row: AIModel | Route,
    *,
    action: str,
    actor: AbstractBaseUser | None,
    request: HttpRequest | None,
) -> None:
    before = values_of(row)
    if isinstance(row, AIModel):
        before["model_groups"] = sorted(row.model_groups.values_list("pk", flat=True))
    record_event(actor=actor, action=action, subject=row, before=before, request=request)
    row.delete()
