"""Synchronising and testing providers over REST, for administrators."""

from __future__ import annotations

from typing import cast

from drf_spectacular.utils import extend_schema
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response

from apps.ai_models.sync import add_models, compare_models, try_provider
from apps.ai_models.sync_serializers import SyncInput, SyncOutput, TrialInput, TrialOutput
from apps.core.rest import actor_of
from apps.providers.models import Provider
from apps.users.models import User


class SyncModelsView(generics.GenericAPIView[Provider]):
    """Compare what a provider offers with what is offered here."""

    queryset = Provider.objects.all()
    serializer_class = SyncInput
    lookup_url_kwarg = "provider_id"
    filter_backends = ()

    @extend_schema(
        operation_id="admin_providers_sync_models",
        summary="Synchronise models",
        request=SyncInput,
        responses=SyncOutput,
    )
    def post(self, request: Request, provider_id: str) -> Response:
        """Ask the provider for its models and answer the difference.

        With `apply: true` the chosen `models` get routes, and models where none has the name; what
        exists is never changed. A new model is active but has no price: it cannot be called until
        it is priced. All or nothing: one name that the provider does not offer refuses the choice.
        A provider that gives no list answers 409 `provider_failed` with the class of failure.
        """
        provider = self.get_object()
        given = SyncInput(data=request.data)
        given.is_valid(raise_exception=True)
        actor = cast(User, actor_of(request))
        if given.validated_data["apply"]:
            comparison = add_models(
                provider=provider,
                choices=given.validated_data["models"],
                actor=actor,
                request=request._request,
            )
        else:
            comparison = compare_models(provider=provider, actor=actor, request=request._request)
        return Response(SyncOutput(comparison).data)


class TryProviderView(generics.GenericAPIView[Provider]):
    """Find out whether a provider answers."""

    queryset = Provider.objects.all()
    serializer_class = TrialInput
    lookup_url_kwarg = "provider_id"
    filter_backends = ()

    @extend_schema(
        operation_id="admin_providers_test",
        summary="Test a provider",
        request=TrialInput,
        responses=TrialOutput,
    )
    def post(self, request: Request, provider_id: str) -> Response:
        """Ask the provider for its models with its first active key.

        With `model`, that model is asked for one token instead, which the provider may bill. At
        most 30 times a minute. A failure is told by its class only.
        """
        provider = self.get_object()
        given = TrialInput(data=request.data)
        given.is_valid(raise_exception=True)
        trial = try_provider(
            provider=provider,
            upstream_name=given.validated_data.get("model", ""),
            actor=cast(User, actor_of(request)),
            request=request._request,
        )
        return Response(TrialOutput(trial).data)
