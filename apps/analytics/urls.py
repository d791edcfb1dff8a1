"""Paths: statistics."""

from __future__ import annotations

from apps.analytics.api import (
    BillingStatsView,
    KeyStatsView,
    OverviewView,
    OwnKeyStatsView,
    OwnUsageView,
    ProviderStatsView,
    UserStatsView,
)
from apps.core.routes import rest_path

urlpatterns = [
    rest_path("admin/stats/overview", OverviewView),
    rest_path("admin/stats/users/{id:user_id}/requests", UserStatsView),
    rest_path("admin/stats/billing", BillingStatsView),
    rest_path("admin/providers/{id:provider_id}/stats", ProviderStatsView),
    rest_path("admin/keys/{id:key_id}/stats", KeyStatsView),
    rest_path("user/usage", OwnUsageView),
    rest_path("user/keys/{id:key_id}/stats", OwnKeyStatsView),
]
