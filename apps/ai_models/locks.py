"""Locks on what makes up the catalogue, taken in one order: provider, model, route."""

from __future__ import annotations

from apps.ai_models.models import AIModel, Route
from apps.core.domain_errors import Gone
from apps.core.locks import lock_row
from apps.providers.models import Provider


class OwnerGone(Gone):
    """What was to be changed was deleted meanwhile."""


def lock_ends(*, model: AIModel, provider: Provider) -> None:
    """Keep both ends of a route from being deleted before it is committed. Raises OwnerGone."""
    lock_provider_end(provider)
    lock_model(model)


def lock_model(model: AIModel) -> AIModel:
    """Return the row as it is now, locked until the end of the transaction. Raises OwnerGone."""
    return lock_row(AIModel.objects, model.pk, gone=OwnerGone)


def lock_route(route: Route) -> Route:
    """Return the row as it is now, locked until the end of the transaction. Raises OwnerGone."""
    rows = Route.objects.select_related("model", "provider")
    return lock_row(rows, route.pk, gone=OwnerGone)


def lock_provider_end(provider: Provider) -> None:
    """Keep the provider from being deleted before the transaction ends. Raises OwnerGone.

    Not against calls of others that only name it, whose commits would wait.
    """
    lock_row(Provider.objects, provider.pk, gone=OwnerGone, no_key=True)
