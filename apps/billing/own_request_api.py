"""One's own recorded calls over REST: nothing of providers, nor that anybody else's calls exist."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response

from apps.audit.filters import OwnRequestExportFilterSet, OwnRequestListFilterSet
from apps.audit.models import APIRequest
from apps.audit.pages import CallPages
from apps.audit.payload_access import read_payload
from apps.audit.serializers import OwnRequestOutput, PayloadOutput
from apps.billing.explanation import explain_request
from apps.billing.queries import list_calls
from apps.billing.request_exports import EXPORT_RESPONSES, ExportView
from apps.billing.request_serializers import OwnRequestDetailOutput, show_own_request
from apps.core.rest import actor_of
from apps.users.permissions import IsSignedIn


class _OwnRequests(generics.GenericAPIView[APIRequest]):
    """Knows only the caller's own calls."""

    queryset = APIRequest.objects.all()
    permission_classes = (IsSignedIn,)
    lookup_url_kwarg = "request_id"

    def get_queryset(self) -> QuerySet[APIRequest]:
        """Return the caller's calls."""
        rows = super().get_queryset()
        if getattr(self, "swagger_fake_view", False):
            return rows
        return rows.filter(user_id=actor_of(self.request).pk)


@extend_schema_view(get=extend_schema(operation_id="user_requests_list", summary="List my calls"))
class OwnRequestsView(_OwnRequests, generics.ListAPIView[APIRequest]):
    """List one's own recorded calls, newest first. `next` leads to older calls."""

    queryset = list_calls()
    serializer_class = OwnRequestOutput
    pagination_class = CallPages
    filterset_class = OwnRequestListFilterSet


class OwnRequestView(_OwnRequests):
    """One of one's own calls."""

    serializer_class = OwnRequestDetailOutput
    filter_backends = ()

    @extend_schema(operation_id="user_requests_retrieve", summary="Look at one of my calls")
    def get(self, request: Request, request_id: str) -> Response:
        """Return a call with its timing, its entries, and why it cost what it cost."""
        row = self.get_object()
        return Response(show_own_request(row, explain_request(row)))


class OwnRequestPayloadView(_OwnRequests):
    """The bodies of one of one's own calls."""

    serializer_class = PayloadOutput
    filter_backends = ()

    @extend_schema(
        operation_id="user_requests_payload_retrieve", summary="Read the bodies of my call"
    )
    def get(self, request: Request, request_id: str) -> Response:
        """Return what was asked and answered.

        404 `payload_not_kept` and `payload_erased` say that there is nothing to be seen.
        """
        return Response(PayloadOutput(read_payload(self.get_object())).data)


class OwnRequestExportView(_OwnRequests, ExportView):
    """One's own calls as a file."""

    queryset = list_calls()
    serializer_class = columns = OwnRequestOutput
    filterset_class = OwnRequestExportFilterSet

    @extend_schema(
        operation_id="user_requests_export",
        summary="Export my calls",
        filters=True,
        responses=EXPORT_RESPONSES,
    )
    def get(self, request: Request) -> Any:
        """Write one's own calls that pass the filters into a file, newest first, each one once.

        CSV or JSON lines, at most 1,000,000 calls; more are refused with 400 `export_too_large`.
        What is not whole after half an hour breaks off without a proper end.
        """
        return self.stream(request)
