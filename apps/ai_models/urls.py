"""Paths: models, routes and prices."""

from __future__ import annotations

from apps.ai_models.api import ModelsView
from apps.core.routes import rest_path

urlpatterns = [
    rest_path("admin/models", ModelsView),
]
