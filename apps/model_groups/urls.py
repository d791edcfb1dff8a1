"""Paths: model groups and user groups."""

from __future__ import annotations

from apps.core.routes import rest_path
from apps.model_groups.api import ModelGroupsView, ModelGroupView
from apps.model_groups.user_group_api import UserGroupsView, UserGroupView

urlpatterns = [
    rest_path("admin/model-groups", ModelGroupsView),
    rest_path("admin/model-groups/{id:model_group_id}", ModelGroupView),
    rest_path("admin/user-groups", UserGroupsView),
    rest_path("admin/user-groups/{id:user_group_id}", UserGroupView),
]
