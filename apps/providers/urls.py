"""Paths: providers."""

from __future__ import annotations

from apps.core.routes import rest_path
from apps.providers.api import ProvidersView

urlpatterns = [
    rest_path("admin/providers", ProvidersView),
]
