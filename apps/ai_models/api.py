"""Models, their prices and their routes over REST."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response

from apps.ai_models.catalogue import add_price, change_model, put_model
from apps.ai_models.filters import ModelFilterSet
from apps.ai_models.models import AIModel
from apps.ai_models.price_serializers import (
    NewPriceVersionOutput,
    PriceVersionInput,
    PriceVersionOutput,
    moment_of,
)
from apps.ai_models.prices import list_versions
from apps.ai_models.queries import list_models
from apps.ai_models.removal import remove_model
from apps.ai_models.serializers import ModelInput, ModelOutput
from apps.core.rest import actor_of, answer_deletion
from apps.users.permissions import ViewersRead


class ModelsView(generics.ListAPIView[AIModel]):
    """Models."""

    queryset = AIModel.objects.none()
    serializer_class = ModelOutput
    permission_classes = (ViewersRead,)
    filterset_class = ModelFilterSet

    def get_queryset(self) -> QuerySet[AIModel]:
        """Return all models."""
        return list_models()

    @extend_schema(operation_id="admin_models_list", summary="List models")
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return models with their routes, groups and the prices that count now."""
        return super().get(request, *args, **kwargs)

    @extend_schema(
        request=ModelInput,
        responses={201: ModelOutput, 200: ModelOutput},
        operation_id="admin_models_create",
        summary="Add a model, or change the one of this name",
    )
    def post(self, request: Request) -> Response:
        """Add a model with its route and price; a known name changes that model and answers 200.

        `prices` is the whole price: classes left out are unpriced. A price per thousand tokens
        without `prices` changes its class only. A price that differs makes a new version.
        """
        given = ModelInput(data=request.data)
        given.is_valid(raise_exception=True)
        values = dict(given.validated_data)
        model, is_new = put_model(
            name=values.pop("name"),
            **_offer_of(values),
            values=values,
            actor=actor_of(request),
            request=request._request,
        )
        return Response(_shown(model), status=201 if is_new else 200)


class ModelView(generics.GenericAPIView[AIModel]):
    """One model."""

    queryset = AIModel.objects.all()
    serializer_class = ModelOutput
    permission_classes = (ViewersRead,)
    lookup_url_kwarg = "model_id"
    filter_backends = ()

    @extend_schema(operation_id="admin_models_retrieve", summary="Show a model")
    def get(self, request: Request, model_id: str) -> Response:
        """Return the model with its routes, groups and the prices that count now."""
        return Response(_shown(self.get_object()))

    @extend_schema(
        request=ModelInput,
        responses=ModelOutput,
        operation_id="admin_models_replace",
        summary="Change a model",
    )
    def put(self, request: Request, model_id: str) -> Response:
        """Set the fields that are given; the others keep their values.

        `prices` is the whole price: classes left out are unpriced. A price per thousand tokens
        without `prices` changes its class only. A price that differs makes a new version, which
        counts until the next one that is planned (see `prices/` of the model). The name of a model
        that has been called stays (409).
        """
        return self._change(request, is_partial=False)

    @extend_schema(
        request=ModelInput,
        responses=ModelOutput,
        operation_id="admin_models_update",
        summary="Change some fields of a model",
    )
    def patch(self, request: Request, model_id: str) -> Response:
        """Set the fields that are given, as PUT does, without requiring the name."""
        return self._change(request, is_partial=True)

    @extend_schema(
        responses={204: None},
        operation_id="admin_models_delete",
        summary="Delete or deactivate a model",
    )
    def delete(self, request: Request, model_id: str) -> Response:
        """Delete a model that was never priced or called, with its routes.

        Any other one is deactivated and answers 409 `archived_instead`.
        """
        is_deleted = remove_model(
            model=self.get_object(), actor=actor_of(request), request=request._request
        )
        return answer_deletion(is_deleted=is_deleted)

    def _change(self, request: Request, *, is_partial: bool) -> Response:
        model = self.get_object()
        given = ModelInput(data=request.data, partial=is_partial)
        given.is_valid(raise_exception=True)
        values = dict(given.validated_data)
        changed = change_model(
            model=model,
            **_offer_of(values),
            values=values,
            actor=actor_of(request),
            request=request._request,
        )
        return Response(_shown(changed))


class ModelPricesView(generics.GenericAPIView[Any]):
    """The price versions of a model."""

    queryset = AIModel.objects.all()
    serializer_class = PriceVersionOutput
    permission_classes = (ViewersRead,)
    lookup_url_kwarg = "model_id"
    filter_backends = ()

    @extend_schema(
        responses=PriceVersionOutput(many=True),
        operation_id="admin_models_prices_list",
        summary="List the prices of a model",
    )
    def get(self, request: Request, model_id: str) -> Response:
        """Return all versions, future ones among them, the latest to count first."""
        model = self.get_object()
        page: Any = self.paginate_queryset(list_versions(model=model))
        shown = PriceVersionOutput(page, many=True, context=moment_of(model=model))
        return self.get_paginated_response(shown.data)

    @extend_schema(
        request=PriceVersionInput,
        responses={201: NewPriceVersionOutput},
        operation_id="admin_models_prices_create",
        summary="Add a price to a model",
    )
    def post(self, request: Request, model_id: str) -> Response:
        """Add a version that counts from `effective_at`, or from now on.

        Versions are never edited or withdrawn: a later one with the same `effective_at` takes the
        place of an earlier one. `upcoming` tells what was set before and takes its place later. A
        moment in the past is refused (400 `effective_in_past`), and so is a price per thousand
        alone for a later one (400 `whole_price_needed`).
        """
        model = self.get_object()
        given = PriceVersionInput(data=request.data)
        given.is_valid(raise_exception=True)
        version = add_price(
            model=model,
            change=given.validated_data["price"],
            effective_at=given.validated_data.get("effective_at"),
            actor=actor_of(request),
            request=request._request,
        )
        shown = NewPriceVersionOutput(version, context=moment_of(model=model))
        return Response(shown.data, status=201)


def _offer_of(values: dict[str, Any]) -> dict[str, Any]:
    """Take what is not a column of the model out of the values."""
    return {
        "provider": values.pop("provider", None),
        "upstream_name": values.pop("upstream_name", ""),
        "price": values.pop("price", None),
    }


def _shown(model: AIModel) -> Any:
    return ModelOutput(list_models().get(pk=model.pk)).data
