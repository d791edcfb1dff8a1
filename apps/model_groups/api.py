"""Model groups over REST, for administrators."""

from __future__ import annotations

from drf_spectacular.utils import extend_schema
from rest_framework import generics
from rest_framework.request import Request
from rest_framework.response import Response

from apps.core.rest import actor_of
from apps.model_groups.groups import create_group
from apps.model_groups.models import ModelGroup
from apps.model_groups.serializers import ModelGroupInput, ModelGroupOutput


class ModelGroupsView(generics.ListAPIView[ModelGroup]):
    """List model groups, add one."""

    queryset = ModelGroup.objects.prefetch_related("models").order_by("name")
    serializer_class = ModelGroupOutput
    filterset_fields = ("name", "is_public", "is_active")

    @extend_schema(
        request=ModelGroupInput,
        responses={201: ModelGroupOutput},
        operation_id="admin_model_groups_create",
    )
    def post(self, request: Request) -> Response:
        """Add a group."""
        given = ModelGroupInput(data=request.data)
        given.is_valid(raise_exception=True)
        group = create_group(
            **given.validated_data, actor=actor_of(request), request=request._request
        )
        return Response(ModelGroupOutput(group).data, status=201)
