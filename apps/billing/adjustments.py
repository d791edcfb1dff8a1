"""Credits and debits made by people or jobs.

One transaction each, with its reason and a unique cause.
"""

from __future__ import annotations

from datetime import datetime

from django.db import connection, transaction
from django.db.models import Q

from apps.billing.connections import post_over, read_clock
from apps.billing.ledger.batch import Insufficient
from apps.billing.ledger.commands import Line, Posting
from apps.billing.models import (
    Account,
    AccountKind,
    Entry,
    EntryKind,
    Transaction,
    TransactionKind,
)
from apps.core.domain_errors import DomainError
from apps.core.ids import new_uuid7
from apps.users.models import User

ADJUSTMENT_NANOS_MAX = 1_000_000 * 10**9


class InsufficientBalance(Exception):
    """More would be taken than is available."""

    status_code = 409
    code = "insufficient_balance"
    message = "The balance does not cover this."


class AmountOutOfRange(ValueError):
    """An adjustment is zero or above the limit."""

    status_code = 400
    code = "amount_out_of_range"
    message = f"The amount must not be zero and at most {ADJUSTMENT_NANOS_MAX // 10**9} USD."


class NoSuchEntry(DomainError):
    """An adjustment would correct what is no entry on the customer's accounts."""

    code = "no_such_entry"
    message = "This user has no ledger entry with this id."


def check_adjustment(*, customer_id: int, amount_nanos: int, corrects_id: int | None) -> None:
    """Refuse what cannot be posted, whatever the balance. Raises AmountOutOfRange, NoSuchEntry."""
    if not amount_nanos or abs(amount_nanos) > ADJUSTMENT_NANOS_MAX:
        raise AmountOutOfRange
    if corrects_id is not None:
        check_corrected(customer_id=customer_id, corrects_id=corrects_id)


def check_corrected(*, customer_id: int, corrects_id: int) -> None:
    """Refuse to correct what is no entry on the customer's accounts. Raises NoSuchEntry."""
    if not Entry.objects.filter(pk=corrects_id, account__customer_id=customer_id).exists():
        raise NoSuchEntry


def adjust_balance(
    *,
    customer_id: int,
    amount_nanos: int,
    actor: User | None,
    reason: str,
    idempotency_key: str | None = None,
    corrects_id: int | None = None,
    now: datetime | None = None,
) -> Transaction:
    """Credit or debit a customer's wallet against the adjustment account and return the
    transaction.

    A credit pays a debt first. `corrects_id` is an entry of the customer's that was wrong. The same
    key again returns the first transaction and moves nothing. Without `now` it happens by the
    database's clock. Raises InsufficientBalance, AmountOutOfRange and NoSuchEntry.
    """
    check_adjustment(customer_id=customer_id, amount_nanos=amount_nanos, corrects_id=corrects_id)
    return transfer(
        customer_id=customer_id,
        amount_nanos=amount_nanos,
        against=Account.objects.get(kind=AccountKind.ADJUSTMENT),
        kind=TransactionKind.ADJUSTMENT,
        actor=actor,
        reason=reason,
        idempotency_key=idempotency_key,
        corrects_id=corrects_id,
        now=now,
    )


def transfer(
    *,
    customer_id: int,
    amount_nanos: int,
    against: Account,
    kind: str,
    actor: User | None,
    reason: str,
    idempotency_key: str | None = None,
    corrects_id: int | None = None,
    now: datetime | None = None,
) -> Transaction:
    """Move money between one of the operator's accounts and a customer's wallet.

    Raises InsufficientBalance.
    """
    transaction_id = new_uuid7()
    key = idempotency_key or f"{kind}:{transaction_id}"
    causes = Transaction.objects.filter(idempotency_key=key)
    # What is done already waits for nobody.
    found = causes.first() if idempotency_key else None
    if found is not None:
        return found
    with transaction.atomic():
        accounts = _lock_accounts(customer_id, against)
        found = causes.first()
        if found is not None:
            return found
        wallet, receivable = accounts[AccountKind.WALLET], accounts[AccountKind.RECEIVABLE]
        repaid = min(amount_nanos, -receivable.posted_nanos) if amount_nanos > 0 else 0
        lines = [
            Line(
                against.pk, EntryKind.DEBIT if amount_nanos > 0 else EntryKind.CREDIT, -amount_nanos
            )
        ]
        if repaid:
            lines.append(Line(receivable.pk, EntryKind.REPAYMENT, repaid, corrects_id=corrects_id))
        if amount_nanos != repaid:
            line_kind = EntryKind.CREDIT if amount_nanos > 0 else EntryKind.DEBIT
            lines.append(Line(wallet.pk, line_kind, amount_nanos - repaid, corrects_id=corrects_id))
        posting = Posting(
            transaction_id=transaction_id,
            kind=kind,
            idempotency_key=key,
            actor_id=actor.pk if actor else None,
            actor_name=actor.username if actor else "",
            reason=reason[:500],
            lines=tuple(lines),
        )
        try:
            post_over(connection, posting, now=now or read_clock(connection))
        except Insufficient as error:
            raise InsufficientBalance from error
    return Transaction.objects.get(pk=transaction_id)


def _lock_accounts(customer_id: int, against: Account) -> dict[str, Account]:
    """Lock all accounts of a transfer by id, as the ledger does, so that the same cause twice at
    once waits for the first; return those of the customer by kind.

    The operator's account comes first: its chain takes one transfer after the other anyway.
    """
    own = Q(customer_id=customer_id, kind__in=[AccountKind.WALLET, AccountKind.RECEIVABLE])
    # As the ledger locks: entries of others may refer to the accounts meanwhile.
    rows = Account.objects.select_for_update(no_key=True).filter(own | Q(pk=against.pk))
    return {row.kind: row for row in rows.order_by("pk") if row.pk != against.pk}
