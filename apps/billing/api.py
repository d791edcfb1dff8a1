"""Users, their wallets and default keys over REST, for administrators; viewers read masked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import generics
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from apps.api_keys.issue import reset_default_key
from apps.billing.accounts import find_standing, list_standings
from apps.billing.adjustments import NoSuchEntry
from apps.billing.budgets import budget_of_group, budget_of_user, find_uses, list_uses
from apps.billing.customers import adjust_user_balance, create_user, delete_user
from apps.billing.filters import UserFilterSet
from apps.billing.models import ProposedAdjustment
from apps.billing.proposal_serializers import ProposedAdjustmentOutput
from apps.billing.serializers import (
    AdjustmentInput,
    AdjustmentOutput,
    BudgetUsesOutput,
    EndedSessionsOutput,
    NothingInput,
    ResetKeyOutput,
    UserChangeInput,
    UserInput,
    UserOutput,
)
from apps.core.idempotency_keys import idempotency_key_parameter, read_idempotency_key
from apps.core.rest import actor_of, answer_deletion
from apps.users.changes import change_user, end_all_sessions, refuse_above
from apps.users.models import User, UserGroup
from apps.users.permissions import AnalystsRead, ViewersRead


class UsersView(generics.ListAPIView[User]):
    """List users, add one."""

    permission_classes = (ViewersRead,)
    queryset = User.objects.order_by("id")
    serializer_class = UserOutput
    filterset_class = UserFilterSet

    @extend_schema(operation_id="admin_users_list", summary="List users")
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List users with their wallets.

        `search` looks into user name, name and, for administrators, e-mail address. Viewers and
        analysts see no addresses, viewers no money.
        """
        page = self.paginate_queryset(self.filter_queryset(self.get_queryset()))
        return self.get_paginated_response(_show(page or (), request))

    @extend_schema(
        operation_id="admin_users_create",
        summary="Add a user",
        request=UserInput,
        responses={201: UserOutput},
    )
    def post(self, request: Request) -> Response:
        """Add a user with an empty wallet, the role `user` and no API key."""
        given = UserInput(data=request.data)
        given.is_valid(raise_exception=True)
        user = create_user(
            **given.validated_data, actor=actor_of(request), request=request._request
        )
        return Response(_show([user], request)[0], status=201)


class UserView(generics.GenericAPIView[User]):
    """One user with the wallet."""

    permission_classes = (ViewersRead,)
    queryset = User.objects.all()
    serializer_class = UserOutput
    lookup_url_kwarg = "user_id"
    filter_backends = ()

    @extend_schema(operation_id="admin_users_retrieve", summary="Show a user")
    def get(self, request: Request, user_id: str) -> Response:
        """Return the user with the wallet."""
        return Response(_show([self.get_object()], request)[0])

    @extend_schema(
        operation_id="admin_users_replace",
        summary="Change a user",
        request=UserChangeInput,
        responses=UserOutput,
    )
    def put(self, request: Request, user_id: str) -> Response:
        """Change a user; user name and address must be given, what else is left out stays."""
        return self._change(request, is_partial=False)

    @extend_schema(
        operation_id="admin_users_update",
        summary="Change some of a user",
        request=UserChangeInput,
        responses=UserOutput,
    )
    def patch(self, request: Request, user_id: str) -> Response:
        """Change what is given of a user.

        Nobody changes his own role, activity, group, limits, cap, budgets or password here (403
        `own_account`), and an active administrator always remains (409 `last_admin`).
        """
        return self._change(request, is_partial=True)

    @extend_schema(
        operation_id="admin_users_delete",
        summary="Delete a user",
        request=None,
        responses={204: None},
    )
    def delete(self, request: Request, user_id: str) -> Response:
        """Delete a user with keys, accounts and sessions.

        Who has history (a call, a ledger entry, a quota) is deactivated instead, and the answer is
        409 `archived_instead`.
        """
        is_deleted = delete_user(
            user=self.get_object(), actor=_admin(request), request=request._request
        )
        return answer_deletion(is_deleted=is_deleted)

    def _change(self, request: Request, *, is_partial: bool) -> Response:
        user = self.get_object()
        given = UserChangeInput(user, data=request.data, partial=is_partial)
        given.is_valid(raise_exception=True)
        changed = change_user(
            user=user, actor=_admin(request), request=request._request, **given.validated_data
        )
        return Response(_show([changed], request)[0])


class AdjustBalanceView(generics.GenericAPIView[User]):
    """Give money to a user or take it back."""

    queryset = User.objects.all()
    serializer_class = AdjustmentInput
    lookup_url_kwarg = "user_id"
    filter_backends = ()

    @extend_schema(
        operation_id="admin_users_adjust_balance",
        summary="Adjust a balance",
        request=AdjustmentInput,
        responses={200: AdjustmentOutput, 202: ProposedAdjustmentOutput},
        parameters=[idempotency_key_parameter(is_required=False)],
    )
    def post(self, request: Request, user_id: str) -> Response:
        """Give money to a user (positive) or take it back (negative), on record with the reason.

        What goes beyond what one administrator may move in 24 hours (`ADJUSTMENT_USD_ALONE`) moves
        nothing yet: it is answered with 202 and waits for a second one.
        """
        given = AdjustmentInput(data=request.data)
        given.is_valid(raise_exception=True)
        user = self.get_object()
        try:
            posted = adjust_user_balance(
                user=user,
                amount_nanos=given.validated_data["amount"],
                reason=given.validated_data["reason"],
                corrects_id=given.validated_data.get("corrects"),
                actor=_admin(request),
                idempotency_key=read_idempotency_key(request) or "",
                request=request._request,
            )
        except NoSuchEntry as error:
            raise ValidationError({"corrects": [str(error)]}) from error
        if isinstance(posted, ProposedAdjustment):
            return Response(ProposedAdjustmentOutput(posted).data, status=202)
        answer = {
            "transaction": posted.pk,
            "amount": given.validated_data["amount"],
            "wallet": find_standing(user.customer_id),
        }
        return Response(AdjustmentOutput(answer).data)


class ResetKeyView(generics.GenericAPIView[User]):
    """Replace a user's default API key."""

    queryset = User.objects.all()
    serializer_class = NothingInput
    lookup_url_kwarg = "user_id"
    filter_backends = ()

    @extend_schema(
        operation_id="admin_users_reset_key",
        summary="Replace a default API key",
        request=NothingInput,
        responses=ResetKeyOutput,
    )
    def post(self, request: Request, user_id: str) -> Response:
        """Return a new default key, this once; the old one stops working."""
        NothingInput(data=request.data).is_valid(raise_exception=True)
        user = self.get_object()
        refuse_above(user, cast(User, actor_of(request)))
        _, raw = reset_default_key(user=user, actor=actor_of(request), request=request._request)
        return Response(ResetKeyOutput({"api_key": raw}).data)


class EndSessionsView(generics.GenericAPIView[User]):
    """Sign a user out everywhere."""

    queryset = User.objects.all()
    serializer_class = NothingInput
    lookup_url_kwarg = "user_id"
    filter_backends = ()

    @extend_schema(
        operation_id="admin_users_end_sessions",
        summary="Sign a user out everywhere",
        request=NothingInput,
        responses=EndedSessionsOutput,
    )
    def post(self, request: Request, user_id: str) -> Response:
        """End all sessions of a user: the tokens stop working at once. API keys go on working.

        He is signed out of the Django admin, too.
        """
        NothingInput(data=request.data).is_valid(raise_exception=True)
        ended = end_all_sessions(
            user=self.get_object(), actor=_admin(request), request=request._request
        )
        return Response(EndedSessionsOutput({"ended": ended}).data)


class UserGroupBudgetsView(generics.GenericAPIView[UserGroup]):
    """What a user group has spent of its budgets."""

    permission_classes = (AnalystsRead,)
    queryset = UserGroup.objects.all()
    serializer_class = BudgetUsesOutput
    lookup_url_kwarg = "user_group_id"
    filter_backends = ()

    @extend_schema(operation_id="admin_user_groups_budgets", summary="Show a user group's budgets")
    def get(self, request: Request, user_group_id: str) -> Response:
        """Return what the group's users have spent together in this day and month (UTC)."""
        uses = find_uses(budget_of_group(self.get_object()), now=timezone.now())
        return Response(BudgetUsesOutput(uses).data)


def _admin(request: Request) -> User:
    return cast(User, actor_of(request))


def _show(users: Sequence[User], request: Request) -> Any:
    standings = list_standings([user.customer_id for user in users])
    budgets = [found for user in users if (found := budget_of_user(user)) is not None]
    context = {
        "request": request,
        "standings": standings,
        "budgets": list_uses(budgets, now=timezone.now()),
    }
    return UserOutput(users, many=True, context=context).data
