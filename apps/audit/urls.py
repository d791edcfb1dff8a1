"""Paths: recorded calls and admin events."""

from __future__ import annotations

from apps.audit.api import RequestsView
from apps.core.routes import rest_path

urlpatterns = [
    rest_path("admin/requests", RequestsView),
]
