"""Admin events: who did what to what, written in the transaction that does it.

An event never holds a secret: digests, sealed values, passwords and binary columns are left out of
the values before and after.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from datetime import date, datetime
from typing import Any, Final

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import models
from django.http import HttpRequest

from apps.audit.models import AdminEvent
from apps.core.client_address import find_client_address

_SECRET_FIELDS: Final = frozenset({"password", "sealed_secret", "digest", "refresh_id"})
_TEXT_LENGTH_MAX: Final = 2_000
_LIST_LENGTH_MAX: Final = 1_000


def record_event(
    *,
    actor: AbstractBaseUser | None,
    action: str,
    subject: models.Model | None,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    reason: str = "",
    request: HttpRequest | None = None,
) -> AdminEvent:
    """Write one event and return it. Call it in the transaction of the change.

    `action` is noun.verb, such as "provider.created". Without an actor it was the system.
    """
    event = make_event(
        actor=actor,
        action=action,
        subject=subject,
        before=before,
        after=after,
        reason=reason,
        request=request,
    )
    event.save(force_insert=True)
    return event


def record_events(events: Sequence[AdminEvent]) -> None:
    """Write events of `make_event` by one statement. Call it in the transaction of the change."""
    AdminEvent.objects.bulk_create(events)


def make_event(
    *,
    actor: AbstractBaseUser | None,
    action: str,
    subject: models.Model | None,
    before: Mapping[str, Any] | None = None,
    after: Mapping[str, Any] | None = None,
    reason: str = "",
    request: HttpRequest | None = None,
) -> AdminEvent:
    """Return one event, not yet written."""
    return AdminEvent(
        actor_id=actor.pk if actor is not None else None,
        actor_name=_clean(actor.get_username() if actor is not None else "system", 150),
        action=action,
        object_type=subject._meta.label_lower[:64] if subject is not None else "",
        object_id=str(subject.pk)[:64] if subject is not None else "",
        object_name=_clean(str(subject), 200) if subject is not None else "",
        before=None if before is None else _plain(before),
        after=None if after is None else _plain(after),
        reason=_clean(reason, 500),
        ip_address=client_address(request) if request is not None else "",
        user_agent=_clean(request.headers.get("User-Agent", ""), 256) if request else "",
    )


def values_of(subject: models.Model) -> dict[str, Any]:
    """Return the row's columns by name, ready for JSON, without secrets."""
    return {
        field.attname: _plain(getattr(subject, field.attname))
        for field in subject._meta.concrete_fields
        if field.name not in _SECRET_FIELDS and not isinstance(field, models.BinaryField)
    }


def changed_values(
    before: Mapping[str, Any], after: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return only the values that differ, before and after."""
    names = [name for name in after if before.get(name) != after[name] and name != "updated_at"]
    return {name: before.get(name) for name in names}, {name: after[name] for name in names}


def set_values(
    subject: models.Model, values: Mapping[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Set fields of a row without saving; return the columns that are changed, before and after.

    Compared is the whole: what an event holds of a long text can be the same before and after.
    """
    names = [name for name, value in values.items() if _differ(getattr(subject, name), value)]
    before = values_of(subject)
    for name in names:
        setattr(subject, name, values[name])
    after = values_of(subject)
    options = subject._meta
    columns = [options.get_field(name).attname for name in names]  # type: ignore[union-attr]  # ours
    return {name: before[name] for name in columns}, {name: after[name] for name in columns}


def client_address(request: HttpRequest) -> str:
    """Return the address the request came from, believing only trusted proxies."""
    return find_client_address(
        request.META.get("REMOTE_ADDR") or "",
        request.headers.get("X-Forwarded-For", ""),
        settings.TRUSTED_PROXIES,
    )


def _differ(one: Any, other: Any) -> bool:
    """Return whether two values differ; in JSON 1 and true do, which are equal here."""
    if one != other or not isinstance(one, dict | list):
        return bool(one != other)
    return json.dumps(one, sort_keys=True) != json.dumps(other, sort_keys=True)


def _plain(value: Any) -> Any:
    """Return the value as JSON can hold it, bounded, without NUL (PostgreSQL refuses it)."""
    if value is None or isinstance(value, bool | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in list(value.items())[:_LIST_LENGTH_MAX]}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value[:_LIST_LENGTH_MAX]]
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, models.Model):
        return value.pk
    if isinstance(value, str | uuid.UUID):
        return _clean(str(value), _TEXT_LENGTH_MAX)
    raise TypeError(f"An event cannot hold a {type(value).__name__}.")


def _clean(text: str, length_max: int) -> str:
    return text.replace("\x00", "")[:length_max]
