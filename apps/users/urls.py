"""Paths: signing in, and where one is signed in."""

from __future__ import annotations

from apps.core.routes import rest_path
from apps.users.api import LoginView, LogoutView, RefreshView, SessionsView, SessionView

urlpatterns = [
    rest_path("auth/login", LoginView),
    rest_path("auth/refresh", RefreshView),
    rest_path("auth/logout", LogoutView),
    rest_path("auth/sessions", SessionsView),
    rest_path("auth/sessions/{uuid:session_id}", SessionView),
]
