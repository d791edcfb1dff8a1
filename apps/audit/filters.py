"""What recorded calls, admin events and refusals can be filtered by."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, ClassVar, Final, cast

import django_filters
from django.conf import settings
from django.db.models import QuerySet
from django.utils import timezone
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request

from apps.audit.event_masks import search_events
from apps.audit.filter_fields import (
    AddressFilter,
    ChoicesFilter,
    ErrorFilter,
    RangesFilter,
    TokensFilter,
)
from apps.audit.idempotency_keys import key_digest
from apps.audit.models import APIRequest, CallKey, RequestState, UsageSource
from apps.core.filters import (
    TEXT_LENGTH_MAX,
    FlagFilter,
    IdFilter,
    IdsFilter,
    MomentFilter,
    SearchFilter,
    StrictFilterSet,
    USDFilter,
    WordsFilter,
)
from apps.core.idempotency_keys import KEY_LENGTH_MAX
from apps.core.ids import uuid7_lower_bound

SEARCH_DAYS: Final = 31
OK: Final = 200
FAILED_FROM: Final = 400
FORMATS: Final = ("csv", "jsonl")
_FIRST_MOMENT: Final = datetime(1970, 1, 1, tzinfo=UTC)
_STATUS_CLASSES: Final = {"2xx": (200, 300), "4xx": (400, 500), "5xx": (500, 600)}


class OwnRequestFilterSet(StrictFilterSet):
    """What one's own calls can be filtered by."""

    api_key = IdFilter(field_name="api_key_id")
    model = WordsFilter(field_name="requested_model")
    model_id = IdFilter(field_name="model_id")
    status_class = RangesFilter(field_name="status_code", ranges=_STATUS_CLASSES)
    status_code = IdsFilter(field_name="status_code")
    state = ChoicesFilter(field_name="state", known=RequestState.values)
    started_after = MomentFilter(field_name="started_at", lookup_expr="gte")
    started_before = MomentFilter(field_name="started_at", lookup_expr="lt")
    settled_after = MomentFilter(field_name="settled_at", lookup_expr="gte")
    settled_before = MomentFilter(field_name="settled_at", lookup_expr="lt")
    address = AddressFilter(field_name="ip_address")
    request_id = django_filters.UUIDFilter(field_name="id")
    charge_min = USDFilter(field_name="charge_nanos", lookup_expr="gte")
    charge_max = USDFilter(field_name="charge_nanos", lookup_expr="lte")
    duration_min = IdFilter(field_name="duration_ms", lookup_expr="gte", help_text="Milliseconds.")
    duration_max = IdFilter(field_name="duration_ms", lookup_expr="lte", help_text="Milliseconds.")
    ttft_min = IdFilter(field_name="ttft_ms", lookup_expr="gte", help_text="Milliseconds.")
    ttft_max = IdFilter(field_name="ttft_ms", lookup_expr="lte", help_text="Milliseconds.")
    tokens_min = TokensFilter(lookup_expr="gte", help_text="The sum of all token classes.")
    tokens_max = TokensFilter(lookup_expr="lte", help_text="The sum of all token classes.")
    input_tokens_min = IdFilter(field_name="input_tokens", lookup_expr="gte")
    input_tokens_max = IdFilter(field_name="input_tokens", lookup_expr="lte")
    output_tokens_min = IdFilter(field_name="output_tokens", lookup_expr="gte")
    output_tokens_max = IdFilter(field_name="output_tokens", lookup_expr="lte")
    usage_source = ChoicesFilter(field_name="usage_source", known=UsageSource.values)
    is_stream = FlagFilter(field_name="is_stream")
    endpoint = WordsFilter(field_name="endpoint")
    error_code = WordsFilter(field_name="error_code")
    finish_reason = WordsFilter(field_name="finish_reason")
    service_tier = WordsFilter(field_name="service_tier")
    answered_from = WordsFilter(field_name="answered_from")

    class Meta:
        model = APIRequest
        fields: list[str] = []


class OwnRequestListFilterSet(OwnRequestFilterSet):
    """The same for the list of one's own calls, which finds the call of an idempotency key, too."""

    idempotency_key = django_filters.CharFilter(
        method="keep_first_of_key",
        max_length=KEY_LENGTH_MAX,
        help_text="The `Idempotency-Key` that the call was sent with, in the last 24 hours.",
    )

    def keep_first_of_key(self, queryset: QuerySet[Any], name: str, value: str) -> QuerySet[Any]:
        """Return the call that has a key of the caller's."""
        request = cast(Request, self.request)
        user_id = cast(int, request.user.pk)
        digest = key_digest(settings.API_KEY_PEPPER, user_id, value.encode())
        keys = CallKey.objects.filter(user_id=user_id, digest=digest)
        return queryset.filter(id__in=keys.values("request_id"))


class RequestFilterSet(OwnRequestFilterSet):
    """What recorded calls can be filtered by."""

    # Answers to these would tell viewers what their lists keep from them.
    closed_to_viewers: ClassVar[frozenset[str]] = frozenset(
        {
            "user",
            "customer",
            "api_key",
            "address",
            "charge_min",
            "charge_max",
            "cost_min",
            "cost_max",
            "error",
            "upstream_request_id",
        }
    )

    user = IdFilter(field_name="user_id")
    customer = IdFilter(field_name="customer_id")
    provider = IdsFilter(field_name="provider_id")
    cost_min = USDFilter(field_name="cost_nanos", lookup_expr="gte")
    cost_max = USDFilter(field_name="cost_nanos", lookup_expr="lte")
    is_usage_suspect = FlagFilter(field_name="is_usage_suspect")
    upstream_request_id = django_filters.CharFilter(
        field_name="upstream_request_id", max_length=TEXT_LENGTH_MAX
    )
    error = ErrorFilter(
        help_text="A piece of text in the error code or in what an attempt was told, whatever the "
        "case; % and _ mean themselves."
    )

    def filter_queryset(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the rows that pass every filter."""
        request = cast(Request, self.request)
        if getattr(request.user, "role", "") == "viewer":
            refused = sorted(self.closed_to_viewers & set(request.query_params))
            if refused:
                raise ValidationError(
                    {name: ["Your role cannot filter by this."] for name in refused},
                    code="closed_filter",
                )
        return super().filter_queryset(queryset)


class RequestListFilterSet(RequestFilterSet):
    """The same for the list of all calls, which does not search for ever.

    Filters that an index serves find the newest calls at once, however rare they are. The others
    read until a page is full; when nobody says since when, they read `SEARCH_DAYS` back.
    """

    served_by_index: ClassVar[frozenset[str]] = frozenset(
        {
            "user", "customer", "api_key", "model", "provider", "status_class", "state",
            "error_code", "request_id", "started_after", "started_before",
        }
    )  # fmt: skip
    narrow: ClassVar[frozenset[str]] = frozenset(
        {"user", "customer", "api_key", "request_id", "started_after"}
    )

    def filter_queryset(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the rows that pass every filter."""
        passed = super().filter_queryset(queryset)
        values = self.form.cleaned_data
        given = {name for name, value in values.items() if value not in (None, "", [])}
        if all(code == OK or code >= FAILED_FROM for code in values["status_code"] or ()):
            given.discard("status_code")  # Most calls have it, or it is in the index of failures.
        if given <= self.served_by_index or given & self.narrow:
            return passed
        since = (values["started_before"] or timezone.now()) - timedelta(days=SEARCH_DAYS)
        # An id holds the moment it was made, which is that of the start but for a clock that was
        # set: with a day to spare it leaves the partitions of older months unread.
        oldest = uuid7_lower_bound(max(since - timedelta(days=1), _FIRST_MOMENT))
        return passed.filter(started_at__gte=since, id__gte=oldest)


class RequestExportFilterSet(RequestFilterSet):
    """The same for an export, and how it is written."""

    format = django_filters.ChoiceFilter(
        choices=[(name, name) for name in FORMATS], method="keep", empty_label=None
    )

    def keep(self, queryset: QuerySet[Any], name: str, value: str) -> QuerySet[Any]:
        """Return all rows: how they are written does not matter here."""
        return queryset


class OwnRequestExportFilterSet(OwnRequestFilterSet):
    """Filters of an export of one's own calls, and how it is written."""

    format = django_filters.ChoiceFilter(
        choices=[(name, name) for name in FORMATS], method="keep", empty_label=None
    )

    def keep(self, queryset: QuerySet[Any], name: str, value: str) -> QuerySet[Any]:
        """Return all rows: how they are written does not matter here."""
        return queryset


class ActionFilter(django_filters.CharFilter):
    """Filters by an action, or by the beginning of some: `provider.` finds `provider.created`."""

    def filter(self, qs: QuerySet[Any], value: str) -> QuerySet[Any]:
        """Return the rows with the action."""
        if not value:
            return qs
        return (
            qs.filter(action__startswith=value) if value.endswith(".") else qs.filter(action=value)
        )


class _EventSearchFilter(SearchFilter):
    """Finds a piece of text in what the caller can see of an event."""

    def filter(self, qs: QuerySet[Any], value: str) -> QuerySet[Any]:
        """Return the rows that hold the text."""
        return search_events(qs, value, request=self.parent.request) if value else qs


class EventFilterSet(StrictFilterSet):
    """What admin events can be filtered by."""

    actor = IdFilter(field_name="actor_id")
    action = ActionFilter(
        max_length=64, help_text="An action, or with a dot at the end all that begin so."
    )
    object_type = django_filters.CharFilter(field_name="object_type", max_length=64)
    object_id = django_filters.CharFilter(field_name="object_id", max_length=64)
    created_after = MomentFilter(field_name="created_at", lookup_expr="gte")
    created_before = MomentFilter(field_name="created_at", lookup_expr="lt")
    address = AddressFilter(field_name="ip_address")
    search = _EventSearchFilter(
        columns=("object_name", "reason", "actor_name"),
        help_text="A piece of the object's or actor's name or of the reason.",
    )


class RefusalFilterSet(StrictFilterSet):
    """What counts of refused calls can be filtered by."""

    api_key = IdFilter(field_name="api_key_id", help_text="0: calls without a known key.")
    code = WordsFilter(field_name="code")
    minute_after = MomentFilter(field_name="minute", lookup_expr="gte")
    minute_before = MomentFilter(field_name="minute", lookup_expr="lt")


class RefusalSumFilterSet(RefusalFilterSet):
    """The same for their sums: of the last `SEARCH_DAYS` where nobody says since when."""

    def filter_queryset(self, queryset: QuerySet[Any]) -> QuerySet[Any]:
        """Return the rows that pass every filter."""
        passed = super().filter_queryset(queryset)
        values = self.form.cleaned_data
        if values["minute_after"] is not None:
            return passed
        until = values["minute_before"] or timezone.now()
        since = max(until, _FIRST_MOMENT + timedelta(days=SEARCH_DAYS))
        return passed.filter(minute__gte=since - timedelta(days=SEARCH_DAYS))
