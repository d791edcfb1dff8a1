"""Customers: users come and go with their accounts; money given or taken by hand."""

from __future__ import annotations

import hashlib
from typing import Unpack

from django.conf import settings
from django.contrib.auth.base_user import AbstractBaseUser
from django.db import IntegrityError, transaction
from django.http import HttpRequest

from apps.api_keys.models import APIKey
from apps.audit.events import record_event, values_of
from apps.audit.models import APIRequest, RefusalCount
from apps.billing.accounts import open_accounts
from apps.billing.adjustments import adjust_balance
from apps.billing.models import Account, AccountKind, Hold, ProposedAdjustment, Transaction
from apps.billing.proposals import (
    has_proposals,
    lock_deciders,
    needs_second,
    propose_adjustment,
    record_adjusted,
)
from apps.core.idempotency_keys import IdempotencyKeyReused
from apps.users.changes import (
    OwnAccount,
    UserGone,
    UserGroupGone,
    UserLimits,
    deactivate_user,
    is_own,
    lock_user,
    lock_users,
    refuse_above,
    refuse_own_money,
)
from apps.users.hashing import hash_password
from apps.users.models import Customer, Role, User, UserGroup
from apps.users.names import UserExists, are_names_taken, clean_names

_Asked = tuple[int, str, int | None]  # nanos, reason, id of the entry to correct


def create_user(
    *,
    username: str,
    email: str,
    password: str | None,
    name: str = "",
    role: str = Role.USER,
    user_group: UserGroup | None = None,
    is_superuser: bool = False,
    actor: AbstractBaseUser | None = None,
    request: HttpRequest | None = None,
    **limits: Unpack[UserLimits],
) -> User:
    """Make a user with a customer and empty accounts. Without a password nobody can sign in.

    Raises UserExists, UsernameAmbiguous, UserGroupGone and HashingBusy.
    """
    username, email = clean_names(username=username, email=email)
    user = User(
        username=username,
        email=email,
        name=name,
        role=Role.ADMIN if is_superuser else role,
        user_group=user_group,
        is_superuser=is_superuser,
        is_staff=is_superuser,
        password=hash_password(password),
        **limits,
    )
    try:
        with transaction.atomic():
            user.customer = Customer.objects.create(name=username)
            user.save(force_insert=True)
            open_accounts(user.customer)
            record_event(
                actor=actor,
                action="user.created",
                subject=user,
                after=values_of(user),
                request=request,
            )
    except IntegrityError as error:
        if are_names_taken(user):
            raise UserExists from error
        if user.user_group_id and not UserGroup.objects.filter(pk=user.user_group_id).exists():
            raise UserGroupGone from error
        raise
    return user


def delete_user(*, user: User, actor: User | None, request: HttpRequest | None = None) -> bool:
    """Delete a user with keys, accounts and customer; deactivate who has history.

    Return whether the user is deleted. Raises OwnAccount, AboveOwn, LastAdmin, RoleLost and
    UserGone.
    """
    if is_own(user, actor):
        raise OwnAccount
    with transaction.atomic():
        locked = lock_user(user, with_lead=True)
        locked.check_lead(actor, is_leaving=True)
        row = locked.row
        refuse_above(row, actor)
        # Under lock nothing can be held or posted any more between the look and the deletion.
        accounts = list(
            Account.objects.select_for_update().filter(customer_id=row.customer_id).order_by("pk")
        )
        if _has_history(row, accounts):
            deactivate_user(row=row, actor=actor, request=request)
            return False
        for subject, action in (
            *((key, "api_key.deleted") for key in APIKey.objects.filter(user=row)),
            (row, "user.deleted"),
        ):
            record_event(
                actor=actor,
                action=action,
                subject=subject,
                before=values_of(subject),
                request=request,
            )
        row.api_keys.all().delete()
        row.delete()
        Account.objects.filter(pk__in=[account.pk for account in accounts]).delete()
        Customer.objects.filter(pk=row.customer_id).delete()
    return True


def _has_history(user: User, accounts: list[Account]) -> bool:
    return (
        any(account.sequence or account.kind == AccountKind.QUOTA for account in accounts)
        or Hold.objects.filter(customer_id=user.customer_id).exists()
        or RefusalCount.objects.filter(
            api_key_id__in=APIKey.objects.filter(user=user).values("pk")
        ).exists()
        or APIRequest.objects.filter(user_id=user.pk).exists()
        or has_proposals(user)
    )


def adjust_user_balance(
    *,
    user: User,
    amount_nanos: int,
    reason: str,
    actor: User | None,
    corrects_id: int | None = None,
    idempotency_key: str = "",
    request: HttpRequest | None = None,
) -> Transaction | ProposedAdjustment:
    """Give money to a user (positive) or take it back, and record who did it and why.

    What goes beyond what the actor may move alone is kept for a second administrator, and returned
    so. `corrects_id` is an entry of the user's that was wrong. Calls of one actor with the same
    `idempotency_key` are applied once.

    Raises InsufficientBalance, AmountOutOfRange, NoSuchEntry, IdempotencyKeyReused, UserGone,
    RoleLost, TooManyProposals, and OwnAccount (see `refuse_own_money`).
    """
    if amount_nanos > 0:
        refuse_own_money(user, actor)
    asked = (amount_nanos, reason[:500], corrects_id)
    with transaction.atomic():
        _lock_people(user, actor)
        key = _make_key(idempotency_key, user=user, actor=actor) if idempotency_key else None
        done = _find_done(key, user=user, asked=asked) if key else None
        if done is not None:
            return done
        if actor is not None and needs_second(actor=actor, amount_nanos=amount_nanos):
            return propose_adjustment(
                user=user,
                amount_nanos=amount_nanos,
                reason=reason,
                corrects_id=corrects_id,
                actor=actor,
                idempotency_key=key,
                request=request,
            )
        posted = adjust_balance(
            customer_id=user.customer_id,
            amount_nanos=amount_nanos,
            actor=actor,
            reason=reason,
            idempotency_key=key,
            corrects_id=corrects_id,
        )
        record_adjusted(
            user=user,
            posted=posted,
            amount_nanos=amount_nanos,
            reason=reason,
            actor=actor,
            request=request,
        )
    return posted


def _lock_people(user: User, actor: User | None) -> None:
    """Keep the user, so that calls with one key take turns. Raises UserGone and RoleLost.

    Where the actor may not move all that he wants alone, his calls take turns, too: else two at
    once would both fit under what is left.
    """
    if actor is not None and settings.ADJUSTMENT_NANOS_ALONE is not None:
        lock_deciders(user, actor)
    elif not lock_users([user.pk]):
        raise UserGone


def _find_done(key: str, *, user: User, asked: _Asked) -> Transaction | ProposedAdjustment | None:
    """Return what was posted or proposed with this key. Raises IdempotencyKeyReused.

    For who keeps the user locked: of two at once one comes later.
    """
    posted = Transaction.objects.filter(idempotency_key=key).first()
    if posted is not None:
        if _what_of(posted, user) != asked:
            raise IdempotencyKeyReused
        return posted
    proposed = ProposedAdjustment.objects.filter(repeat_key=key).first()
    if proposed is not None and asked != (
        proposed.amount_nanos,
        proposed.reason,
        proposed.corrects_id,
    ):
        raise IdempotencyKeyReused
    return proposed


def _make_key(idempotency_key: str, *, user: User, actor: User | None) -> str:
    digest = hashlib.sha256(idempotency_key.encode()).hexdigest()
    return f"balance:{user.pk}:{actor.pk if actor else 0}:{digest}"


def _what_of(posted: Transaction, user: User) -> _Asked:
    """Return amount, reason and what it corrects of an adjustment."""
    entries = posted.entries.filter(account__customer_id=user.customer_id)
    rows = list(entries.values_list("amount_nanos", "corrects_id"))
    return sum(nanos for nanos, _ in rows), posted.reason, rows[0][1] if rows else None
