"""Recorded calls over REST, for administrators."""

from __future__ import annotations

import django_filters
from django import forms
from rest_framework import generics

from apps.audit.models import APIRequest, RequestState
from apps.audit.serializers import RequestOutput
from apps.core.rest import NewestFirst

_ID_MAX = 2**63 - 1


class _IdField(forms.IntegerField):
    """A key; what would not fit the column is refused before it reaches the database."""

    def __init__(self, **kwargs: object) -> None:
        super().__init__(min_value=0, max_value=_ID_MAX, required=bool(kwargs.get("required")))


class IdFilter(django_filters.Filter):
    """Filters by a whole number."""

    field_class = _IdField


class RequestFilter(django_filters.FilterSet):
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
    pagination_class = NewestFirst
    filterset_class = RequestFilter
