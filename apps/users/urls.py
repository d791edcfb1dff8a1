"""Paths: signing in and one's own profile."""

from __future__ import annotations

from apps.core.routes import rest_path
from apps.users.api import LoginView, LogoutView, RefreshView

urlpatterns = [
    rest_path("auth/login", LoginView),
    rest_path("auth/refresh", RefreshView),
    rest_path("auth/logout", LogoutView),
]
