"""Statistics over REST: exact sums of recorded calls and of money."""

from __future__ import annotations

from typing import Any

from django.shortcuts import get_object_or_404
from django.utils import timezone
from drf_spectacular.utils import OpenApiParameter, extend_schema
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.analytics.money import report_money
from apps.analytics.ranges import Range, RangeInvalid, make_range
from apps.analytics.serializers import (
    BillingOutput,
    OverviewInput,
    OverviewOutput,
    OwnUsageOutput,
    RangeInput,
    SettledRangeInput,
    UsageOutput,
)
from apps.analytics.usage import SUBJECT_ASPECTS, Report, report_usage
from apps.api_keys.models import APIKey
from apps.core.rest import actor_of, read_query
from apps.providers.models import Provider
from apps.users.models import User
from apps.users.permissions import AnalystsRead, IsSignedIn, ViewersRead


def _path_id(name: str) -> OpenApiParameter:
    return OpenApiParameter(name, int, OpenApiParameter.PATH)


class OverviewView(APIView):
    """What all calls come to."""

    permission_classes = (ViewersRead,)

    @extend_schema(
        operation_id="admin_stats_overview_retrieve",
        summary="Statistics of all calls",
        parameters=[OverviewInput],
        responses=OverviewOutput,
    )
    def get(self, request: Request) -> Response:
        """Exact sums over the calls that began in a range (default: the last 30 days with today, at
        most 400) and over today, both in UTC. `by` adds one list. Viewers see null in the place of
        money.
        """
        given = read_query(OverviewInput, request)
        report = report_usage(
            {},
            over=_range(given, "started"),
            now=timezone.now(),
            by=(given["by"],) if "by" in given else (),
        )
        return Response(OverviewOutput(report, context={"request": request}).data)


class UserStatsView(APIView):
    """What one user's calls come to."""

    permission_classes = (ViewersRead,)

    @extend_schema(
        operation_id="admin_stats_user_requests_retrieve",
        summary="Statistics of a user's calls",
        parameters=[_path_id("user_id"), RangeInput],
        responses=UsageOutput,
    )
    def get(self, request: Request, user_id: str) -> Response:
        """Exact sums over one user's calls: in all, today (UTC), by day and by model."""
        user = get_object_or_404(User, pk=user_id)
        return _answer_usage(request, {"user_id": user.pk})


class ProviderStatsView(APIView):
    """What one provider's calls come to."""

    permission_classes = (ViewersRead,)

    @extend_schema(
        operation_id="admin_providers_stats_retrieve",
        summary="Statistics of a provider's calls",
        parameters=[_path_id("provider_id"), RangeInput],
        responses=UsageOutput,
    )
    def get(self, request: Request, provider_id: str) -> Response:
        """Exact sums over the calls that this provider was the last to be tried for: in all, today
        (UTC), by day and by model.
        """
        provider = get_object_or_404(Provider, pk=provider_id)
        return _answer_usage(request, {"provider_id": provider.pk})


class KeyStatsView(APIView):
    """What one API key's calls come to."""

    permission_classes = (ViewersRead,)

    @extend_schema(
        operation_id="admin_keys_stats_retrieve",
        summary="Statistics of an API key's calls",
        parameters=[_path_id("key_id"), RangeInput],
        responses=UsageOutput,
    )
    def get(self, request: Request, key_id: str) -> Response:
        """Exact sums over the calls made with one key: in all, today (UTC), by day and by model."""
        key = get_object_or_404(APIKey, pk=key_id)
        return _answer_usage(request, {"api_key_id": key.pk})


class BillingStatsView(APIView):
    """What came in and went out."""

    permission_classes = (AnalystsRead,)

    @extend_schema(
        operation_id="admin_stats_billing_retrieve",
        summary="Statistics of money",
        parameters=[SettledRangeInput],
        responses=BillingOutput,
    )
    def get(self, request: Request) -> Response:
        """Exact sums of money by the moment it was settled, in UTC: charges, known costs and margin
        of calls; top-ups, adjustments, refunds and funding of quotas, signed from the customers'
        side; and the balances of all customers now.
        """
        report = report_money(over=_range(read_query(SettledRangeInput, request), "settled"))
        return Response(BillingOutput(report).data)


class OwnUsageView(APIView):
    """What one's own calls come to."""

    permission_classes = (IsSignedIn,)

    @extend_schema(
        operation_id="user_usage_retrieve",
        summary="Statistics of one's own calls",
        parameters=[RangeInput],
        responses=OwnUsageOutput,
    )
    def get(self, request: Request) -> Response:
        """Exact sums over the caller's own calls: in all, today (UTC), by day and by model."""
        return _answer_own(request, {"user_id": actor_of(request).pk})


class OwnKeyStatsView(APIView):
    """What the calls of one of one's own keys come to."""

    permission_classes = (IsSignedIn,)

    @extend_schema(
        operation_id="user_keys_stats_retrieve",
        summary="Statistics of one of one's own keys",
        parameters=[_path_id("key_id"), RangeInput],
        responses=OwnUsageOutput,
    )
    def get(self, request: Request, key_id: str) -> Response:
        """Exact sums over the calls made with one of the caller's own keys: in all, today (UTC), by
        day and by model.
        """
        key = get_object_or_404(APIKey, pk=key_id, user_id=actor_of(request).pk)
        return _answer_own(request, {"api_key_id": key.pk, "user_id": key.user_id})


def _answer_usage(request: Request, subject: dict[str, int]) -> Response:
    report = _report(request, subject)
    return Response(UsageOutput(report, context={"request": request}).data)


def _answer_own(request: Request, subject: dict[str, int]) -> Response:
    return Response(OwnUsageOutput(_report(request, subject)).data)


def _report(request: Request, subject: dict[str, int]) -> Report:
    over = _range(read_query(RangeInput, request), "started")
    return report_usage(subject, over=over, now=timezone.now(), by=SUBJECT_ASPECTS)


def _range(given: dict[str, Any], prefix: str) -> Range:
    try:
        return make_range(
            start=given.get(f"{prefix}_after"),
            end=given.get(f"{prefix}_before"),
            now=timezone.now(),
        )
    except RangeInvalid as error:
        raise ValidationError({f"{prefix}_after": [str(error)]}, code="range") from error
