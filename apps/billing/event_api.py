"""Admin events and counts of refused calls over REST. Read only.

Here and not beside the records, because roles lie above them.
"""

from __future__ import annotations

from django.db.models import Sum
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response

from apps.audit.filters import EventFilterSet, RefusalFilterSet, RefusalSumFilterSet
from apps.audit.models import AdminEvent, RefusalCount
from apps.audit.serializers import EventOutput, RefusalOutput, RefusalSumsOutput
from apps.core.pages import NewestNumbersFirst
from apps.users.permissions import AnalystsRead, ViewersRead

CODES_MAX = 1_000


@extend_schema_view(
    get=extend_schema(operation_id="admin_events_list", summary="List admin events")
)
class EventsView(generics.ListAPIView[AdminEvent]):
    """List who did what, newest first.

    Changes of anything, sign-ins good and bad (`sign_in.`), denied access (`access.denied`),
    refused provider addresses, views of bodies (`payload.`) and exports (`requests.`) are all
    here. A dot at the end of `action` finds all actions that begin so.
    """

    queryset = AdminEvent.objects.all()
    serializer_class = EventOutput
    pagination_class = NewestNumbersFirst
    filterset_class = EventFilterSet
    permission_classes = (AnalystsRead,)


@extend_schema_view(
    get=extend_schema(operation_id="admin_events_retrieve", summary="Look at one admin event")
)
class EventView(generics.RetrieveAPIView[AdminEvent]):
    """Return one event with the values before and after."""

    queryset = AdminEvent.objects.all()
    serializer_class = EventOutput
    permission_classes = (AnalystsRead,)
    lookup_url_kwarg = "event_id"
    filter_backends = ()


@extend_schema_view(
    get=extend_schema(operation_id="admin_refusals_list", summary="List counts of refused calls")
)
class RefusalsView(generics.ListAPIView[RefusalCount]):
    """List how many calls were refused, by key, reason and minute, newest first.

    Refused calls cost nothing and are not among the recorded calls. Counts are kept for 400 days.
    """

    queryset = RefusalCount.objects.all()
    serializer_class = RefusalOutput
    pagination_class = NewestNumbersFirst
    filterset_class = RefusalFilterSet
    permission_classes = (ViewersRead,)


class RefusalSumsView(generics.GenericAPIView[RefusalCount]):
    """Sums of refused calls."""

    queryset = RefusalCount.objects.all()
    serializer_class = RefusalSumsOutput
    pagination_class = None
    filterset_class = RefusalSumFilterSet
    permission_classes = (ViewersRead,)

    @extend_schema(operation_id="admin_refusals_sum", summary="Sum up refused calls", filters=True)
    def get(self, request: Request) -> Response:
        """Return how many calls were refused, in all and for each reason.

        Without `minute_after`, of 31 days.
        """
        rows = self.filter_queryset(self.get_queryset())
        codes = rows.order_by().values("code").annotate(sum=Sum("count")).order_by("-sum", "code")
        found = [{"code": row["code"], "count": row["sum"]} for row in codes[:CODES_MAX]]
        total = sum(row["count"] for row in found)
        return Response(RefusalSumsOutput({"total": total, "codes": found}).data)
