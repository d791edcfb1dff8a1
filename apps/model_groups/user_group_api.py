"""User groups over REST: administrators write, analysts and viewers read."""

from __future__ import annotations

from typing import Any

import django_filters
from drf_spectacular.utils import extend_schema, extend_schema_view
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.filters import TEXT_LENGTH_MAX, SearchFilter, StableOrderingFilter, StrictFilterSet
from apps.core.rest import actor_of
from apps.model_groups.user_group_serializers import UserGroupInput, UserGroupOutput
from apps.model_groups.user_groups import (
    change_user_group,
    create_user_group,
    delete_user_group,
    list_user_groups,
)
from apps.users.models import UserGroup
from apps.users.permissions import ViewersRead


class UserGroupFilterSet(StrictFilterSet):
    """What user groups can be filtered by."""

    name = django_filters.CharFilter(max_length=TEXT_LENGTH_MAX)
    search = SearchFilter(columns=("name", "description"))
    ordering = StableOrderingFilter(fields=("id", "name", "created_at"))

    class Meta:
        model = UserGroup
        fields: list[str] = []


@extend_schema_view(
    get=extend_schema(operation_id="admin_user_groups_list", summary="List user groups")
)
class UserGroupsView(generics.ListAPIView[UserGroup]):
    """List user groups by name, add one."""

    permission_classes = (ViewersRead,)
    queryset = list_user_groups()
    serializer_class = UserGroupOutput
    filterset_class = UserGroupFilterSet

    @extend_schema(
        operation_id="admin_user_groups_create",
        summary="Add a user group",
        request=UserGroupInput,
        responses={201: UserGroupOutput},
    )
    def post(self, request: Request) -> Response:
        """Add a user group: a price multiplier, limits and model groups for its users."""
        given = UserGroupInput(data=request.data)
        given.is_valid(raise_exception=True)
        group = create_user_group(
            **given.validated_data, actor=actor_of(request), request=request._request
        )
        return Response(_show(group, request), status=201)


class UserGroupView(generics.GenericAPIView[UserGroup]):
    """One user group."""

    permission_classes = (ViewersRead,)
    queryset = list_user_groups()
    serializer_class = UserGroupOutput
    lookup_url_kwarg = "user_group_id"
    filter_backends = ()

    @extend_schema(operation_id="admin_user_groups_retrieve", summary="Show a user group")
    def get(self, request: Request, user_group_id: str) -> Response:
        """Return the user group."""
        return Response(UserGroupOutput(self.get_object(), context={"request": request}).data)

    @extend_schema(
        operation_id="admin_user_groups_replace",
        summary="Change a user group",
        request=UserGroupInput,
        responses=UserGroupOutput,
    )
    def put(self, request: Request, user_group_id: str) -> Response:
        """Change a user group; the name must be given, what else is left out stays."""
        return self._change(request, is_partial=False)

    @extend_schema(
        operation_id="admin_user_groups_update",
        summary="Change some of a user group",
        request=UserGroupInput,
        responses=UserGroupOutput,
    )
    def patch(self, request: Request, user_group_id: str) -> Response:
        """Change what is given of a user group. `model_groups` replaces all of them."""
        return self._change(request, is_partial=True)

    @extend_schema(
        operation_id="admin_user_groups_delete",
        summary="Delete a user group",
        request=None,
        responses={204: None},
    )
    def delete(self, request: Request, user_group_id: str) -> Response:
        """Delete a user group. One that still has users is 409 `in_use`."""
        delete_user_group(
            group=self.get_object(), actor=actor_of(request), request=request._request
        )
        return Response(status=204)

    def _change(self, request: Request, *, is_partial: bool) -> Response:
        group = self.get_object()
        given = UserGroupInput(group, data=request.data, partial=is_partial)
        given.is_valid(raise_exception=True)
        change_user_group(
            group=group,
            actor=actor_of(request),
            request=request._request,
            **given.validated_data,
        )
        return Response(_show(group, request))


def _show(group: UserGroup, request: Request) -> Any:
    fresh = generics.get_object_or_404(list_user_groups(), pk=group.pk)
    return UserGroupOutput(fresh, context={"request": request}).data
