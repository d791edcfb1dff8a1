"""Administrators made and let in again from the command line, by whoever runs the machine."""

from __future__ import annotations

from typing import Final

from django.contrib.auth.password_validation import validate_password
from django.db import transaction

from apps.audit.events import record_event
from apps.billing.customers import create_user
from apps.users.hashing import hash_password
from apps.users.models import Role, User
from apps.users.tokens import end_sessions

_REASON: Final = "manage.py create_admin"


class NotAnAdministrator(Exception):
    """There is no administrator of this name."""


def create_administrator(*, username: str, email: str, password: str) -> User:
    """Make an administrator with accounts and return the user.

    Raises ValidationError where the password is too weak, UserExists, UsernameAmbiguous and
    HashingBusy.
    """
    validate_password(password, User(username=username, email=email))
    return create_user(username=username, email=email, password=password, is_superuser=True)


def readmit_administrator(*, username: str, password: str) -> User:
    """Give an administrator a new password, activate the account and end its sessions.

    Raises NotAnAdministrator, ValidationError and HashingBusy.
    """
    # Before the transaction: no lock waits for a hash.
    hashed = hash_password(password)
    with transaction.atomic():
        user = User.objects.select_for_update().filter(username=username).first()
        # Never a promotion: that would be a way around the record of who was made what.
        if user is None or user.role != Role.ADMIN:
            raise NotAnAdministrator(f"There is no administrator {username!r}.")
        validate_password(password, user)
        before = {"is_active": user.is_active}
        user.password = hashed
        user.is_active = True
        user.save(update_fields=["password", "is_active"])
        record_event(
            actor=None,
            action="user.password_set",
            subject=user,
            before=before,
            after={"is_active": True, "sessions_ended": end_sessions(user=user)},
            reason=f"{_REASON} --reset",
        )
    return user
