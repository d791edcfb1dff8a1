"""New users: the person, the customer who pays for them, and the customer's accounts."""

from __future__ import annotations

from django.contrib.auth.base_user import AbstractBaseUser
from django.db import IntegrityError, transaction
from django.http import HttpRequest

from apps.audit.events import record_event, values_of
from apps.billing.accounts import open_accounts
from apps.core.domain_errors import DomainError
from apps.users.models import Customer, Role, User, UserGroup


class UserExists(DomainError):
    """The user name or the e-mail address is taken."""

    status = 409
    code = "user_exists"
    message = "A user with this user name or e-mail address already exists."


class UsernameAmbiguous(DomainError):
    """The user name looks like somebody's e-mail address."""

    code = "username_ambiguous"
    message = "A user name with an @ must be the user's own e-mail address."


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
