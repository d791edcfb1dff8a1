"""Paths: model groups and user groups."""

from __future__ import annotations

from apps.core.routes import rest_path
from apps.model_groups.api import ModelGroupsView

urlpatterns = [
    rest_path("admin/model-groups", ModelGroupsView),
]
