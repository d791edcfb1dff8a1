"""Recorded calls over REST, for those who look after the gateway.

Here and not beside the records, because roles and the ledger lie above them.
"""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response

from apps.audit.filters import RequestExportFilterSet, RequestFilterSet, RequestListFilterSet
from apps.audit.models import APIRequest, Attempt
from apps.audit.pages import CallPages
from apps.audit.payload_access import check_payloads_open, view_payload
from apps.audit.serializers import PayloadOutput, RequestOutput
from apps.billing.explanation import explain_request
from apps.billing.queries import list_calls
from apps.billing.request_exports import EXPORT_RESPONSES, ExportView
from apps.billing.request_serializers import RequestDetailOutput, show_request
from apps.core.rest import actor_of
from apps.users.models import User
from apps.users.permissions import AnalystsRead, ViewersRead

ATTEMPTS_MAX = 100


@extend_schema_view(
    get=extend_schema(operation_id="admin_requests_list", summary="List recorded calls")
)
class RequestsView(generics.ListAPIView[APIRequest]):
    """List recorded calls, newest first.

    `next` leads to older calls; pages stay complete while calls are recorded. Filters by user,
    customer, key, model, provider, status, state, error code and time find their newest calls
    however rare they are. The others read until a page is full: unless one user, customer or key
    is asked for, or `started_after` says since when, they look at the 31 days before
    `started_before` (or now).
    """

    queryset = list_calls()
    serializer_class = RequestOutput
    pagination_class = CallPages
    filterset_class = RequestListFilterSet
    permission_classes = (ViewersRead,)


@extend_schema_view(
    get=extend_schema(operation_id="admin_users_requests_list", summary="List a user's calls")
)
class UserRequestsView(generics.ListAPIView[APIRequest]):
    """List the recorded calls of one user, newest first."""

    queryset = list_calls()
    serializer_class = RequestOutput
    pagination_class = CallPages
    filterset_class = RequestFilterSet
    permission_classes = (AnalystsRead,)

    def get_queryset(self) -> QuerySet[APIRequest]:
        """Return the user's calls."""
        rows = super().get_queryset()
        if getattr(self, "swagger_fake_view", False):
            return rows
        user = get_object_or_404(User.objects.only("pk"), pk=self.kwargs["user_id"])
        return rows.filter(user_id=user.pk)


class RequestView(generics.GenericAPIView[APIRequest]):
    """One recorded call."""

    queryset = APIRequest.objects.all()
    serializer_class = RequestDetailOutput
    permission_classes = (ViewersRead,)
    lookup_url_kwarg = "request_id"
    filter_backends = ()

    @extend_schema(operation_id="admin_requests_retrieve", summary="Look at one call")
    def get(self, request: Request, request_id: str) -> Response:
        """Return a call with its attempts, its timing, its entries, and why it cost what it cost.

        Lines and adjustments of `explained_charge` sum to what the ledger took for it.
        """
        row = self.get_object()
        rows = Attempt.objects.filter(request_id=row.pk).order_by("number", "id")
        attempts = list(rows[:ATTEMPTS_MAX])
        return Response(
            show_request(row, explain_request(row, attempts), attempts, {"request": request})
        )


class RequestPayloadView(generics.GenericAPIView[APIRequest]):
    """The bodies of somebody's call."""

    queryset = APIRequest.objects.all()
    serializer_class = PayloadOutput
    permission_classes = (AnalystsRead,)
    lookup_url_kwarg = "request_id"
    filter_backends = ()

    @extend_schema(operation_id="admin_requests_payload_retrieve", summary="Read a call's bodies")
    def get(self, request: Request, request_id: str) -> Response:
        """Return what was asked and answered. Every look is on record.

        Who may look is a setting of the deployment (`PAYLOAD_READERS`): 403 `payloads_closed`.
        404 `payload_not_kept` and `payload_erased` say that there is nothing to be seen.
        """
        actor = actor_of(request)
        check_payloads_open(getattr(actor, "role", ""))
        found = view_payload(row=self.get_object(), actor=actor, request=request._request)
        return Response(PayloadOutput(found).data)


class RequestExportView(ExportView):
    """Recorded calls as a file."""

    queryset = list_calls()
    filterset_class = RequestExportFilterSet
    permission_classes = (AnalystsRead,)
    serializer_class = columns = RequestOutput
    is_recorded = True

    @extend_schema(
        operation_id="admin_requests_export",
        summary="Export calls",
        filters=True,
        responses=EXPORT_RESPONSES,
    )
    def get(self, request: Request) -> Any:
        """Write the calls that pass the filters into a file, newest first, each one once.

        The file is CSV (RFC 4180, texts that a spreadsheet would run begin with an apostrophe) or
        JSON lines. It takes at most 1,000,000 calls: more are refused with 400
        `export_too_large`. A user writes one file at a time, and a process three: others are
        refused with 429 `busy`. A file that cannot be finished, or not within half an hour, breaks
        off without a proper end.
        """
        return self.stream(request)
