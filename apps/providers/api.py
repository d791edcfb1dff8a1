"""Keys of providers and presets over REST, for administrators.

The providers themselves are in `ai_models/providers_api.py`: viewers and analysts read them too.
"""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from django.shortcuts import get_object_or_404
from drf_spectacular.utils import extend_schema
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response
from rest_framework.views import APIView

from apps.core.rest import actor_of, answer_deletion
from apps.providers.credentials import SecretMalformed, add_key, change_key, delete_key
from apps.providers.health import enable_key
from apps.providers.models import Provider, ProviderKey
from apps.providers.presets import list_presets
from apps.providers.serializers import (
    PresetOutput,
    ProviderKeyChange,
    ProviderKeyInput,
    ProviderKeyOutput,
    refused_secret,
)


class _KeysOfProvider(generics.GenericAPIView[ProviderKey]):
    """What concerns the keys of one provider."""

    queryset = ProviderKey.objects.none()
    serializer_class = ProviderKeyOutput
    lookup_url_kwarg = "key_id"

    def get_queryset(self) -> QuerySet[ProviderKey]:
        """Return the keys of the provider in the path."""
        # The schema is made without a path.
        provider_id = self.kwargs.get("provider_id")
        return ProviderKey.objects.filter(provider_id=provider_id).order_by("id")


class ProviderKeysView(_KeysOfProvider, generics.ListAPIView[ProviderKey]):
    """The keys of a provider."""

    filter_backends = ()

    @extend_schema(operation_id="admin_provider_keys_list", summary="List a provider's keys")
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """List the keys of a provider, oldest first. Secrets are never shown."""
        get_object_or_404(Provider, pk=kwargs["provider_id"])
        return super().get(request, *args, **kwargs)

    @extend_schema(
        operation_id="admin_provider_keys_create",
        summary="Add a key",
        request=ProviderKeyInput,
        responses={201: ProviderKeyOutput},
    )
    def post(self, request: Request, provider_id: str) -> Response:
        """Add a key; calls go to the active keys of a provider by their weights."""
        provider = get_object_or_404(Provider, pk=provider_id)
        given = ProviderKeyInput(data=request.data)
        given.is_valid(raise_exception=True)
        values = dict(given.validated_data)
        try:
            key = add_key(
                provider=provider,
                secret=values.pop("api_key"),
                actor=actor_of(request),
                request=request._request,
                **values,
            )
        except SecretMalformed as error:
            raise refused_secret(error) from error
        return Response(ProviderKeyOutput(key).data, status=201)


class ProviderKeyView(_KeysOfProvider):
    """One key of a provider."""

    filter_backends = ()

    @extend_schema(operation_id="admin_provider_keys_retrieve", summary="Show a key")
    def get(self, request: Request, provider_id: str, key_id: str) -> Response:
        """Return the key without its secret."""
        return Response(ProviderKeyOutput(self.get_object()).data)

    @extend_schema(
        operation_id="admin_provider_keys_replace",
        summary="Replace a key's settings",
        request=ProviderKeyChange,
        responses=ProviderKeyOutput,
    )
    def put(self, request: Request, provider_id: str, key_id: str) -> Response:
        """Set name, weight, limits, state or secret; what is left out keeps its value."""
        return self._change(request)

    @extend_schema(
        operation_id="admin_provider_keys_update",
        summary="Change a key",
        request=ProviderKeyChange,
        responses=ProviderKeyOutput,
    )
    def patch(self, request: Request, provider_id: str, key_id: str) -> Response:
        """Set name, weight, limits, state or secret.

        A key that was left behind when its provider moved is active again only with its secret.
        """
        return self._change(request)

    @extend_schema(
        operation_id="admin_provider_keys_delete",
        summary="Delete a key",
        request=None,
        responses={204: None},
    )
    def delete(self, request: Request, provider_id: str, key_id: str) -> Response:
        """Delete a key that was never used; one that was is deactivated and 409 says so."""
        is_deleted = delete_key(
            key=self.get_object(), actor=actor_of(request), request=request._request
        )
        return answer_deletion(is_deleted=is_deleted)

    def _change(self, request: Request) -> Response:
        key = self.get_object()
        given = ProviderKeyChange(data=request.data)
        given.is_valid(raise_exception=True)
        values = dict(given.validated_data)
        try:
            changed = change_key(
                key=key,
                secret=values.pop("api_key", ""),
                values=values,
                actor=actor_of(request),
                request=request._request,
            )
        except SecretMalformed as error:
            raise refused_secret(error) from error
        return Response(ProviderKeyOutput(changed).data)


class EnableKeyView(_KeysOfProvider):
    """Use a key again that was disabled automatically."""

    filter_backends = ()

    @extend_schema(
        operation_id="admin_provider_keys_enable",
        summary="Enable a key again",
        request=None,
        responses=ProviderKeyOutput,
    )
    def post(self, request: Request, provider_id: str, key_id: str) -> Response:
        """Use a key again that was disabled automatically; 409 `not_disabled` where it was not.

        Gateways use it within a second, and disable it again if the provider still refuses it.
        """
        key = enable_key(key=self.get_object(), actor=actor_of(request), request=request._request)
        return Response(ProviderKeyOutput(key).data)


class ProviderPresetsView(APIView):
    """Known providers."""

    @extend_schema(
        operation_id="admin_provider_presets_list",
        summary="List known providers",
        responses=PresetOutput(many=True),
    )
    def get(self, request: Request) -> Response:
        """Return providers that are known to work, to fill a form with. All at once, no pages."""
        return Response(PresetOutput(list_presets(), many=True).data)
