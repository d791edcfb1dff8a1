"""What quotas have left when they end: it returns to the operator.

A quota ends when somebody takes it back, or by itself when it expires. What calls hold at that
moment stays until they have ended: of an expired quota a later run takes what they leave.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from django.db import transaction
from django.db.models import F
from django.db.models.functions import Now
from django.http import HttpRequest

from apps.audit.events import record_event, record_events, values_of
from apps.billing.models import Account, AccountKind
from apps.core.pieces import in_pieces
from apps.quotas.allowances import (
    Cause,
    QuotaGone,
    fund,
    lock_quotas,
    remaining,
    save_changed,
)
from apps.quotas.bulk import PIECE
from apps.quotas.models import UserQuota
from apps.users.models import User

# Of one run, which is well under a minute; the next one goes on.
EXPIRED_MAX: Final = 5_000


def remove_quota(
    *, quota_id: int, actor: User | None, reason: str = "", request: HttpRequest | None = None
) -> bool:
    """Delete a quota that never had money; else end it and take back what remains.

    Returns whether it was deleted, with its account: to gateways that have not heard of it yet, it
    is as good as empty. Raises QuotaGone.
    """
    with transaction.atomic():
        quota = lock_quotas([quota_id]).first()
        if quota is None:
            raise QuotaGone
        before = values_of(quota)
        _lock_accounts([quota])
        account = quota.account
        if not account.sequence:
            record_event(
                actor=actor,
                action="quota.deleted",
                subject=quota,
                before=before,
                reason=reason,
                request=request,
            )
            quota.delete()
            account.delete()
            return True
        quota.is_active = False
        _take_back(
            [quota],
            before={quota.pk: before},
            action="quota.deactivated",
            why="quota taken back",
            cause=Cause(actor, reason, request),
        )
    return False


def take_back_expired() -> int:
    """Take back what expired quotas have left, and return how many had something.

    Safe to run again, and twice at once: each piece looks again under its locks. The database's
    clock decides: a worker's may be ahead, and what is taken does not come back.
    """
    left = UserQuota.objects.filter(
        expires_at__lt=Now(), account__posted_nanos__gt=F("account__held_nanos")
    )
    quota_ids = list(left.order_by("pk").values_list("pk", flat=True)[:EXPIRED_MAX])
    return sum(_take_back_piece(piece) for piece in in_pieces(quota_ids, PIECE))


def _take_back_piece(quota_ids: Sequence[int]) -> int:
    with transaction.atomic():
        # Somebody may have given them a later end meanwhile.
        quotas = list(lock_quotas(quota_ids).filter(expires_at__lt=Now()))
        _lock_accounts(quotas)
        found = [quota for quota in quotas if remaining(quota).remaining_nanos]
        before = {quota.pk: values_of(quota) for quota in found}
        _take_back(
            found, before=before, action="quota.expired", why="quota expired", cause=Cause(None)
        )
    return len(found)


def _lock_accounts(quotas: Sequence[UserQuota]) -> None:
    """Lock the accounts of quotas, and promotion's, and set those of the quotas as they are now.

    All at once and by id, as the ledger does: no hold comes between reading and taking.
    """
    promotion = Account.objects.get(kind=AccountKind.PROMOTION)
    rows = Account.objects.select_for_update().order_by("pk")
    accounts = rows.in_bulk([promotion.pk, *(quota.account_id for quota in quotas)])
    for quota in quotas:
        quota.account = accounts[quota.account_id]


def _take_back(
    quotas: Sequence[UserQuota],
    *,
    before: Mapping[int, dict[str, Any]],
    action: str,
    why: str,
    cause: Cause,
) -> None:
    """Move what quotas have left to promotion, by one transaction of the ledger, on record.

    For callers that hold the locks of quotas and accounts. `before` are the quotas' values by id.
    """
    lefts = [(quota, remaining(quota).remaining_nanos) for quota in quotas]
    moved = [(quota, -left_nanos) for quota, left_nanos in lefts if left_nanos]
    if moved:
        fund(moved, cause, why)
    for quota, left_nanos in lefts:
        quota.total_nanos -= left_nanos
    events = [save_changed(quota, before[quota.pk], action, cause) for quota in quotas]
    record_events([event for event in events if event is not None])
