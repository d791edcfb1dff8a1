"""Funded allowances: giving, changing and reading a user's quota."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from django.db import connection, transaction

from apps.billing.connections import over
from apps.billing.ledger.batch import Insufficient
from apps.billing.ledger.commands import Line, Posting
from apps.billing.ledger.store import post
from apps.billing.models import Account, AccountKind, EntryKind, Transaction, TransactionKind
from apps.core.ids import new_uuid7
from apps.model_groups.models import ModelGroup
from apps.quotas.models import UserQuota
from apps.users.models import User

TOTAL_NANOS_MAX = 1_000_000 * 10**9


class TotalBelowUse(Exception):
    """A quota's total cannot go below what is used and held."""

    status_code = 409
    code = "total_below_use"
    message = "The total is below what is already used and held."


class TotalOutOfRange(ValueError):
    """A quota's total is negative or above the limit."""

    status_code = 400
    code = "total_out_of_range"
    message = f"The total must be from 0 to {TOTAL_NANOS_MAX // 10**9} USD."


@dataclass(frozen=True, slots=True)
class Allowance:
    """What a quota has left, in nanos: used + held + remaining = total."""

    used_nanos: int
    held_nanos: int
    remaining_nanos: int


def create_quota(
    *,
    user: User,
    model_group: ModelGroup,
    total_nanos: int,
    expires_at: datetime | None = None,
    actor: User | None = None,
    reason: str = "",
) -> UserQuota:
    """Give a user an allowance on a model group, funded from promotion. Raises TotalOutOfRange."""
    _check(total_nanos)
    with transaction.atomic():
        account = Account.objects.create(
            kind=AccountKind.QUOTA,
            customer_id=user.customer_id,
            name=f"quota of {user.username} on {model_group.name}"[:100],
        )
        quota = UserQuota.objects.create(
            user=user,
            model_group=model_group,
            account=account,
            total_nanos=total_nanos,
            expires_at=expires_at,
        )
        if total_nanos:
            _fund(quota, total_nanos, actor, reason or "quota given")
    return quota


def change_total(
    *, quota: UserQuota, total_nanos: int, actor: User | None, reason: str
) -> Transaction | None:
    """Change a quota's total; None where it is that already. Raises TotalBelowUse,
    TotalOutOfRange.
    """
    _check(total_nanos)
    with transaction.atomic():
        locked = UserQuota.objects.select_for_update().get(pk=quota.pk)
        difference = total_nanos - locked.total_nanos
        if not difference:
            return None
        try:
            done = _fund(locked, difference, actor, reason)
        except Insufficient as error:
            raise TotalBelowUse from error
        UserQuota.objects.filter(pk=quota.pk).update(total_nanos=total_nanos)
    quota.total_nanos = total_nanos
    return done


def remaining(quota: UserQuota) -> Allowance:
    """Return what is used, held and left. Reads `quota.account`."""
    account = quota.account
    return Allowance(
        used_nanos=quota.total_nanos - account.posted_nanos,
        held_nanos=account.held_nanos,
        remaining_nanos=account.posted_nanos - account.held_nanos,
    )


def _check(total_nanos: int) -> None:
    if not 0 <= total_nanos <= TOTAL_NANOS_MAX:
        raise TotalOutOfRange


def _fund(quota: UserQuota, nanos: int, actor: User | None, reason: str) -> Transaction:
    promotion = Account.objects.get(kind=AccountKind.PROMOTION)
    transaction_id = new_uuid7()
    kinds = (
        (EntryKind.DEBIT, EntryKind.CREDIT) if nanos > 0 else (EntryKind.CREDIT, EntryKind.DEBIT)
    )
    posting = Posting(
        transaction_id=transaction_id,
        kind=TransactionKind.QUOTA,
        idempotency_key=f"quota:{transaction_id}",
        actor_id=actor.pk if actor else None,
        actor_name=actor.username if actor else "",
        reason=reason[:500],
        lines=(
            Line(promotion.pk, kinds[0], -nanos),
            Line(quota.account_id, kinds[1], nanos),
        ),
    )
    post(over(connection), posting, now=datetime.now(UTC))
    return Transaction.objects.get(pk=transaction_id)
