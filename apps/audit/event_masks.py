"""Which parts of admin events only administrators see.

That is where providers are, addresses of people, what identifies a key, and who may use the Django
admin: whoever may not see it in a list must not find it in the history of that list.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from django.db.models import Q, QuerySet
from rest_framework.request import Request

from apps.audit.models import AdminEvent

_HIDDEN: Final = frozenset(
    {"base_url", "email", "host", "is_staff", "is_superuser", "last_four", "prefix"}
)
# Their names hold the end of a key.
_KEYS: Final = frozenset({"api_keys.apikey", "providers.providerkey"})
# Names of a provider's keys are as hidden as the keys.
_OF_PROVIDER_KEYS: Final = frozenset({"name"})
_ADMIN: Final = "admin"  # by its value: people lie above


def sees_all(request: Request | None) -> bool:
    """Return whether nothing is hidden from the caller."""
    return request is not None and getattr(request.user, "role", "") == _ADMIN


def mask_event(shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return an event as it is shown, with null in the place of what is hidden."""
    kind = shown["object_type"]
    hidden = _HIDDEN | _OF_PROVIDER_KEYS if kind == "providers.providerkey" else _HIDDEN
    return {
        **shown,
        "object_name": None if kind in _KEYS else shown["object_name"],
        "before": _mask(shown["before"], hidden),
        "after": _mask(shown["after"], hidden),
    }


def search_events(
    rows: QuerySet[AdminEvent], text: str, *, request: Request | None
) -> QuerySet[AdminEvent]:
    """Return the events that hold a text where the caller can see it."""
    in_name = Q(object_name__icontains=text)
    if not sees_all(request):
        in_name &= ~Q(object_type__in=_KEYS)
    return rows.filter(in_name | Q(reason__icontains=text) | Q(actor_name__icontains=text))


def _mask(value: Any, hidden: frozenset[str]) -> Any:
    if isinstance(value, Mapping):
        return {
            name: None if name in hidden else _mask(inner, hidden) for name, inner in value.items()
        }
    return value
