"""Proposed adjustments: what one administrator may not move alone waits for a second one.

- Of each administrator the adjustments of 24 hours are added up, given and taken alike, by the
  database's clock; those that a second one approved are left out.
- Whoever adjusts, approves, rejects or withdraws has the rows of the user and of himself locked, by
  id, then the proposal, then the accounts: one administrator's steps take turns.
- A proposal is posted and marked in one transaction; the posting's idempotency key is the
  proposal's own, so that it moves money once, whoever approves how often.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Q, QuerySet, Sum
from django.db.models.functions import Abs
from django.http import HttpRequest

from apps.audit.events import changed_values, record_event, values_of
from apps.billing.adjustments import adjust_balance, check_adjustment
from apps.billing.connections import read_clock
from apps.billing.models import (
    AccountKind,
    Entry,
    ProposalStatus,
    ProposedAdjustment,
    Transaction,
    TransactionKind,
)
from apps.core.domain_errors import DomainError
from apps.core.money import format_usd
from apps.core.pieces import leave_to_others
from apps.users.changes import OwnAccount, RoleLost, UserGone, is_lead, lock_users
from apps.users.models import User

ALONE_WITHIN: Final = timedelta(hours=24)
PENDING_FOR: Final = timedelta(days=7)
PENDING_MAX: Final = 100  # of one administrator
# SQLite has one writer: a piece leaves the lock within 50 ms.
_EXPIRED_PIECE: Final = 20
_EXPIRED_PIECES_MAX: Final = 500


class TooManyProposals(DomainError):
    """An administrator has as many adjustments waiting as he may."""

    status_code = 409
    code = "too_many_proposals"
    message = f"At most {PENDING_MAX} of your adjustments may wait for a second administrator."


class ProposalDecided(DomainError):
    """Somebody else was first, or the requester has taken it back."""

    status_code = 409
    code = "proposal_decided"
    message = "This adjustment is decided already."


class ProposalExpired(DomainError):
    """Nobody has decided in time."""

    status_code = 409
    code = "proposal_expired"
    message = f"This adjustment has waited for more than {PENDING_FOR.days} days."


class SecondNeeded(DomainError):
    """An administrator would decide on his own adjustment."""

    status_code = 403
    code = "second_administrator_needed"
    message = "Another administrator has to decide on your adjustment."


class NotRequester(DomainError):
    """Only who asked for it takes it back; others reject it."""

    status_code = 403
    code = "not_requester"
    message = "Only who asked for this adjustment can withdraw it."


def needs_second(*, actor: User, amount_nanos: int) -> bool:
    """Return whether this is more than the actor may move alone.

    For who has locked the actor: what the sum leaves is for one adjustment after the other.
    """
    alone_nanos: int | None = settings.ADJUSTMENT_NANOS_ALONE
    if alone_nanos is None:
        return False
    moved_nanos = sum_alone(actor_id=actor.pk, now=read_clock(connection))
    return moved_nanos + abs(amount_nanos) > alone_nanos


def sum_alone(*, actor_id: int, now: datetime) -> int:
    """Return how many nanos one administrator has moved alone within 24 hours."""
    alone = Transaction.objects.filter(
        kind=TransactionKind.ADJUSTMENT,
        actor_id=actor_id,
        created_at__gt=now - ALONE_WITHIN,
        proposal__isnull=True,
    )
    moved = Entry.objects.filter(
        transaction_id__in=alone.values("pk"), account__kind=AccountKind.ADJUSTMENT
    ).aggregate(sum=Sum(Abs("amount_nanos"), default=0))
    return int(moved["sum"])


def propose_adjustment(
    *,
    user: User,
    amount_nanos: int,
    reason: str,
    actor: User,
    corrects_id: int | None = None,
    idempotency_key: str | None = None,
    request: HttpRequest | None = None,
) -> ProposedAdjustment:
    """Keep an adjustment for a second administrator.

    For who has locked the actor, in a transaction. Raises AmountOutOfRange, NoSuchEntry and
    TooManyProposals.
    """
    check_adjustment(
        customer_id=user.customer_id, amount_nanos=amount_nanos, corrects_id=corrects_id
    )
    pending = ProposedAdjustment.objects.filter(requested_by=actor, status=ProposalStatus.PENDING)
    if pending.count() >= PENDING_MAX:
        raise TooManyProposals
    made = ProposedAdjustment.objects.create(
        user=user,
        amount_nanos=amount_nanos,
        reason=reason[:500],
        corrects_id=corrects_id,
        requested_by=actor,
        requested_at=read_clock(connection),
        repeat_key=idempotency_key,
    )
    record_event(
        actor=actor,
        action="proposed_adjustment.created",
        subject=made,
        after=values_of(made),
        reason=made.reason,
        request=request,
    )
    return made


def approve_adjustment(
    *, proposal: ProposedAdjustment, actor: User, request: HttpRequest | None = None
) -> ProposedAdjustment:
    """Post what another administrator proposed, in his name, and mark it approved.

    Raises SecondNeeded, OwnAccount, RoleLost, ProposalDecided, ProposalExpired, and
    InsufficientBalance, which leaves it pending.
    """
    with transaction.atomic():
        row = _lock_pending(proposal, actor)
        if row.requested_by_id == actor.pk:
            raise SecondNeeded
        if row.user_id == actor.pk and row.amount_nanos > 0:
            raise OwnAccount("Another administrator has to do this for your own account.")
        posted = adjust_balance(
            customer_id=row.user.customer_id,
            amount_nanos=row.amount_nanos,
            actor=row.requested_by,
            reason=row.reason,
            idempotency_key=f"proposed_adjustment:{row.pk}",
            corrects_id=row.corrects_id,
        )
        record_adjusted(
            user=row.user,
            posted=posted,
            amount_nanos=row.amount_nanos,
            reason=row.reason,
            actor=actor,
            request=request,
            proposal=row,
        )
        _decide(row, ProposalStatus.APPROVED, actor=actor, posted=posted, request=request)
    return row


def reject_adjustment(
    *, proposal: ProposedAdjustment, actor: User, reason: str, request: HttpRequest | None = None
) -> ProposedAdjustment:
    """Refuse what another administrator proposed, and say why.

    Raises SecondNeeded, RoleLost, ProposalDecided and ProposalExpired.
    """
    with transaction.atomic():
        row = _lock_pending(proposal, actor)
        if row.requested_by_id == actor.pk:
            raise SecondNeeded
        _decide(row, ProposalStatus.REJECTED, actor=actor, reason=reason, request=request)
    return row


def withdraw_adjustment(
    *, proposal: ProposedAdjustment, actor: User, request: HttpRequest | None = None
) -> ProposedAdjustment:
    """Take back what one has proposed oneself.

    Raises NotRequester, RoleLost, ProposalDecided and ProposalExpired.
    """
    with transaction.atomic():
        row = _lock_pending(proposal, actor)
        if row.requested_by_id != actor.pk:
            raise NotRequester
        _decide(row, ProposalStatus.WITHDRAWN, actor=actor, request=request)
    return row


def expire_adjustments() -> int:
    """Mark what nobody decided in time, some at a time, and return how many there were."""
    expired = 0
    for _ in range(_EXPIRED_PIECES_MAX):
        with transaction.atomic():
            old = ProposedAdjustment.objects.filter(
                status=ProposalStatus.PENDING,
                requested_at__lte=read_clock(connection) - PENDING_FOR,
            )
            rows = _locked(old).order_by("pk")[:_EXPIRED_PIECE]
            for row in rows:
                _decide(row, ProposalStatus.EXPIRED, actor=None)
                expired += 1
        if len(rows) < _EXPIRED_PIECE:
            break
        leave_to_others()
    return expired


def lock_deciders(user: User, actor: User) -> None:
    """Lock a user and an administrator who acts on his balance. Raises UserGone and RoleLost."""
    found = lock_users({user.pk, actor.pk})
    if user.pk not in found:
        raise UserGone
    if actor.pk not in found or not is_lead(found[actor.pk]):
        raise RoleLost


def has_proposals(user: User) -> bool:
    """Return whether an adjustment names somebody: as its user, its requester or who decided."""
    named = Q(user=user) | Q(requested_by=user) | Q(decided_by=user)
    return ProposedAdjustment.objects.filter(named).exists()


def record_adjusted(
    *,
    user: User,
    posted: Transaction,
    amount_nanos: int,
    reason: str,
    actor: User | None,
    request: HttpRequest | None,
    proposal: ProposedAdjustment | None = None,
) -> None:
    """Write the event of an adjustment that was posted. Call it in the posting's transaction."""
    approved = {} if proposal is None else {"proposed_adjustment": proposal.pk}
    record_event(
        actor=actor,
        action="user.balance_adjusted",
        subject=user,
        after={"amount": format_usd(amount_nanos), "transaction": posted.pk, **approved},
        reason=reason,
        request=request,
    )


def _lock_pending(proposal: ProposedAdjustment, actor: User) -> ProposedAdjustment:
    """Return the proposal under lock, with its people.

    Raises RoleLost, ProposalDecided and ProposalExpired.
    """
    lock_deciders(proposal.user, actor)
    row = _locked(ProposedAdjustment.objects.filter(pk=proposal.pk)).get()
    if row.status != ProposalStatus.PENDING:
        raise ProposalDecided(details={"status": row.status})
    if row.requested_at <= read_clock(connection) - PENDING_FOR:
        raise ProposalExpired
    return row


def _locked(rows: QuerySet[ProposedAdjustment]) -> QuerySet[ProposedAdjustment]:
    locking = rows.select_for_update(of=("self",), no_key=True)
    return locking.select_related("user", "requested_by")


def _decide(
    row: ProposedAdjustment,
    status: ProposalStatus,
    *,
    actor: User | None,
    reason: str = "",
    posted: Transaction | None = None,
    request: HttpRequest | None = None,
) -> None:
    """Mark a locked proposal and record it; without an actor its time was up."""
    was = values_of(row)
    row.status = status
    row.transaction = posted
    row.decided_by = actor
    row.decided_at = read_clock(connection)
    row.decision_reason = reason[:500]
    row.save(update_fields=["status", "decided_by", "decided_at", "decision_reason", "transaction"])
    before, after = changed_values(was, values_of(row))
    record_event(
        actor=actor,
        action=f"proposed_adjustment.{status}",
        subject=row,
        before=before,
        after=after,
        reason=reason,
        request=request,
    )
