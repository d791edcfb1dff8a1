"""Providers over REST: administrators write, viewers and analysts read without the address.

Here and not in `providers`, since who may read goes by roles, and people lie beside providers.
"""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema
from rest_framework import generics
from rest_framework.exceptions import ValidationError
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.rest import StrictSerializer, actor_of, answer_deletion
from apps.providers.credentials import SecretMalformed
from apps.providers.filters import ProviderFilterSet
from apps.providers.models import Dialect, Provider
from apps.providers.registration import (
    BaseUrlRefused,
    change_provider,
    create_provider,
    delete_provider,
)
from apps.providers.serializers import (
    ProviderChange,
    ProviderInput,
    ProviderOutput,
    ProviderReplacement,
    refused_secret,
)
from apps.users.permissions import ViewersRead


class ProvidersView(generics.ListAPIView[Provider]):
    """List providers, add one."""

    queryset = Provider.objects.prefetch_related("keys").order_by("name")
    serializer_class = ProviderOutput
    permission_classes = (ViewersRead,)
    filterset_class = ProviderFilterSet

    @extend_schema(operation_id="admin_providers_list", summary="List providers")
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List providers by name. Viewers and analysts get null for address and keys."""
        return super().get(request, *args, **kwargs)

    @extend_schema(
        operation_id="admin_providers_create",
        summary="Add a provider",
        request=ProviderInput,
        responses={201: ProviderOutput},
    )
    def post(self, request: Request) -> Response:
        """Add a provider with its first key; `preset` fills in what is known of it."""
        given = ProviderInput(data=request.data)
        given.is_valid(raise_exception=True)
        values = dict(given.validated_data)
        try:
            provider = create_provider(
                name=values.pop("name"),
                base_url=values.pop("base_url"),
                secret=values.pop("api_key"),
                dialect=values.pop("dialect", Dialect.OPENAI),
                values=values,
                actor=actor_of(request),
                request=request._request,
            )
        except BaseUrlRefused as error:
            raise _refused(error) from error
        except SecretMalformed as error:
            raise refused_secret(error) from error
        return _shown(provider, request, status=201)


class ProviderView(generics.GenericAPIView[Provider]):
    """One provider."""

    queryset = Provider.objects.prefetch_related("keys")
    serializer_class = ProviderOutput
    permission_classes = (ViewersRead,)
    lookup_url_kwarg = "provider_id"
    filter_backends = ()

    @extend_schema(operation_id="admin_providers_retrieve", summary="Show a provider")
    def get(self, request: Request, provider_id: str) -> Response:
        """Return the provider. Viewers and analysts get null for address and keys."""
        return _shown(self.get_object(), request)

    @extend_schema(
        operation_id="admin_providers_replace",
        summary="Replace a provider",
        request=ProviderReplacement,
        responses=ProviderOutput,
    )
    def put(self, request: Request, provider_id: str) -> Response:
        """Set a provider; what is left out keeps its value.

        Another `base_url` needs `api_key` in the same call, else 400 `key_required`, and so does a
        `key_header` by which requests are signed in another way. The keys there were are
        deactivated: each was typed for the old address or use.
        """
        return self._change(request, ProviderReplacement)

    @extend_schema(
        operation_id="admin_providers_update",
        summary="Change a provider",
        request=ProviderChange,
        responses=ProviderOutput,
    )
    def patch(self, request: Request, provider_id: str) -> Response:
        """Change some values of a provider.

        Another `base_url` needs `api_key` in the same call, else 400 `key_required`, and so does a
        `key_header` by which requests are signed in another way. The keys there were are
        deactivated: each was typed for the old address or use.
        """
        return self._change(request, ProviderChange)

    @extend_schema(
        operation_id="admin_providers_delete",
        summary="Delete a provider",
        request=None,
        responses={204: None},
    )
    def delete(self, request: Request, provider_id: str) -> Response:
        """Delete a provider; one with routes or calls is deactivated and 409 says so."""
        is_deleted = delete_provider(
            provider=self.get_object(), actor=actor_of(request), request=request._request
        )
        return answer_deletion(is_deleted=is_deleted)

    def _change(self, request: Request, serializer: type[StrictSerializer]) -> Response:
        provider = self.get_object()
        given = serializer(provider, data=request.data)
        given.is_valid(raise_exception=True)
        values = dict(given.validated_data)
        try:
            changed = change_provider(
                provider=provider,
                secret=values.pop("api_key", ""),
                values=values,
                actor=actor_of(request),
                request=request._request,
            )
        except BaseUrlRefused as error:
            raise _refused(error) from error
        except SecretMalformed as error:
            raise refused_secret(error) from error
        return _shown(changed, request)


def _refused(error: BaseUrlRefused) -> ValidationError:
    return ValidationError({"base_url": [str(error)]}, code=error.code)


def _shown(provider: Provider, request: Request, *, status: int = 200) -> Response:
    return Response(ProviderOutput(provider, context={"request": request}).data, status=status)
