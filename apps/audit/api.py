"""Recorded calls over REST, for administrators."""

from __future__ import annotations

import django_filters
from rest_framework import generics

from apps.audit.models import APIRequest, RequestState
from apps.audit.serializers import RequestOutput
from apps.core.filters import IdFilter, StrictFilterSet
from apps.core.pages import NewestCallsFirst


class RequestFilter(StrictFilterSet):
    """What recorded calls can be filtered by."""

    user = IdFilter(field_name="user_id")
    api_key = IdFilter(field_name="api_key_id")
    model = django_filters.CharFilter(field_name="requested_model", max_length=200)
    state = django_filters.ChoiceFilter(choices=RequestState.choices)
    started_after = django_filters.IsoDateTimeFilter(field_name="started_at", lookup_expr="gte")
    started_before = django_filters.IsoDateTimeFilter(field_name="started_at", lookup_expr="lt")

    class Meta:
        model = APIRequest
        fields: list[str] = []


class RequestsView(generics.ListAPIView[APIRequest]):
    """List recorded calls, newest first."""

    queryset = APIRequest.objects.all()
    serializer_class = RequestOutput
    pagination_class = NewestCallsFirst
    filterset_class = RequestFilter
