"""Paths: none. Who may read what happened is a matter of roles, which lie above this app."""

from __future__ import annotations

from django.urls import URLPattern

urlpatterns: list[URLPattern] = []
