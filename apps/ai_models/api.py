"""Models over REST, for administrators."""

from __future__ import annotations

from typing import Any

from django.db.models import OuterRef, Prefetch, QuerySet, Subquery
from django.utils import timezone
from drf_spectacular.utils import extend_schema
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response

from apps.ai_models.catalogue import put_model
from apps.ai_models.models import AIModel, PriceVersion
from apps.ai_models.serializers import REQUEST_PRICE, ModelInput, ModelOutput
from apps.core.rest import actor_of


def list_models_with_prices() -> QuerySet[AIModel]:
    """Return models with `routes` and, as `current_prices`, the price version that counts now."""
    newest = PriceVersion.objects.filter(
        model=OuterRef("model"), effective_at__lte=timezone.now()
    ).order_by("-effective_at", "-id")
    return AIModel.objects.prefetch_related(
        "routes",
        Prefetch(
            "price_versions",
            queryset=PriceVersion.objects.filter(id=Subquery(newest.values("id")[:1])),
            to_attr="current_prices",
        ),
    ).order_by("position", "name")


class ModelsView(generics.ListAPIView[AIModel]):
    """List models, add one, give a known one a new price."""

    queryset = AIModel.objects.none()
    serializer_class = ModelOutput
    filterset_fields = ("name", "is_active")

    def get_queryset(self) -> QuerySet[AIModel]:
        """Return all models."""
        return list_models_with_prices()

    @extend_schema(
        request=ModelInput,
        responses={201: ModelOutput, 200: ModelOutput},
        operation_id="admin_models_create",
    )
    def post(self, request: Request) -> Response:
        """Add a model, or change the one of this name; prices make a new price version."""
        given = ModelInput(data=request.data)
        given.is_valid(raise_exception=True)
        values: dict[str, Any] = dict(given.validated_data)
        prices = dict(values.pop("prices", {}))
        model, is_new = put_model(
            name=values.pop("name"),
            provider=values.pop("provider", None),
            upstream_name=values.pop("upstream_name", ""),
            request_nanos=prices.pop(REQUEST_PRICE, 0),
            prices=prices,
            values=values,
            actor=actor_of(request),
            request=request._request,
        )
        shown = list_models_with_prices().get(pk=model.pk)
        return Response(ModelOutput(shown).data, status=201 if is_new else 200)
