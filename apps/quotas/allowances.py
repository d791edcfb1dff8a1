"""Funded allowances: giving, changing, taking back and reading users' quotas.

A quota's money is moved by transactions against promotion, and every change writes its admin event
in the same transaction. Rows are locked in one order: users by id, the model group, quotas by id,
accounts by id.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final, TypedDict

from django.db import connection, models, transaction
from django.http import HttpRequest

from apps.audit.events import changed_values, make_event, record_events, values_of
from apps.audit.models import AdminEvent
from apps.billing.connections import post_over
from apps.billing.ledger.batch import Insufficient
from apps.billing.ledger.commands import Line, Posting
from apps.billing.models import Account, AccountKind, EntryKind, TransactionKind
from apps.core.domain_errors import DomainError, Gone
from apps.core.ids import new_uuid7
from apps.core.locks import lock_row
from apps.model_groups.groups import GroupGone
from apps.model_groups.models import ModelGroup
from apps.quotas.models import RepeatKey, UserQuota
from apps.quotas.repeats import Repeat, ResultGone, claim
from apps.users.changes import UserGone, lock_users, refuse_own_money
from apps.users.models import User

TOTAL_NANOS_MAX: Final = 1_000_000 * 10**9


class TotalBelowUse(DomainError):
    """A quota's total cannot go below what is used and held."""

    status_code = 409
    code = "total_below_use"
    message = "The total is below what is already used and held."


class TotalOutOfRange(DomainError, ValueError):
    """A quota's total is negative or above the limit."""

    code = "total_out_of_range"
    message = f"The total must be from 0 to {TOTAL_NANOS_MAX // 10**9} USD."


class ExpiryPassed(DomainError):
    """A new quota would never have counted."""

    code = "expiry_passed"
    message = "A new quota cannot have expired already."


class QuotaGone(Gone):
    """The quota was deleted meanwhile."""


@dataclass(frozen=True, slots=True)
class QuotaUse:
    """What a quota has left, in nanos: used + held + remaining = total."""

    used_nanos: int
    held_nanos: int
    remaining_nanos: int


@dataclass(frozen=True, slots=True)
class Grant:
    """What users are given: so much on a model group, until a moment."""

    model_group: ModelGroup
    total_nanos: int
    expires_at: datetime | None = None
    is_active: bool = True


class QuotaChanges(TypedDict, total=False):
    """What changes about a quota; what is left out stays. `add_nanos` raises the total."""

    total_nanos: int
    add_nanos: int
    expires_at: datetime | None
    is_active: bool


@dataclass(frozen=True, slots=True)
class Cause:
    """Who changes quotas, why, and from where."""

    actor: User | None
    reason: str = ""
    request: HttpRequest | None = None


def create_quota(
    *,
    user: User,
    model_group: ModelGroup,
    total_nanos: int,
    expires_at: datetime | None = None,
    is_active: bool = True,
    actor: User | None = None,
    reason: str = "",
    repeat: Repeat | None = None,
    request: HttpRequest | None = None,
) -> UserQuota:
    """Give a user an allowance on a model group, funded from promotion.

    Raises TotalOutOfRange, ExpiryPassed, UserGone, GroupGone, IdempotencyKeyReused and ResultGone.
    """
    grant = Grant(model_group, total_nanos, expires_at, is_active)
    with transaction.atomic():
        claimed = claim(repeat, [user.pk]) if repeat is not None else None
        if claimed is not None and claimed.done:
            return _get_done(claimed)
        made = give_quotas(user_ids=[user.pk], grant=grant, cause=Cause(actor, reason, request))
        if not made:
            raise UserGone
        _finish(claimed, made[0])
    return made[0]


def change_quota(
    *,
    quota_id: int,
    changes: QuotaChanges,
    actor: User | None,
    reason: str = "",
    repeat: Repeat | None = None,
    request: HttpRequest | None = None,
) -> UserQuota:
    """Change a quota and return it.

    Raises TotalBelowUse, TotalOutOfRange, QuotaGone, IdempotencyKeyReused and ResultGone.
    """
    with transaction.atomic():
        claimed = claim(repeat, [quota_id]) if repeat is not None else None
        if claimed is not None and claimed.done:
            return _get_done(claimed)
        found = change_quotas(
            quota_ids=[quota_id], changes=changes, cause=Cause(actor, reason, request)
        )
        if not found:
            raise QuotaGone
        _finish(claimed, found[0])
    return found[0]


def check_grant(grant: Grant) -> None:
    """Refuse what nobody can be given. Raises TotalOutOfRange and ExpiryPassed."""
    _check(grant.total_nanos)
    if grant.expires_at is not None and grant.expires_at <= datetime.now(UTC):
        raise ExpiryPassed


def give_quotas(*, user_ids: Sequence[int], grant: Grant, cause: Cause) -> list[UserQuota]:
    """Give each user that exists a quota, all funded by one transaction of the ledger.

    For callers with an open transaction. Raises TotalOutOfRange, ExpiryPassed and GroupGone.
    """
    check_grant(grant)
    # Gone later, user or group would only be missed at the commit.
    users = list(lock_users(user_ids).values())
    lock_row(ModelGroup.objects, grant.model_group.pk, gone=GroupGone, no_key=True)
    accounts = Account.objects.bulk_create(
        [
            Account(
                kind=AccountKind.QUOTA,
                customer_id=user.customer_id,
                name=f"quota of {user.username} on {grant.model_group.name}"[:100],
            )
            for user in users
        ]
    )
    quotas = UserQuota.objects.bulk_create(
        [
            UserQuota(
                user=user,
                model_group=grant.model_group,
                account=account,
                total_nanos=grant.total_nanos,
                expires_at=grant.expires_at,
                is_active=grant.is_active,
            )
            for user, account in zip(users, accounts, strict=True)
        ]
    )
    if grant.total_nanos and quotas:
        fund([(quota, grant.total_nanos) for quota in quotas], cause, "quota given")
    record_events(
        [
            make_event(
                actor=cause.actor,
                action="quota.created",
                subject=quota,
                after=values_of(quota),
                reason=cause.reason,
                request=cause.request,
            )
            for quota in quotas
        ]
    )
    return quotas


def check_changes(*, quota_ids: Sequence[int], changes: QuotaChanges) -> None:
    """Refuse what cannot be changed alike of all these quotas, as things are now.

    Raises TotalBelowUse and TotalOutOfRange, with the quota's id in the message.
    """
    if not changes.keys() & {"total_nanos", "add_nanos"}:
        return
    rows = UserQuota.objects.filter(pk__in=quota_ids).select_related("account").order_by("pk")
    for quota in rows:
        total = _total_after(quota, changes)
        if not 0 <= total <= TOTAL_NANOS_MAX:
            raise TotalOutOfRange(f"Quota {quota.pk}: {TotalOutOfRange.message}")
        if total < quota.total_nanos and remaining(quota).remaining_nanos < (
            quota.total_nanos - total
        ):
            raise TotalBelowUse(f"Quota {quota.pk}: {TotalBelowUse.message}")


def change_quotas(
    *, quota_ids: Sequence[int], changes: QuotaChanges, cause: Cause
) -> list[UserQuota]:
    """Change quotas, all funded by one transaction of the ledger, and return those that exist.

    For callers with an open transaction. Raises TotalBelowUse and TotalOutOfRange.
    """
    quotas = list(lock_quotas(quota_ids))
    before = {quota.pk: values_of(quota) for quota in quotas}
    differences = []
    for quota in quotas:
        total = _total_after(quota, changes)
        _check(total)
        if total != quota.total_nanos:
            differences.append((quota, total - quota.total_nanos))
        quota.total_nanos = total
        quota.expires_at = changes.get("expires_at", quota.expires_at)
        quota.is_active = changes.get("is_active", quota.is_active)
    if differences:
        try:
            fund(differences, cause, "quota changed")
        except Insufficient as error:
            raise TotalBelowUse from error
    events = [save_changed(quota, before[quota.pk], "quota.changed", cause) for quota in quotas]
    record_events([event for event in events if event is not None])
    return quotas


def remaining(quota: UserQuota) -> QuotaUse:
    """Return what is used, held and left. Reads `quota.account`."""
    account = quota.account
    return QuotaUse(
        used_nanos=quota.total_nanos - account.posted_nanos,
        held_nanos=account.held_nanos,
        remaining_nanos=account.posted_nanos - account.held_nanos,
    )


def lock_quotas(quota_ids: Sequence[int]) -> models.QuerySet[UserQuota]:
    """Return the quotas that exist, by id; who reads them has locked them."""
    rows = UserQuota.objects.select_for_update(of=("self",)).select_related("user", "model_group")
    return rows.filter(pk__in=quota_ids).order_by("pk")


def save_changed(
    quota: UserQuota, values_before: dict[str, Any], action: str, cause: Cause
) -> AdminEvent | None:
    """Save a quota and return the event to record, None where nothing changed."""
    before, after = changed_values(values_before, values_of(quota))
    if not after:
        return None
    quota.save(update_fields=["total_nanos", "expires_at", "is_active", "updated_at"])
    return make_event(
        actor=cause.actor,
        action=action,
        subject=quota,
        before=before,
        after=after,
        reason=cause.reason,
        request=cause.request,
    )


def fund(differences: Sequence[tuple[UserQuota, int]], cause: Cause, why: str) -> None:
    """Move money between promotion and quotas.

    Raises Insufficient where it is used or held, and OwnAccount (see `refuse_own_money`).
    """
    actor = cause.actor
    if actor is not None and any(
        quota.user_id == actor.pk and nanos > 0 for quota, nanos in differences
    ):
        refuse_own_money(actor, actor)
    promotion = Account.objects.get(kind=AccountKind.PROMOTION)
    transaction_id = new_uuid7()
    moved_nanos = sum(nanos for _, nanos in differences)
    lines = [Line(promotion.pk, _kind_of(-moved_nanos), -moved_nanos)] if moved_nanos else []
    lines += [Line(quota.account_id, _kind_of(nanos), nanos) for quota, nanos in differences]
    posting = Posting(
        transaction_id=transaction_id,
        kind=TransactionKind.QUOTA,
        idempotency_key=f"quota:{transaction_id}",
        actor_id=cause.actor.pk if cause.actor else None,
        actor_name=cause.actor.username if cause.actor else "",
        reason=(cause.reason or why)[:500],
        lines=tuple(lines),
    )
    post_over(connection, posting, now=datetime.now(UTC))


def _total_after(quota: UserQuota, changes: QuotaChanges) -> int:
    return changes.get("total_nanos", quota.total_nanos) + changes.get("add_nanos", 0)


def _check(total_nanos: int) -> None:
    if not 0 <= total_nanos <= TOTAL_NANOS_MAX:
        raise TotalOutOfRange


def _get_done(claimed: RepeatKey) -> UserQuota:
    quota = UserQuota.objects.filter(pk=claimed.done[0]).first()
    if quota is None:
        raise ResultGone
    return quota


def _finish(claimed: RepeatKey | None, quota: UserQuota) -> None:
    if claimed is not None:
        claimed.done = [quota.pk]
        claimed.save(update_fields=["done"])


def _kind_of(nanos: int) -> str:
    return EntryKind.CREDIT if nanos > 0 else EntryKind.DEBIT
