"""Keys that people make and change for themselves: never with more rights than they have."""

from __future__ import annotations

from django.db import transaction
from django.http import HttpRequest
from django.utils import timezone

from apps.api_keys.changes import KeyChanges, change_key, check_room
from apps.api_keys.issue import KeyLimits, issue_key, lock_owner, reset_default_key
from apps.api_keys.models import APIKey
from apps.core.domain_errors import DomainError
from apps.quotas.offers import list_callable_names
from apps.users.models import User


class ModelNotAllowed(DomainError):
    """A key would name a model that its owner may not call; alike for unknown ones."""

    code = "model_not_allowed"
    message = "allowed_models may hold only names of models that you may call."


def issue_own_key(
    *, user: User, name: str, limits: KeyLimits, request: HttpRequest
) -> tuple[APIKey, str]:
    """Make a key for oneself and return it with the raw key.

    Raises ModelNotAllowed, TooManyKeys, NetworkMalformed and OperationUnknown.
    """
    _check_models(user, limits.get("allowed_models", []), known=())
    with transaction.atomic():
        lock_owner(user.pk)
        check_room(user_id=user.pk, added=1, activated=1)
        return issue_key(user=user, name=name, actor=user, request=request, **limits)


def change_own_key(*, user: User, key: APIKey, changes: KeyChanges, request: HttpRequest) -> APIKey:
    """Change a key of one's own and return it. Names that the key has already may stay.

    Raises ModelNotAllowed, KeyLocked, TooManyKeys, KeyGone, NetworkMalformed and OperationUnknown.
    """
    _check_models(user, changes.get("allowed_models", []), known=key.allowed_models)
    return change_key(key_id=key.pk, changes=changes, actor=user, is_by_owner=True, request=request)


def refresh_own_key(*, user: User, request: HttpRequest) -> str:
    """Replace one's default key and return the new one. Raises TooManyKeys."""
    with transaction.atomic():
        lock_owner(user.pk)
        replaced = APIKey.objects.filter(user=user, is_default=True, is_active=True)
        check_room(user_id=user.pk, added=1, activated=0 if replaced.exists() else 1)
        _, raw = reset_default_key(user=user, actor=user, request=request)
    return raw


def _check_models(user: User, names: list[str], *, known: list[str] | tuple[str, ...]) -> None:
    wanted = set(names) - set(known)
    if wanted and not wanted <= list_callable_names(user=user, now=timezone.now()):
        raise ModelNotAllowed
