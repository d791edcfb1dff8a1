"""Models, routes and prices in the Django admin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django import forms
from django.contrib import admin
from django.db import models
from django.http import HttpRequest
from django.utils import timezone

from apps.ai_models.catalogue import set_price
from apps.ai_models.models import AIModel, PriceVersion, Route
from apps.audit.admin_pages import RecordedAdmin, SelfRecordedAdmin, adopt, staff_of, usd
from apps.audit.models import APIRequest
from apps.core.usage import TOKEN_CLASSES

if TYPE_CHECKING:
    _ModelForm = forms.ModelForm[PriceVersion]
else:
    # Generic only in the type stubs.
    _ModelForm = forms.ModelForm


@admin.register(AIModel)
class AIModelAdmin(RecordedAdmin):
    """Models."""

    noun = "model"
    list_display = (
        "name",
        "display_name",
        "context_length",
        "max_output_tokens",
        "position",
        "is_active",
        "created_at",
    )
    list_filter = ("is_active", "created_at")
    search_fields = ("name", "display_name")
    readonly_fields = ("created_at", "updated_at")
    ordering = ("position", "name")

    def find_history(self, row: AIModel) -> str:
        """Return why the model must stay."""
        has_history = row.price_versions.exists() or row.routes.exists()
        return "has prices or routes and cannot be deleted. Deactivate it." if has_history else ""


@admin.register(Route)
class RouteAdmin(RecordedAdmin):
    """Routes."""

    noun = "route"
    list_display = ("model", "provider", "upstream_name", "priority", "weight", "is_active")
    list_display_links = ("model", "upstream_name")
    list_select_related = ("model", "provider")
    list_filter = ("is_active", "provider")
    search_fields = ("model__name", "provider__name", "upstream_name")
    autocomplete_fields = ("model", "provider")
    readonly_fields = ("created_at",)
    ordering = ("model__name", "priority", "id")

    def find_history(self, row: Route) -> str:
        """Return why the route must stay."""
        # Calls are indexed by time: only those since the route was made are looked through.
        calls = APIRequest.objects.filter(started_at__gte=row.created_at, route_id=row.pk)
        has_history = row.cost_versions.exists() or calls.exists()
        return "has been used and cannot be deleted. Deactivate it." if has_history else ""


class PriceForm(_ModelForm):
    """A price of a model or of a route."""

    class Meta:
        model = PriceVersion
        fields = ("model", "route", "effective_at", *(f"{name}_nanos" for name in TOKEN_CLASSES))

    def clean(self) -> dict[str, Any]:
        """Require exactly one owner."""
        values = super().clean() or {}
        if (values.get("model") is None) == (values.get("route") is None):
            raise forms.ValidationError("Choose a model (what clients pay) or a route (our cost).")
        return values


@admin.register(PriceVersion)
class PriceVersionAdmin(SelfRecordedAdmin):
    """Prices. A version is never edited; a new price is a new version."""

    noun = "price"
    form = PriceForm
    fields = (
        "model",
        "route",
        "effective_at",
        *(f"{name}_nanos" for name in TOKEN_CLASSES),
        "request_nanos",
    )
    list_display = (
        "owner",
        "effective_at",
        usd("input_nanos"),
        usd("cache_read_nanos"),
        usd("output_nanos"),
        usd("request_nanos"),
        "created_at",
    )
    list_display_links = ("owner", "effective_at")
    list_select_related = ("model", "route__model", "route__provider")
    list_filter = ("effective_at",)
    search_fields = ("model__name", "route__model__name", "route__provider__name")
    autocomplete_fields = ("model", "route")
    ordering = ("-effective_at", "-id")

    @admin.display(description="model or route")
    def owner(self, row: PriceVersion) -> str:
        """Show whose price it is."""
        return str(row.model or row.route)

    def get_changeform_initial_data(self, request: HttpRequest) -> dict[str, Any]:
        """Offer a price that counts from now on."""
        return {"effective_at": timezone.now(), **super().get_changeform_initial_data(request)}

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[PriceVersion]:
        """Return the rows with what their names are made of."""
        rows: models.QuerySet[PriceVersion] = super().get_queryset(request)
        return rows.select_related("model", "route__model", "route__provider")

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: a price explains charges for ever."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: a price explains charges for ever."""
        return False

    def write(self, request: HttpRequest, obj: Any, form: Any, change: bool) -> None:
        """Add the version."""
        made = set_price(
            model=obj.model,
            route=obj.route,
            prices=obj.prices(),
            request_nanos=obj.request_nanos,
            effective_at=obj.effective_at,
            actor=staff_of(request),
            request=request,
        )
        adopt(obj, made)
