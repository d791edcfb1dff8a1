"""Routes and what providers bill for them, over REST."""

from __future__ import annotations

from typing import Any

from django.db.models import QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response

from apps.ai_models.catalogue import add_price
from apps.ai_models.filters import RouteFilterSet
from apps.ai_models.models import Route
from apps.ai_models.price_serializers import (
    CostVersionInput,
    NewPriceVersionOutput,
    PriceVersionOutput,
    moment_of,
)
from apps.ai_models.prices import list_versions
from apps.ai_models.queries import list_routes
from apps.ai_models.removal import remove_route
from apps.ai_models.routes import change_route, create_route
from apps.ai_models.serializers import RouteDetailOutput, RouteInput
from apps.core.rest import actor_of, answer_deletion
from apps.users.permissions import AnalystsRead, ViewersRead


class RoutesView(generics.ListAPIView[Route]):
    """Routes."""

    queryset = Route.objects.none()
    serializer_class = RouteDetailOutput
    permission_classes = (ViewersRead,)
    filterset_class = RouteFilterSet

    def get_queryset(self) -> QuerySet[Route]:
        """Return all routes."""
        return list_routes()

    @extend_schema(operation_id="admin_routes_list", summary="List routes")
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return routes by model and priority; viewers do not see what they cost."""
        return super().get(request, *args, **kwargs)

    @extend_schema(
        request=RouteInput,
        responses={201: RouteDetailOutput},
        operation_id="admin_routes_create",
        summary="Add a route",
    )
    def post(self, request: Request) -> Response:
        """Add a way from a model to a provider, with what the provider bills for it."""
        given = RouteInput(data=request.data)
        given.is_valid(raise_exception=True)
        values = dict(given.validated_data)
        route = create_route(
            model=values.pop("model"),
            provider=values.pop("provider"),
            upstream_name=values.pop("upstream_name", ""),
            cost=values.pop("cost", None),
            values=values,
            actor=actor_of(request),
            request=request._request,
        )
        return Response(_shown(route, request), status=201)


class RouteView(generics.GenericAPIView[Route]):
    """One route."""

    queryset = Route.objects.all()
    serializer_class = RouteDetailOutput
    permission_classes = (ViewersRead,)
    lookup_url_kwarg = "route_id"
    filter_backends = ()

    @extend_schema(operation_id="admin_routes_retrieve", summary="Show a route")
    def get(self, request: Request, route_id: str) -> Response:
        """Return the route; viewers do not see what it costs."""
        return Response(_shown(self.get_object(), request))

    @extend_schema(
        request=RouteInput,
        responses=RouteDetailOutput,
        operation_id="admin_routes_replace",
        summary="Change a route",
    )
    def put(self, request: Request, route_id: str) -> Response:
        """Set the fields that are given; the others keep their values.

        A route that has been used keeps its model and provider (409 `route_in_use`). Costs that
        differ make a new version, which counts until the next one that is planned (see `costs/` of
        the route).
        """
        return self._change(request, is_partial=False)

    @extend_schema(
        request=RouteInput,
        responses=RouteDetailOutput,
        operation_id="admin_routes_update",
        summary="Change some fields of a route",
    )
    def patch(self, request: Request, route_id: str) -> Response:
        """Set the fields that are given, as PUT does, without requiring any."""
        return self._change(request, is_partial=True)

    @extend_schema(
        responses={204: None},
        operation_id="admin_routes_delete",
        summary="Delete or deactivate a route",
    )
    def delete(self, request: Request, route_id: str) -> Response:
        """Delete a route that no call and no cost names.

        Any other one is deactivated and answers 409 `archived_instead`.
        """
        is_deleted = remove_route(
            route=self.get_object(), actor=actor_of(request), request=request._request
        )
        return answer_deletion(is_deleted=is_deleted)

    def _change(self, request: Request, *, is_partial: bool) -> Response:
        route = self.get_object()
        given = RouteInput(data=request.data, partial=is_partial)
        given.is_valid(raise_exception=True)
        values = dict(given.validated_data)
        changed = change_route(
            route=route,
            cost=values.pop("cost", None),
            values=values,
            actor=actor_of(request),
            request=request._request,
        )
        return Response(_shown(changed, request))


class RouteCostsView(generics.GenericAPIView[Any]):
    """What a provider has billed, bills and will bill for a route."""

    queryset = Route.objects.all()
    serializer_class = PriceVersionOutput
    permission_classes = (AnalystsRead,)
    lookup_url_kwarg = "route_id"
    filter_backends = ()

    @extend_schema(
        responses=PriceVersionOutput(many=True),
        operation_id="admin_routes_costs_list",
        summary="List the costs of a route",
    )
    def get(self, request: Request, route_id: str) -> Response:
        """Return all versions, future ones among them, the latest to count first."""
        route = self.get_object()
        page: Any = self.paginate_queryset(list_versions(route=route))
        shown = PriceVersionOutput(page, many=True, context=moment_of(route=route))
        return self.get_paginated_response(shown.data)

    @extend_schema(
        request=CostVersionInput,
        responses={201: NewPriceVersionOutput},
        operation_id="admin_routes_costs_create",
        summary="Add a cost to a route",
    )
    def post(self, request: Request, route_id: str) -> Response:
        """Add a version that counts from `effective_at`, or from now on.

        Versions are never edited or withdrawn: a later one with the same `effective_at` takes the
        place of an earlier one. `upcoming` tells what was set before and takes its place later. A
        moment in the past is refused (400 `effective_in_past`).
        """
        route = self.get_object()
        given = CostVersionInput(data=request.data)
        given.is_valid(raise_exception=True)
        version = add_price(
            route=route,
            change=given.validated_data["price"],
            effective_at=given.validated_data.get("effective_at"),
            actor=actor_of(request),
            request=request._request,
        )
        shown = NewPriceVersionOutput(version, context=moment_of(route=route))
        return Response(shown.data, status=201)


def _shown(route: Route, request: Request) -> Any:
    row = list_routes().get(pk=route.pk)
    return RouteDetailOutput(row, context={"request": request}).data
