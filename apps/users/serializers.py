"""What signing in takes and gives."""

from __future__ import annotations

from typing import Any, Final

from rest_framework import serializers

from apps.core.rest import StrictSerializer, example
from apps.users.models import Role, Session, User
from apps.users.tokens import find_session_id

_ACCESS: Final = "eyJhbGciOiJIUzI1NiJ9.eyJzaWQiOiIwMTlhYSJ9.c2lnbmF0dXJl"
_REFRESH: Final = "eyJhbGciOiJIUzI1NiJ9.eyJqdGkiOiI3ZjNlMiJ9.c2lnbmF0dXJl"


@example({"username": "ada", "password": "correct horse battery staple", "cookie": False})
class LoginInput(StrictSerializer):
    """A user name or e-mail address, and the password exactly as typed.

    `cookie`: the refresh token goes into an HttpOnly cookie instead of the body; for browsers.
    """

    username = serializers.CharField(max_length=254)
    password = serializers.CharField(max_length=4_096, trim_whitespace=False)
    cookie = serializers.BooleanField(required=False, default=False)


@example({"refresh": _REFRESH})
class RefreshInput(StrictSerializer):
    """A refresh token; left out where the cookie holds it."""

    refresh = serializers.CharField(max_length=4_096, required=False)


@example({"refresh": _REFRESH})
class LogoutInput(StrictSerializer):
    """The refresh token of another session of one's own to end as well."""

    refresh = serializers.CharField(max_length=4_096, required=False)


class SignedInUser(serializers.Serializer[User]):
    """Who signed in."""

    id = serializers.IntegerField()
    username = serializers.CharField()
    email = serializers.EmailField()
    role = serializers.ChoiceField(choices=Role.choices)


@example({"access": _ACCESS, "refresh": _REFRESH})
class TokenPairOutput(serializers.Serializer[Any]):
    """An access token for 15 minutes and a refresh token that works once.

    There is no `refresh` where the cookie holds it.
    """

    access = serializers.CharField()
    refresh = serializers.CharField(required=False)


@example(
    {
        "access": _ACCESS,
        "refresh": _REFRESH,
        "user": {"id": 7, "username": "ada", "email": "ada@example.com", "role": "user"},
    }
)
class LoginOutput(TokenPairOutput):
    """The tokens and who they are for."""

    user = SignedInUser()


@example(
    {
        "id": "019aa1b2-c3d4-7e5f-8a6b-0c1d2e3f4a5b",
        "created_at": "2026-11-21T03:44:00Z",
        "ip_address": "192.0.2.1",
        "user_agent": "Mozilla/5.0",
        "is_current": True,
    }
)
class SessionOutput(serializers.Serializer[Session]):
    """One place where one is signed in."""

    id = serializers.UUIDField()
    created_at = serializers.DateTimeField()
    ip_address = serializers.CharField()
    user_agent = serializers.CharField()
    is_current = serializers.SerializerMethodField()

    def get_is_current(self, session: Session) -> bool:
        """Return whether this call came by it."""
        request = self.context.get("request")
        return request is not None and session.pk == find_session_id(request.auth)
