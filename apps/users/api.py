"""Signing in, staying signed in and signing out; where one is signed in."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import generics
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.core.rest import actor_of
from apps.users.cookies import (
    check_same_origin,
    clear_refresh_cookie,
    read_refresh_cookie,
    set_refresh_cookie,
)
from apps.users.models import Session, User
from apps.users.permissions import IsSignedIn
from apps.users.serializers import (
    LoginInput,
    LoginOutput,
    LogoutInput,
    RefreshInput,
    SessionOutput,
    TokenPairOutput,
)
from apps.users.sign_in import sign_in
from apps.users.tokens import (
    TokenRefused,
    close_session,
    end_session,
    list_open_sessions,
    open_session,
    rotate,
)


class LoginView(APIView):
    """Sign in with a user name or e-mail address and a password."""

    # A stale token in the header must not keep anybody from signing in.
    authentication_classes = ()
    permission_classes = (AllowAny,)

    @extend_schema(
        operation_id="auth_login", summary="Sign in", request=LoginInput, responses=LoginOutput
    )
    def post(self, request: Request) -> Response:
        """Sign in with a user name or e-mail address and a password.

        With `"cookie": true` the refresh token comes in an HttpOnly cookie and not in the body;
        that works only from pages of this site (403 `cross_site`). Within 15 minutes, ten failures
        of one name from one network (an address; of IPv6 its /64) lock that name there, fifty the
        network, and a hundred from everywhere lock the account, but for networks from which its
        user signed in within 30 days (429 `too_many_attempts`).
        """
        given = LoginInput(data=request.data)
        given.is_valid(raise_exception=True)
        wants_cookie = given.validated_data["cookie"]
        if wants_cookie:
            check_same_origin(request._request)
        user = sign_in(
            identifier=given.validated_data["username"],
            password=given.validated_data["password"],
            request=request._request,
        )
        tokens = open_session(user=user, request=request._request)
        answer: dict[str, Any] = {"access": tokens.access, "user": user}
        if not wants_cookie:
            answer["refresh"] = tokens.refresh
        response = Response(LoginOutput(answer).data)
        if wants_cookie:
            set_refresh_cookie(response, tokens.refresh, request._request)
        return response


class RefreshView(APIView):
    """Exchange a refresh token for a new pair; each works once."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    @extend_schema(
        operation_id="auth_refresh",
        summary="Get new tokens",
        request=RefreshInput,
        responses=TokenPairOutput,
    )
    def post(self, request: Request) -> Response:
        """Exchange a refresh token for a new pair; each works once.

        The token comes in the body or in the cookie, and the new one goes back the same way. The
        cookie counts only from pages of this site (403 `cross_site`). A token that was exchanged
        before ends its session: two parties hold it.
        """
        given = RefreshInput(data=request.data)
        given.is_valid(raise_exception=True)
        refresh = given.validated_data.get("refresh")
        cookie = read_refresh_cookie(request._request) if refresh is None else None
        token = refresh or cookie
        if token is None:
            raise TokenRefused
        tokens = rotate(refresh=token, request=request._request)
        if cookie is None:
            return Response(TokenPairOutput(tokens).data)
        response = Response(TokenPairOutput({"access": tokens.access}).data)
        set_refresh_cookie(response, tokens.refresh, request._request)
        return response


class LogoutView(APIView):
    """Sign out: the access token stops working at once."""

    permission_classes = (IsSignedIn,)

    @extend_schema(
        operation_id="auth_logout", summary="Sign out", request=LogoutInput, responses={204: None}
    )
    def post(self, request: Request) -> Response:
        """Sign out: the access token stops working at once.

        Ends the session of the access token, and that of the refresh token in the body or the
        cookie if it is one's own. The cookie is taken away; it counts only from pages of this site
        (403 `cross_site`).
        """
        given = LogoutInput(data=request.data)
        given.is_valid(raise_exception=True)
        refresh = given.validated_data.get("refresh")
        cookie = read_refresh_cookie(request._request) if refresh is None else None
        close_session(
            user=_own(request),
            access=request.auth,
            refresh=refresh,
            cookie=cookie,
            request=request._request,
        )
        response = Response(status=204)
        if cookie is not None:
            clear_refresh_cookie(response, request._request)
        return response


@extend_schema_view(
    get=extend_schema(operation_id="auth_sessions_list", summary="List own sessions")
)
class SessionsView(generics.ListAPIView[Session]):
    """List where one is signed in, the newest first."""

    permission_classes = (IsSignedIn,)
    serializer_class = SessionOutput
    filter_backends = ()

    def get_queryset(self) -> QuerySet[Session]:
        """Return one's own open sessions."""
        if not isinstance(self.request.user, User):
            return Session.objects.none()  # Only the schema asks without a user.
        user = self.request.user
        # A password set beside the API has ended the others without a mark.
        return list_open_sessions(user).filter(auth_hash=user.get_session_auth_hash())


class SessionView(generics.GenericAPIView[Session]):
    """One of one's own sessions."""

    permission_classes = (IsSignedIn,)
    queryset = Session.objects.none()
    lookup_url_kwarg = "session_id"
    filter_backends = ()

    def get_queryset(self) -> QuerySet[Session]:
        """Return one's own open sessions."""
        return list_open_sessions(_own(self.request))

    @extend_schema(
        operation_id="auth_sessions_delete",
        summary="End an own session",
        request=None,
        responses={204: None},
    )
    def delete(self, request: Request, session_id: str) -> Response:
        """Sign out there: its tokens stop working at once."""
        end_session(session=self.get_object(), request=request._request)
        return Response(status=204)


def _own(request: Request) -> User:
    user = actor_of(request)
    assert isinstance(user, User)  # noqa: S101  # IsSignedIn lets nobody else in
    return user
