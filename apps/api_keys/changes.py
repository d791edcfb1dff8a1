"""Changing, disabling and removing API keys.

The owner of a key sets its name, expiry, restrictions and limits, whoever made it: limits that bind
the owner himself belong on the user or the user group. Two things are the administrators' alone:
how much of the bodies is kept, and enabling a key that one of them has disabled.
"""

from __future__ import annotations

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import transaction
from django.http import HttpRequest
from django.utils import timezone

from apps.api_keys.issue import KeyLimits, check_lists, lock_owner
from apps.api_keys.models import APIKey
from apps.audit.events import changed_values, record_event, values_of
from apps.audit.history import is_call_open
from apps.audit.models import APIRequest
from apps.core.domain_errors import DomainError, Gone
from apps.core.locks import lock_row

ACTIVE_KEYS_MAX = 100
# Rotated keys stay for their history; every one of them is in the memory of every gateway.
KEYS_MAX = 1_000


class KeyGone(Gone):
    """The key was deleted meanwhile."""


class KeyLocked(DomainError):
    """The owner wants to enable a key that an administrator has disabled."""

    status_code = 409
    code = "key_locked"
    message = "An administrator has disabled this key."


class TooManyKeys(DomainError):
    """The owner has as many keys as anybody may have."""

    status_code = 409
    code = "too_many_keys"
    message = f"At most {ACTIVE_KEYS_MAX} active keys, and {KEYS_MAX} in all. Delete unused ones."


class KeyChanges(KeyLimits, total=False):
    """What changes about a key; what is left out stays."""

    name: str
    is_active: bool


def change_key(
    *,
    key_id: int,
    changes: KeyChanges,
    actor: AbstractBaseUser,
    is_by_owner: bool,
    request: HttpRequest | None = None,
) -> APIKey:
    """Change a key and return it. A key that an administrator disables is locked.

    Raises KeyGone, NetworkMalformed, OperationUnknown, and for the owner KeyLocked and TooManyKeys.
    """
    check_lists(changes)
    with transaction.atomic():
        key = _lock(key_id)
        before = values_of(key)
        if is_by_owner and changes.get("is_active") and not key.is_active:
            if key.is_locked:
                raise KeyLocked
            check_room(user_id=key.user_id, added=0, activated=1)
        if not is_by_owner and "is_active" in changes:
            _set_lock(key, is_locked=not changes["is_active"])
        for name, value in changes.items():
            setattr(key, name, value)
        _save_changed(key, before, "api_key.changed", actor, request)
    return key


def remove_key(
    *,
    key_id: int,
    actor: AbstractBaseUser,
    is_by_owner: bool,
    request: HttpRequest | None = None,
) -> bool:
    """Delete a key that was never used, else disable it. Returns whether it was deleted.

    Raises KeyGone.
    """
    with transaction.atomic():
        key = _lock(key_id)
        before = values_of(key)
        if not is_used(key):
            record_event(
                actor=actor,
                action="api_key.deleted",
                subject=key,
                before=before,
                request=request,
            )
            key.delete()
            return True
        if not is_by_owner:
            _set_lock(key, is_locked=True)
        key.is_active = False
        _save_changed(key, before, "api_key.deactivated", actor, request)
    return False


def is_used(key: APIKey) -> bool:
    """Return whether calls name the key, those that still run among them."""
    # In this order: a call that ends in between is on record by then.
    return (
        is_call_open("api_key_id", key.pk) or APIRequest.objects.filter(api_key_id=key.pk).exists()
    )


def check_room(*, user_id: int, added: int, activated: int) -> None:
    """Refuse more keys, and more active keys, than anybody may have. Raises TooManyKeys.

    For callers that hold the owner's lock.
    """
    keys = APIKey.objects.filter(user_id=user_id)
    if added and keys.count() + added > KEYS_MAX:
        raise TooManyKeys
    if activated and keys.filter(is_active=True).count() + activated > ACTIVE_KEYS_MAX:
        raise TooManyKeys


def _lock(key_id: int) -> APIKey:
    """Lock the owner, then the key: the order in which keys are reset, too."""
    owner_id = APIKey.objects.filter(pk=key_id).values_list("user_id", flat=True).first()
    if owner_id is None:
        raise KeyGone
    lock_owner(owner_id)
    return lock_row(APIKey.objects, key_id, gone=KeyGone)


def _set_lock(key: APIKey, *, is_locked: bool) -> None:
    if key.is_locked != is_locked:
        key.locked_at = timezone.now() if is_locked else None


def _save_changed(
    key: APIKey,
    values_before: dict[str, object],
    action: str,
    actor: AbstractBaseUser,
    request: HttpRequest | None,
) -> None:
    before, after = changed_values(values_before, values_of(key))
    if not after:
        return
    key.save(update_fields=list(after))
    record_event(
        actor=actor, action=action, subject=key, before=before, after=after, request=request
    )
