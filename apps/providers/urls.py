"""Paths: keys of providers, presets. Those of providers themselves are in `ai_models`."""

from __future__ import annotations

from apps.core.routes import rest_path
from apps.providers.api import (
    EnableKeyView,
    ProviderKeysView,
    ProviderKeyView,
    ProviderPresetsView,
)

urlpatterns = [
    rest_path("admin/providers/{id:provider_id}/keys", ProviderKeysView),
    rest_path("admin/providers/{id:provider_id}/keys/{id:key_id}", ProviderKeyView),
    rest_path("admin/providers/{id:provider_id}/keys/{id:key_id}/enable", EnableKeyView),
    rest_path("admin/provider-presets", ProviderPresetsView),
]
