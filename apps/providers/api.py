"""Providers over REST, for administrators."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.rest import actor_of
from apps.providers.models import Provider
from apps.providers.registration import create_provider
from apps.providers.serializers import ProviderInput, ProviderOutput


class ProvidersView(generics.ListAPIView[Provider]):
    """List providers, add one."""

    queryset = Provider.objects.prefetch_related("keys").order_by("name")
    serializer_class = ProviderOutput
    filterset_fields = ("name", "dialect", "is_active")

    @extend_schema(
        request=ProviderInput,
        responses={201: ProviderOutput},
        operation_id="admin_providers_create",
    )
    def post(self, request: Request) -> Response:
        """Add a provider with its first key."""
        given = ProviderInput(data=request.data)
        given.is_valid(raise_exception=True)
        values = given.validated_data
        provider = create_provider(
            name=values["name"],
            base_url=values["base_url"],
            secret=values["api_key"],
            dialect=values["dialect"],
            actor=actor_of(request),
            request=request._request,
        )
        return Response(ProviderOutput(provider).data, status=201)
