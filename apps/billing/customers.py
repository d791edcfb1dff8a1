"""Customers: new users with their accounts, and money given or taken by hand."""

from __future__ import annotations

from typing import Final

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import IntegrityError, transaction
from django.http import HttpRequest

from apps.audit.events import record_event, values_of
from apps.audit.models import AdminEvent
from apps.billing.accounts import open_accounts
from apps.billing.adjustments import adjust_balance
from apps.billing.models import Transaction
from apps.core.domain_errors import DomainError
from apps.core.money import format_usd
from apps.users.models import Customer, Role, User, UserGroup

_ADJUSTED: Final = "user.balance_adjusted"


class UserExists(DomainError):
    """The user name or the e-mail address is taken."""

    status_code = 409
    code = "user_exists"
    message = "A user with this user name or e-mail address already exists."


class UsernameAmbiguous(DomainError):
    """The user name looks like somebody's e-mail address."""

    code = "username_ambiguous"
    message = "A user name with an @ must be the user's own e-mail address."


class RepeatKeyReused(DomainError):
    """The same key came again with another amount."""

    status_code = 422
    code = "idempotency_key_reused"
    message = "This idempotency key was used for another amount."


def create_user(
    *,
    username: str,
    email: str,
    password: str | None,
    name: str = "",
    role: str = Role.USER,
    user_group: UserGroup | None = None,
    actor: AbstractBaseUser | None = None,
    is_superuser: bool = False,
    request: HttpRequest | None = None,
) -> User:
    """Make a user with a customer and empty accounts. Without a password nobody can sign in.

    Raises UserExists and UsernameAmbiguous.
    """
    email = email.lower()
    if "@" in username and username.lower() != email:
        raise UsernameAmbiguous
    try:
        with transaction.atomic():
            customer = Customer.objects.create(name=username)
            user = User(
                username=User.normalize_username(username),
                email=email,
                name=name,
                role=Role.ADMIN if is_superuser else role,
                user_group=user_group,
                customer=customer,
                is_superuser=is_superuser,
                is_staff=is_superuser,
            )
            user.set_password(password)
            user.save(force_insert=True)
            open_accounts(customer)
            record_event(
                actor=actor,
                action="user.created",
                subject=user,
                after=values_of(user),
                request=request,
            )
    except IntegrityError as error:
        if User.objects.filter(username=username).exists():
            raise UserExists from error
        if User.objects.filter(email=email).exists():
            raise UserExists from error
        raise
    return user


def adjust_user_balance(
    *,
    user: User,
    amount_nanos: int,
    reason: str,
    actor: User | None,
    repeat_key: str = "",
    request: HttpRequest | None = None,
) -> Transaction:
    """Give money to a user (positive) or take it back, and record who did it and why.

    Calls with the same `repeat_key` are applied once. Raises InsufficientBalance,
    AmountOutOfRange and RepeatKeyReused.
    """
    key = f"adjustment:{user.pk}:{repeat_key[:100]}" if repeat_key else None
    with transaction.atomic():
        posted = adjust_balance(
            customer_id=user.customer_id,
            amount_nanos=amount_nanos,
            actor=actor,
            reason=reason,
            idempotency_key=key,
        )
        # Asked while the ledger still has the accounts locked: of two at once one comes later.
        if key is not None and _is_on_record(posted, user):
            if _amount_of(posted, customer_id=user.customer_id) != amount_nanos:
                raise RepeatKeyReused
            return posted
        record_event(
            actor=actor,
            action=_ADJUSTED,
            subject=user,
            after={"amount": format_usd(amount_nanos), "transaction": posted.pk},
            reason=reason,
            request=request,
        )
    return posted


def _is_on_record(posted: Transaction, user: User) -> bool:
    return AdminEvent.objects.filter(
        object_type=user._meta.label_lower,
        object_id=str(user.pk),
        action=_ADJUSTED,
        after__transaction=str(posted.pk),
    ).exists()


def _amount_of(posted: Transaction, *, customer_id: int) -> int:
    entries = posted.entries.filter(account__customer_id=customer_id)
    return sum(entries.values_list("amount_nanos", flat=True))
