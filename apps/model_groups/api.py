"""Model groups over REST."""

from __future__ import annotations

from typing import Any

from django.db.models import Prefetch, QuerySet
from drf_spectacular.utils import extend_schema
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response

from apps.ai_models.models import AIModel
from apps.core.rest import actor_of, answer_deletion
from apps.model_groups.filters import ModelGroupFilterSet
from apps.model_groups.groups import change_group, create_group, remove_group
from apps.model_groups.models import ModelGroup
from apps.model_groups.serializers import ModelGroupInput, ModelGroupOutput
from apps.users.models import UserGroup
from apps.users.permissions import ViewersRead


def list_groups() -> QuerySet[ModelGroup]:
    """Return groups with the ids of their models and user groups."""
    return ModelGroup.objects.prefetch_related(
        Prefetch("models", queryset=AIModel.objects.only("id")),
        Prefetch("user_groups", queryset=UserGroup.objects.only("id")),
    ).order_by("name")


class ModelGroupsView(generics.ListAPIView[ModelGroup]):
    """Model groups."""

    queryset = ModelGroup.objects.none()
    serializer_class = ModelGroupOutput
    permission_classes = (ViewersRead,)
    filterset_class = ModelGroupFilterSet

    def get_queryset(self) -> QuerySet[ModelGroup]:
        """Return all groups."""
        return list_groups()

    @extend_schema(operation_id="admin_model_groups_list", summary="List model groups")
    def get(self, request: Request, *args: Any, **kwargs: Any) -> Response:
        """Return groups with the ids of their models and user groups."""
        return super().get(request, *args, **kwargs)

    @extend_schema(
        request=ModelGroupInput,
        responses={201: ModelGroupOutput},
        operation_id="admin_model_groups_create",
        summary="Add a model group",
    )
    def post(self, request: Request) -> Response:
        """Add a group of models and the user groups that may call them."""
        given = ModelGroupInput(data=request.data)
        given.is_valid(raise_exception=True)
        group = create_group(
            **given.validated_data, actor=actor_of(request), request=request._request
        )
        return Response(_shown(group), status=201)


class ModelGroupView(generics.GenericAPIView[ModelGroup]):
    """One model group."""

    queryset = ModelGroup.objects.all()
    serializer_class = ModelGroupOutput
    permission_classes = (ViewersRead,)
    lookup_url_kwarg = "model_group_id"
    filter_backends = ()

    @extend_schema(operation_id="admin_model_groups_retrieve", summary="Show a model group")
    def get(self, request: Request, model_group_id: str) -> Response:
        """Return the group with the ids of its models and user groups."""
        return Response(_shown(self.get_object()))

    @extend_schema(
        request=ModelGroupInput,
        responses=ModelGroupOutput,
        operation_id="admin_model_groups_replace",
        summary="Change a model group",
    )
    def put(self, request: Request, model_group_id: str) -> Response:
        """Set the fields that are given; `models` and `user_groups` replace the whole list."""
        return self._change(request, is_partial=False)

    @extend_schema(
        request=ModelGroupInput,
        responses=ModelGroupOutput,
        operation_id="admin_model_groups_update",
        summary="Change some fields of a model group",
    )
    def patch(self, request: Request, model_group_id: str) -> Response:
        """Set the fields that are given, as PUT does, without requiring the name."""
        return self._change(request, is_partial=True)

    @extend_schema(
        responses={204: None},
        operation_id="admin_model_groups_delete",
        summary="Delete or deactivate a model group",
    )
    def delete(self, request: Request, model_group_id: str) -> Response:
        """Delete a group without quotas.

        One with quotas is deactivated and answers 409 `archived_instead`.
        """
        is_deleted = remove_group(
            group=self.get_object(), actor=actor_of(request), request=request._request
        )
        return answer_deletion(is_deleted=is_deleted)

    def _change(self, request: Request, *, is_partial: bool) -> Response:
        group = self.get_object()
        given = ModelGroupInput(group, data=request.data, partial=is_partial)
        given.is_valid(raise_exception=True)
        values = dict(given.validated_data)
        changed = change_group(
            group=group,
            models=values.pop("models", None),
            user_groups=values.pop("user_groups", None),
            values=values,
            actor=actor_of(request),
            request=request._request,
        )
        return Response(_shown(changed))


def _shown(group: ModelGroup) -> Any:
    return ModelGroupOutput(list_groups().get(pk=group.pk)).data
