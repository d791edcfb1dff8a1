"""Keys that providers refuse: disabled automatically, asked again now and then, enabled again.

A refused key is disabled once, however many gateways report it, and only while the stored secret
is still the one that was refused. What people deactivated is never enabled here. Both directions
are admin events of the system.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import transaction
from django.db.models import Q
from django.http import HttpRequest
from django.utils import timezone

from apps.audit.events import changed_values, record_event, values_of
from apps.core.crypto import SecretUnreadable
from apps.core.domain_errors import DomainError
from apps.providers.asking import (
    NoActiveKey,
    ProviderFailed,
    StoredKeyUnreadable,
    ask_for_models,
)
from apps.providers.credentials import lock_key, open_secret
from apps.providers.models import DisabledReason, ProviderKey
from apps.providers.outgoing import Resolve, resolve_name
from apps.providers.registration import BaseUrlRefused

CHECK_SECONDS_MAX: Final = 3_600
# A key that is refused so soon after a check enabled it goes on with longer intervals: a list of
# models is answered by some providers although the account is empty.
RELAPSE: Final = timedelta(hours=6)
_DOUBLINGS_MAX: Final = 12
_COLUMNS: Final = (
    *("disabled_at", "disabled_reason", "enabled_at", "next_check_at", "failed_checks"),
)
# What checking a key moves; no news to whoever reads events.
_BOOKKEEPING: Final = frozenset({"enabled_at", "next_check_at", "failed_checks"})


class NotDisabled(DomainError):
    """The key was not disabled automatically."""

    status_code = 409
    code = "not_disabled"
    message = "The key is not disabled automatically."


def check_after(*, check_seconds: int, failed_checks: int) -> timedelta:
    """Return how long to wait for the next check: doubling with each that failed, to an hour."""
    doubled = check_seconds * 2 ** min(failed_checks, _DOUBLINGS_MAX)
    return timedelta(seconds=max(check_seconds, min(doubled, CHECK_SECONDS_MAX)))


def disable_key(*, key_id: int, secret: str, reason: DisabledReason, now: datetime) -> bool:
    """Disable a key that its provider refused; return whether this call did it.

    Nothing happens to a key that is gone, not in use, disabled already, or has another secret by
    now.
    """
    with transaction.atomic():
        key = ProviderKey.objects.select_for_update().filter(pk=key_id).first()
        if key is None or not key.is_active or key.disabled_at is not None:
            return False
        if not _is_secret(key, secret):
            return False
        is_relapse = key.enabled_at is not None and now - key.enabled_at < RELAPSE
        before = values_of(key)
        key.disabled_at, key.disabled_reason = now, reason
        if not is_relapse:
            key.failed_checks = 0
        _plan_check(key, now)
        key.save(update_fields=_COLUMNS)
        _record(key, "provider_key.disabled", before, reason=DisabledReason(reason).label)
    return True


def enable_key(
    *,
    key: ProviderKey,
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
) -> ProviderKey:
    """Use a key again that was disabled automatically. Raises NotDisabled and Gone."""
    with transaction.atomic():
        row = lock_key(key)
        if row.disabled_at is None:
            raise NotDisabled
        before = values_of(row)
        row.disabled_at, row.disabled_reason, row.next_check_at = None, "", None
        if actor is None:
            row.enabled_at = timezone.now()
        else:
            row.enabled_at, row.failed_checks = None, 0
        row.save(update_fields=_COLUMNS)
        _record(
            row,
            "provider_key.enabled",
            before,
            reason="" if actor is not None else "a health check succeeded",
            actor=actor,
            request=request,
        )
    return row


def list_due_keys(*, now: datetime, count_max: int) -> list[ProviderKey]:
    """Return disabled keys that are to be asked now, the longest due first."""
    due = ProviderKey.objects.enabled().filter(
        Q(next_check_at__lte=now) | Q(next_check_at=None),
        disabled_at__isnull=False,
        provider__is_active=True,
        provider__check_seconds__gt=0,
    )
    return list(due.select_related("provider").order_by("next_check_at", "id")[:count_max])


def check_key(*, key: ProviderKey, now: datetime, resolve: Resolve = resolve_name) -> bool:
    """Ask the provider with a disabled key; enable it where that succeeds, and return whether.

    Asks outside of transactions. Of two checks at the same time only one asks.
    """
    provider = key.provider
    wait = check_after(check_seconds=provider.check_seconds, failed_checks=key.failed_checks + 1)
    claimed = ProviderKey.objects.filter(
        pk=key.pk,
        disabled_at=key.disabled_at,
        next_check_at=key.next_check_at,
    ).update(next_check_at=now + wait, failed_checks=min(key.failed_checks + 1, _DOUBLINGS_MAX))
    if not claimed:
        return False
    try:
        ask_for_models(provider, key=key, resolve=resolve)
    except (ProviderFailed, BaseUrlRefused, NoActiveKey, StoredKeyUnreadable):
        return False
    with transaction.atomic():
        # Only what was asked about: another secret, or one disabled anew, is another matter.
        is_same = ProviderKey.objects.select_for_update().filter(
            pk=key.pk, disabled_at=key.disabled_at, sealed_secret=key.sealed_secret
        )
        if not is_same.exists():
            return False
        enable_key(key=key)
    return True


def _plan_check(key: ProviderKey, now: datetime) -> None:
    seconds = key.provider.check_seconds
    wait = check_after(check_seconds=seconds, failed_checks=key.failed_checks)
    key.next_check_at = now + wait if seconds else None


def _is_secret(key: ProviderKey, secret: str) -> bool:
    try:
        return open_secret(key) == secret
    except SecretUnreadable:
        return False


def _record(
    key: ProviderKey,
    action: str,
    before: dict[str, object],
    *,
    reason: str,
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
) -> None:
    old, new = changed_values(before, values_of(key))
    record_event(
        actor=actor,
        action=action,
        subject=key,
        before={name: value for name, value in old.items() if name not in _BOOKKEEPING},
        after={name: value for name, value in new.items() if name not in _BOOKKEEPING},
        reason=reason,
        request=request,
    )
