"""Adjustments that want a second administrator, over REST: read, approved, rejected, withdrawn."""

from __future__ import annotations

from typing import Any, cast

from drf_spectacular.utils import extend_schema
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response

from apps.billing.filters import ProposedAdjustmentFilterSet
from apps.billing.models import ProposedAdjustment
from apps.billing.proposal_serializers import ProposedAdjustmentOutput, RejectionInput
from apps.billing.proposals import approve_adjustment, reject_adjustment, withdraw_adjustment
from apps.billing.serializers import NothingInput
from apps.core.pages import NewestNumbersFirst
from apps.core.rest import actor_of
from apps.users.models import User

_SHOWN = ProposedAdjustment.objects.select_related("user", "requested_by", "decided_by")


class ProposedAdjustmentsView(generics.ListAPIView[ProposedAdjustment]):
    """Adjustments that wait, and what became of others."""

    queryset = _SHOWN
    serializer_class = ProposedAdjustmentOutput
    pagination_class = NewestNumbersFirst
    filterset_class = ProposedAdjustmentFilterSet

    @extend_schema(
        operation_id="admin_proposed_adjustments_list", summary="List proposed adjustments"
    )
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List adjustments that went beyond what one administrator may move alone, newest first.

        Those with the status `pending` wait for a second one, for seven days.
        """
        return super().get(request, *args, **kwargs)


class _OneView(generics.GenericAPIView[ProposedAdjustment]):
    """One proposed adjustment."""

    queryset = _SHOWN
    serializer_class = ProposedAdjustmentOutput
    lookup_url_kwarg = "proposed_adjustment_id"
    filter_backends = ()


class ProposedAdjustmentView(_OneView):
    """One adjustment that waits, or what became of it."""

    @extend_schema(
        operation_id="admin_proposed_adjustments_retrieve", summary="Show a proposed adjustment"
    )
    def get(self, request: Request, proposed_adjustment_id: str) -> Response:
        """Return the adjustment."""
        return Response(ProposedAdjustmentOutput(self.get_object()).data)


class ApproveAdjustmentView(_OneView):
    """Approve an adjustment."""

    @extend_schema(
        operation_id="admin_proposed_adjustments_approve",
        summary="Approve a proposed adjustment",
        request=NothingInput,
        responses=ProposedAdjustmentOutput,
    )
    def post(self, request: Request, proposed_adjustment_id: str) -> Response:
        """Post what another administrator proposed.

        Not one's own (403 `second_administrator_needed`), and only once (409 `proposal_decided`).
        Where the balance does not cover it (409 `insufficient_balance`) it goes on waiting.
        """
        NothingInput(data=request.data).is_valid(raise_exception=True)
        done = approve_adjustment(
            proposal=self.get_object(), actor=_admin(request), request=request._request
        )
        return Response(ProposedAdjustmentOutput(done).data)


class RejectAdjustmentView(_OneView):
    """Reject an adjustment."""

    @extend_schema(
        operation_id="admin_proposed_adjustments_reject",
        summary="Reject a proposed adjustment",
        request=RejectionInput,
        responses=ProposedAdjustmentOutput,
    )
    def post(self, request: Request, proposed_adjustment_id: str) -> Response:
        """Refuse what another administrator proposed, and say why."""
        given = RejectionInput(data=request.data)
        given.is_valid(raise_exception=True)
        done = reject_adjustment(
            proposal=self.get_object(),
            actor=_admin(request),
            reason=given.validated_data["reason"],
            request=request._request,
        )
        return Response(ProposedAdjustmentOutput(done).data)


class WithdrawAdjustmentView(_OneView):
    """Take back one's own proposal."""

    @extend_schema(
        operation_id="admin_proposed_adjustments_withdraw",
        summary="Withdraw a proposed adjustment",
        request=NothingInput,
        responses=ProposedAdjustmentOutput,
    )
    def post(self, request: Request, proposed_adjustment_id: str) -> Response:
        """Take back what the caller proposed; others reject it (403 `not_requester`)."""
        NothingInput(data=request.data).is_valid(raise_exception=True)
        done = withdraw_adjustment(
            proposal=self.get_object(), actor=_admin(request), request=request._request
        )
        return Response(ProposedAdjustmentOutput(done).data)


def _admin(request: Request) -> User:
    return cast(User, actor_of(request))
