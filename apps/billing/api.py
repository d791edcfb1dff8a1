"""Users, their wallets and default keys over REST, for administrators."""

from __future__ import annotations

from typing import Any, cast

from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response

from apps.api_keys.issue import reset_default_key
from apps.billing.accounts import find_standing
from apps.billing.customers import adjust_user_balance, create_user
from apps.billing.serializers import (
    AdjustmentInput,
    AdjustmentOutput,
    ResetKeyInput,
    ResetKeyOutput,
    UserInput,
    UserOutput,
    UserWithWalletOutput,
    WalletOutput,
)
from apps.core.rest import actor_of
from apps.users.models import User


class UsersView(generics.ListAPIView[User]):
    """List users, add one."""

    queryset = User.objects.order_by("id")
    serializer_class = UserOutput
    filterset_fields = ("username", "email", "role", "is_active")

    @extend_schema(
        request=UserInput,
        responses={201: UserWithWalletOutput},
        operation_id="admin_users_create",
    )
    def post(self, request: Request) -> Response:
        """Add a user with an empty wallet."""
        given = UserInput(data=request.data)
        given.is_valid(raise_exception=True)
        user = create_user(
            **given.validated_data, actor=actor_of(request), request=request._request
        )
        return Response(_with_wallet(user), status=201)


class UserView(generics.GenericAPIView[User]):
    """One user with the wallet."""

    queryset = User.objects.all()
    serializer_class = UserWithWalletOutput
    lookup_url_kwarg = "user_id"
    filter_backends = ()

    @extend_schema(operation_id="admin_users_retrieve")
    def get(self, request: Request, user_id: str) -> Response:
        """Return the user."""
        return Response(_with_wallet(self.get_object()))


class AdjustBalanceView(generics.GenericAPIView[User]):
    """Give money to a user or take it back."""

    queryset = User.objects.all()
    serializer_class = AdjustmentInput
    lookup_url_kwarg = "user_id"
    filter_backends = ()

    @extend_schema(
        request=AdjustmentInput,
        responses=AdjustmentOutput,
        operation_id="admin_users_adjust_balance",
        parameters=[
            OpenApiParameter(
                "Idempotency-Key",
                str,
                OpenApiParameter.HEADER,
                description="A repeated call with the same key is applied once.",
            )
        ],
    )
    def post(self, request: Request, user_id: str) -> Response:
        """Post the adjustment."""
        given = AdjustmentInput(data=request.data)
        given.is_valid(raise_exception=True)
        user = self.get_object()
        posted = adjust_user_balance(
            user=user,
            amount_nanos=given.validated_data["amount"],
            reason=given.validated_data["reason"],
            actor=cast(User, actor_of(request)),
            repeat_key=request.headers.get("Idempotency-Key", ""),
            request=request._request,
        )
        answer = {
            "transaction": posted.pk,
            "amount": given.validated_data["amount"],
            "wallet": find_standing(user.customer_id),
        }
        return Response(AdjustmentOutput(answer).data)


class ResetKeyView(generics.GenericAPIView[User]):
    """Replace a user's default API key."""

    queryset = User.objects.all()
    serializer_class = ResetKeyInput
    lookup_url_kwarg = "user_id"
    filter_backends = ()

    @extend_schema(
        request=ResetKeyInput,
        responses=ResetKeyOutput,
        operation_id="admin_users_reset_key",
    )
    def post(self, request: Request, user_id: str) -> Response:
        """Return the new key, this once."""
        ResetKeyInput(data=request.data).is_valid(raise_exception=True)
        _, raw = reset_default_key(
            user=self.get_object(), actor=actor_of(request), request=request._request
        )
        return Response(ResetKeyOutput({"api_key": raw}).data)


def _with_wallet(user: User) -> Any:
    standing = find_standing(user.customer_id)
    return {
        **UserOutput(user).data,
        "wallet": WalletOutput(standing).data,
    }
