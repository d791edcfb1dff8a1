"""Paths: models, routes and prices."""

from __future__ import annotations

from apps.ai_models.api import ModelPricesView, ModelsView, ModelView
from apps.ai_models.known_models_api import ImportKnownModelsView, KnownModelsView
from apps.ai_models.providers_api import ProvidersView, ProviderView
from apps.ai_models.route_api import RouteCostsView, RoutesView, RouteView
from apps.ai_models.sync_api import SyncModelsView, TryProviderView
from apps.core.routes import rest_path

urlpatterns = [
    rest_path("admin/models", ModelsView),
    rest_path("admin/models/{id:model_id}", ModelView),
    rest_path("admin/models/{id:model_id}/prices", ModelPricesView),
    rest_path("admin/routes", RoutesView),
    rest_path("admin/routes/{id:route_id}", RouteView),
    rest_path("admin/routes/{id:route_id}/costs", RouteCostsView),
    rest_path("admin/known-models", KnownModelsView),
    rest_path("admin/known-models/import", ImportKnownModelsView),
    rest_path("admin/providers", ProvidersView),
    rest_path("admin/providers/{id:provider_id}", ProviderView),
    rest_path("admin/providers/{id:provider_id}/sync-models", SyncModelsView),
    rest_path("admin/providers/{id:provider_id}/test", TryProviderView),
]
