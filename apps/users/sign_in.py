"""Signing in with a password: by user name or e-mail address, locked after too many failures.

Failures are counted per account and per address in the shared cache. An attempt is counted before
the password is checked, so that parallel guesses cannot slip through, and given back when it was
right. Confirming the password of a signed-in user counts alike. Without Redis each process counts
for itself.
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from django.contrib.auth.backends import ModelBackend
from django.db import transaction
from django.db.models import Q
from django.http import HttpRequest
from django.utils import timezone

from apps.audit.events import client_address, record_event
from apps.core.counters import count_down, count_up, forget
from apps.core.domain_errors import DomainError
from apps.users.models import User

FAILURES_MAX: Final = 10
LOCKED_SECONDS: Final = 15 * 60
_IDENTIFIER_LENGTH_MAX: Final = 254
_PASSWORD_LENGTH_MAX: Final = 4_096


class SignInRefused(DomainError):
    """Wrong name, wrong password or an inactive user: one answer for all."""

    status_code = 401
    code = "invalid_credentials"
    message = "The user name or password is wrong."


class SignInLocked(DomainError):
    """Too many failures of one account or from one address."""

    status_code = 429
    code = "too_many_attempts"
    message = "Too many failed attempts. Try again later."


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
        """Return the user, None if refused or locked."""
        if username is None or password is None:
            return None
        try:
            return sign_in(identifier=username, password=password, request=request)
        except (SignInRefused, SignInLocked):
            return None


def sign_in(*, identifier: str, password: str, request: HttpRequest | None) -> User:
    """Return the active user whose password this is.

    Takes the same time whether the user exists or not. Raises SignInRefused and SignInLocked.
    """
    # Bounded before anything is hashed or looked up; no name or password is this long.
    if len(identifier) > _IDENTIFIER_LENGTH_MAX or len(password) > _PASSWORD_LENGTH_MAX:
        raise SignInRefused
    identifier = identifier.replace("\x00", "")
    user = _find_user(identifier)
    counters = _counters(user, identifier, request)
    _claim_attempt(counters, user=user, request=request)
    if user is None:
        User().set_password(password)  # Costs what checking a password costs.
        raise _refused(None, request)
    if not user.check_password(password) or not user.is_active:
        raise _refused(user, request)
    _give_back(counters)
    with transaction.atomic():
        user.last_login = timezone.now()
        user.save(update_fields=["last_login"])
        record_event(actor=user, action="sign_in.succeeded", subject=user, request=request)
    return user


def confirm_password(*, user: User, password: str, request: HttpRequest) -> None:
    """Check the password of who is signed in, counted like a sign-in.

    Raises PasswordWrong and SignInLocked.
    """
    counters = _counters(user, user.username, request)
    _claim_attempt(counters, user=user, request=request)
    if len(password) > _PASSWORD_LENGTH_MAX or not user.check_password(password):
        record_event(actor=user, action="user.password_refused", subject=user, request=request)
        raise PasswordWrong
    _give_back(counters)


def _find_user(identifier: str) -> User | None:
    users = list(User.objects.filter(Q(username=identifier) | Q(email=identifier.lower()))[:2])
    # A user name wins over an equal address of somebody else.
    users.sort(key=lambda user: user.username != identifier)
    return users[0] if users else None


def _counters(user: User | None, identifier: str, request: HttpRequest | None) -> list[str]:
    """Return the counter of the account, and that of the address where there is one."""
    address = client_address(request) if request is not None else ""
    account = _account_counter(user, identifier)
    return [account, f"sign-in:address:{address}"] if address else [account]


def _account_counter(user: User | None, identifier: str) -> str:
    # Name and address of one account share a count; unknown names are counted alike, so that
    # the lock does not tell who exists.
    if user is not None:
        return f"sign-in:user:{user.pk}"
    return f"sign-in:name:{hashlib.sha256(identifier.lower().encode()).hexdigest()}"


def _claim_attempt(counters: list[str], *, user: User | None, request: HttpRequest | None) -> None:
    counts = [count_up(counter, seconds=LOCKED_SECONDS) for counter in counters]
    if max(counts) <= FAILURES_MAX:
        return
    # One event a lock: whoever goes on guessing cannot fill the table.
    if FAILURES_MAX + 1 in counts:
        record_event(actor=None, action="sign_in.locked", subject=user, request=request)
    raise SignInLocked(retry_after_seconds=LOCKED_SECONDS)


def _refused(user: User | None, request: HttpRequest | None) -> SignInRefused:
    # The name that was tried is not kept: people type passwords into the wrong field.
    record_event(actor=None, action="sign_in.failed", subject=user, request=request)
    return SignInRefused()


def _give_back(counters: list[str]) -> None:
    """Forget the account's failures and take this attempt from the address's."""
    account, *addresses = counters
    forget(account)
    for counter in addresses:
        count_down(counter)
