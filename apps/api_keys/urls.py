"""Paths: none here. API keys are served from `apps.quotas`, which knows prices and spending."""

from __future__ import annotations

from django.urls import URLPattern

urlpatterns: list[URLPattern] = []
