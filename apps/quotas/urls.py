"""Paths: quotas, API keys, and what one may call."""

from __future__ import annotations

from apps.core.routes import rest_path
from apps.quotas.api import (
    BulkChangeView,
    BulkQuotasView,
    OffersView,
    OwnQuotasView,
    QuotasView,
    QuotaView,
)
from apps.quotas.key_api import (
    KeysView,
    KeyView,
    OwnKeysView,
    OwnKeyView,
    RefreshKeyView,
    UserKeysView,
)

urlpatterns = [
    rest_path("admin/quotas", QuotasView),
    rest_path("admin/quotas/bulk", BulkQuotasView),
    rest_path("admin/quotas/bulk-change", BulkChangeView),
    rest_path("admin/quotas/{id:quota_id}", QuotaView),
    rest_path("admin/keys", KeysView),
    rest_path("admin/keys/{id:key_id}", KeyView),
    rest_path("admin/users/{id:user_id}/keys", UserKeysView),
    rest_path("user/quotas", OwnQuotasView),
    rest_path("user/models", OffersView),
    rest_path("user/keys", OwnKeysView),
    rest_path("user/keys/{id:key_id}", OwnKeyView),
    rest_path("auth/refresh-key", RefreshKeyView),
]
