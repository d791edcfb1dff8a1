"""One's own profile: the name is free, the password is changed only by who knows the old one."""

from __future__ import annotations

from typing import Any

from django.db import transaction
from django.http import HttpRequest

from apps.audit.events import record_event
from apps.core.domain_errors import DomainError
from apps.users.browser_sessions import find_browser_key
from apps.users.changes import change_user, lock_user
from apps.users.hashing import hash_password
from apps.users.models import User
from apps.users.sign_in import confirm_password
from apps.users.tokens import carry_session, end_sessions, find_session_id


class PasswordChanged(DomainError):
    """The password changed between the check of the old one and the change."""

    status_code = 409
    code = "password_changed"
    message = "The password was changed meanwhile."


def change_profile(
    *,
    user: User,
    access: Any,
    request: HttpRequest,
    name: str | None = None,
    current_password: str = "",
    password: str | None = None,
) -> User:
    """Change one's name or password, or both, and return oneself.

    A new password ends all sessions but that of `access` and that of the request's browser. Raises
    PasswordWrong, SignInLocked, HashingBusy and PasswordChanged.
    """
    hashed = ""
    if password is not None:
        # Before the transaction: a refusal stays on record, and no lock waits for a hash.
        confirm_password(user=user, password=current_password, request=request)
        hashed = hash_password(password)
    with transaction.atomic():
        row = user
        if name is not None:
            row = change_user(user=user, actor=user, request=request, name=name)
        if password is not None:
            row = lock_user(user, with_lead=False).row
            if row.password != user.password:
                raise PasswordChanged
            _set_password(row, hashed, access, request)
    return row


def _set_password(row: User, hashed: str, access: Any, request: HttpRequest) -> None:
    row.password = hashed
    row.save(update_fields=["password"])
    session_id = find_session_id(access)
    ended = end_sessions(
        user=row, except_id=session_id, except_browser_key=find_browser_key(request)
    )
    if session_id is not None:
        carry_session(session_id=session_id, user=row)
    record_event(
        actor=row,
        action="user.password_changed",
        subject=row,
        after={"sessions_ended": ended},
        request=request,
    )
