"""Access and refresh tokens of the REST API: JSON web tokens that name a session.

The only module that knows the token library. The session is looked up at every call, so signing
out, a new password, a new role or deactivation count at once. A refresh token works once; an old
one that comes back ends its session. Thirty days after the sign-in a session ends in any case.
"""

from __future__ import annotations

import uuid
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from django.db import transaction
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils import timezone
from django.utils.crypto import constant_time_compare
from drf_spectacular.extensions import OpenApiAuthenticationExtension
from rest_framework.exceptions import AuthenticationFailed
from rest_framework_simplejwt.authentication import JWTAuthentication
from rest_framework_simplejwt.exceptions import InvalidToken, TokenError
from rest_framework_simplejwt.tokens import AccessToken, RefreshToken, Token

from apps.audit.events import client_address, record_event
from apps.core.domain_errors import DomainError
from apps.users.browser_sessions import end_browser_sessions
from apps.users.models import Session, User

SESSION_CLAIM = "sid"
SESSION_LIFETIME_MAX: Final = timedelta(days=30)


class TokenRefused(DomainError):
    """The refresh token is unknown, used, expired, or its session has ended."""

    status_code = 401
    code = "token_not_valid"
    message = "This token is not valid any more. Sign in again."


@dataclass(frozen=True, slots=True)
class TokenPair:
    """What a client gets: a short access token and a refresh token that works once."""

    access: str
    refresh: str


class SessionCheckedJWTAuthentication(JWTAuthentication):
    """Accepts an access token whose session is open; the user comes fresh from the database."""

    def get_validated_token(self, raw_token: bytes) -> Token:
        """Return the token; who sends something else is told what belongs here."""
        try:
            return super().get_validated_token(raw_token)
        except InvalidToken as error:
            raise AuthenticationFailed(
                "This access token is not valid: refresh it or sign in. API keys are for /v1 only.",
                code="token_not_valid",
            ) from error

    def get_user(self, validated_token: Token) -> Any:
        """Return the user of the token's session."""
        session = _find_open_session(validated_token.get(SESSION_CLAIM))
        if session is None:
            raise AuthenticationFailed("This session has ended.", code="session_ended")
        return session.user


class BearerScheme(OpenApiAuthenticationExtension):  # type: ignore[no-untyped-call]  # untyped base
    """Describes the authentication in the OpenAPI schema."""

    target_class = "apps.users.tokens.SessionCheckedJWTAuthentication"
    name = "bearer"

    def get_security_definition(self, auto_schema: Any) -> dict[str, str]:
        """Return the security scheme."""
        return {"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}


def open_session(*, user: User, request: HttpRequest | None) -> TokenPair:
    """Begin a session and return its first tokens."""
    refresh = RefreshToken()
    session = Session.objects.create(
        user=user,
        refresh_id=refresh["jti"],
        auth_hash=user.get_session_auth_hash(),
        ip_address=client_address(request) if request is not None else "",
        user_agent=request.headers.get("User-Agent", "")[:256] if request is not None else "",
        expires_at=timezone.now() + refresh.lifetime,
    )
    return _pair(session, refresh)


def rotate(*, refresh: str, request: HttpRequest | None) -> TokenPair:
    """Exchange a refresh token for a new pair. Raises TokenRefused.

    A token that was exchanged before ends its session: two parties hold it.
    """
    token = _parse_refresh(refresh)
    session = _find_open_session(token.get(SESSION_CLAIM))
    if session is None:
        raise TokenRefused
    new = RefreshToken()
    expires_at = min(timezone.now() + new.lifetime, session.created_at + SESSION_LIFETIME_MAX)
    with transaction.atomic():
        # The condition decides between two exchanges of one token at the same time.
        claimed = Session.objects.filter(
            pk=session.pk, refresh_id=token["jti"], ended_at__isnull=True
        ).update(refresh_id=new["jti"], expires_at=expires_at)
    if not claimed:
        with transaction.atomic():
            _end(session)
            record_event(
                actor=None, action="session.reuse_detected", subject=session.user, request=request
            )
        raise TokenRefused
    return _pair(session, new)


def close_session(
    *,
    refresh: str | None,
    access: Any,
    user: User,
    request: HttpRequest,
    cookie: str | None = None,
) -> None:
    """End the session of the caller's access token, and that of `refresh` if it is his own.

    `cookie` is a refresh token that nobody typed: a stale one keeps nobody signed in. Raises
    TokenRefused for `refresh`.
    """
    session_ids: set[Any] = {find_session_id(access)}
    if refresh is not None:
        session_ids.add(_parse_refresh(refresh).get(SESSION_CLAIM))
    if cookie is not None:
        with suppress(TokenRefused):
            session_ids.add(_parse_refresh(cookie).get(SESSION_CLAIM))
    with transaction.atomic():
        for session in Session.objects.filter(
            user=user, pk__in=[found for found in session_ids if found], ended_at__isnull=True
        ):
            _end(session)
        record_event(actor=user, action="sign_out", subject=user, request=request)


def end_sessions(
    *, user: User, except_id: uuid.UUID | None = None, except_browser_key: str | None = None
) -> int:
    """End all sessions of a user, over REST and in the Django admin, but for those of one caller.

    Returns how many were open.
    """
    sessions = list_open_sessions(user)
    if except_id is not None:
        sessions = sessions.exclude(pk=except_id)
    browsers = end_browser_sessions(user=user, except_key=except_browser_key)
    return sessions.update(ended_at=timezone.now()) + browsers


def end_session(*, session: Session, request: HttpRequest) -> None:
    """End one session of the caller's own."""
    with transaction.atomic():
        _end(session)
        record_event(actor=session.user, action="session.ended", subject=session, request=request)


def list_open_sessions(user: User) -> QuerySet[Session]:
    """Return the sessions by which a user is signed in, the newest first."""
    return _open_sessions().filter(user=user).order_by("-pk")


def find_session_id(access: Any) -> uuid.UUID | None:
    """Return the session that an access token names."""
    try:
        return uuid.UUID(str(access[SESSION_CLAIM])) if isinstance(access, Token) else None
    except (KeyError, ValueError):
        return None


def carry_session(*, session_id: uuid.UUID, user: User) -> None:
    """Let a session go on after its user has a new password."""
    Session.objects.filter(pk=session_id, user=user).update(auth_hash=user.get_session_auth_hash())


def refresh_lifetime_seconds() -> int:
    """Return how long a refresh token is good for."""
    return int(RefreshToken.lifetime.total_seconds())


def _open_sessions() -> QuerySet[Session]:
    now = timezone.now()
    return Session.objects.filter(
        ended_at__isnull=True, expires_at__gt=now, created_at__gt=now - SESSION_LIFETIME_MAX
    )


def _find_open_session(session_id: Any) -> Session | None:
    try:
        key = uuid.UUID(str(session_id))
    except ValueError:
        return None
    session = _open_sessions().select_related("user").filter(pk=key).first()
    if session is None or not session.user.is_active:
        return None
    if not constant_time_compare(session.auth_hash, session.user.get_session_auth_hash()):
        return None
    return session


def _parse_refresh(text: str) -> RefreshToken:
    try:
        return RefreshToken(text)  # type: ignore[arg-type]  # the library takes its encoded text
    except TokenError as error:
        raise TokenRefused from error


def _pair(session: Session, refresh: RefreshToken) -> TokenPair:
    access = AccessToken()
    for token in (access, refresh):
        token[SESSION_CLAIM] = str(session.pk)
        token["user_id"] = str(session.user_id)
    return TokenPair(access=str(access), refresh=str(refresh))


def _end(session: Session) -> None:
    Session.objects.filter(pk=session.pk, ended_at__isnull=True).update(ended_at=timezone.now())
