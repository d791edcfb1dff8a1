"""Signing in, staying signed in and signing out."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework.permissions import AllowAny
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.users.models import User
from apps.users.permissions import IsSignedIn
from apps.users.serializers import (
    LoginInput,
    LoginOutput,
    LogoutInput,
    RefreshInput,
    TokenPairOutput,
)
from apps.users.sign_in import sign_in
from apps.users.tokens import close_session, open_session, rotate


class LoginView(APIView):
    """Sign in with a user name or e-mail address and a password."""

    # A stale token in the header must not keep anybody from signing in.
    authentication_classes = ()
    permission_classes = (AllowAny,)

    @extend_schema(request=LoginInput, responses=LoginOutput, operation_id="auth_login")
    def post(self, request: Request) -> Response:
        """Return tokens and the user."""
        given = LoginInput(data=request.data)
        given.is_valid(raise_exception=True)
        user = sign_in(
            identifier=given.validated_data["username"],
            password=given.validated_data["password"],
            request=request._request,
        )
        tokens = open_session(user=user, request=request._request)
        answer = {"access": tokens.access, "refresh": tokens.refresh, "user": user}
        return Response(LoginOutput(answer).data)


class RefreshView(APIView):
    """Exchange a refresh token for a new pair; each works once."""

    authentication_classes = ()
    permission_classes = (AllowAny,)

    @extend_schema(request=RefreshInput, responses=TokenPairOutput, operation_id="auth_refresh")
    def post(self, request: Request) -> Response:
        """Return the new tokens."""
        given = RefreshInput(data=request.data)
        given.is_valid(raise_exception=True)
        tokens = rotate(refresh=given.validated_data["refresh"], request=request._request)
        return Response(TokenPairOutput(tokens).data)


class LogoutView(APIView):
    """Sign out: the access token stops working at once."""

    permission_classes = (IsSignedIn,)

    @extend_schema(request=LogoutInput, responses={204: None}, operation_id="auth_logout")
    def post(self, request: Request) -> Response:
        """End the session."""
        given = LogoutInput(data=request.data)
        given.is_valid(raise_exception=True)
        user = request.user
        assert isinstance(user, User)  # noqa: S101  # IsSignedIn lets nobody else in
        close_session(
            user=user,
            access=request.auth,
            refresh=given.validated_data.get("refresh"),
            request=request._request,
        )
        return Response(status=204)
