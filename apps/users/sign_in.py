"""Signing in with a password: by user name or e-mail address, locked after too many failures.

What is counted, and what is locked, is in `apps.users.attempts`. Confirming the password of a
signed-in user counts alike.
"""

from __future__ import annotations

from typing import Any, Final

from django.contrib.auth.backends import ModelBackend
from django.core.exceptions import ValidationError
from django.db import transaction
from django.db.models import Q
from django.http import HttpRequest
from django.utils import timezone

from apps.audit.events import record_event
from apps.core.domain_errors import DomainError
from apps.users.attempts import (
    SIGNED_IN,
    SignInAttempt,
    SignInLocked,
    claim_attempt,
    forgive,
    withdraw,
)
from apps.users.hashing import HashingBusy, hashing_place
from apps.users.models import User

_IDENTIFIER_LENGTH_MAX: Final = 254
_PASSWORD_LENGTH_MAX: Final = 4_096


class SignInRefused(DomainError):
    """Wrong name, wrong password or an inactive user: one answer for all."""

    status_code = 401
    code = "invalid_credentials"
    message = "The user name or password is wrong."


class PasswordWrong(DomainError):
    """The password that was to confirm a change is not the user's."""

    code = "wrong_password"
    message = "The current password is wrong."


class UsernameOrEmailBackend(ModelBackend):
    """Django's authentication with the rules of this module; the Django admin signs in by it."""

    def authenticate(
        self,
        request: HttpRequest | None,
        username: str | None = None,
        password: str | None = None,
        **kwargs: Any,
    ) -> User | None:
        """Return the user, None if refused or locked.

        Raises ValidationError, which the form shows, while nothing can be checked.
        """
        if username is None or password is None:
            return None
        try:
            return sign_in(identifier=username, password=password, request=request)
        except (SignInRefused, SignInLocked):
            return None
        except HashingBusy as error:
            raise ValidationError(error.message, code=error.code) from error


def sign_in(*, identifier: str, password: str, request: HttpRequest | None) -> User:
    """Return the active user whose password this is.

    Takes the same time whether the user exists or not. Raises SignInRefused, SignInLocked and
    HashingBusy.
    """
    # Bounded before anything is hashed or looked up; no name or password is this long.
    if len(identifier) > _IDENTIFIER_LENGTH_MAX or len(password) > _PASSWORD_LENGTH_MAX:
        raise SignInRefused
    identifier = identifier.replace("\x00", "")
    user = _find_user(identifier)
    attempt = claim_attempt(user=user, identifier=identifier, request=request)
    is_right = _check(user, password, attempt)
    if user is None or not is_right or not user.is_active:
        # The name that was tried is not kept: people type passwords into the wrong field.
        record_event(actor=None, action="sign_in.failed", subject=user, request=request)
        raise SignInRefused
    forgive(attempt)
    with transaction.atomic():
        user.last_login = timezone.now()
        user.save(update_fields=["last_login"])
        record_event(actor=user, action=SIGNED_IN, subject=user, request=request)
    return user


def confirm_password(*, user: User, password: str, request: HttpRequest) -> None:
    """Check the password of who is signed in, counted like a sign-in.

    Raises PasswordWrong, SignInLocked and HashingBusy.
    """
    attempt = claim_attempt(user=user, identifier=user.username, request=request)
    if len(password) > _PASSWORD_LENGTH_MAX or not _check(user, password, attempt):
        record_event(actor=user, action="user.password_refused", subject=user, request=request)
        raise PasswordWrong
    forgive(attempt)


def _find_user(identifier: str) -> User | None:
    users = list(User.objects.filter(Q(username=identifier) | Q(email=identifier.lower()))[:2])
    # A user name wins over an equal address of somebody else.
    users.sort(key=lambda user: user.username != identifier)
    return users[0] if users else None


def _check(user: User | None, password: str, attempt: SignInAttempt) -> bool:
    """Return whether this is the user's password. Raises HashingBusy, which counts no failure."""
    try:
        with hashing_place():
            if user is not None:
                return user.check_password(password)
            User().set_password(password)  # Costs what checking a password costs.
            return False
    except HashingBusy:
        withdraw(attempt)
        raise
