"""Model groups in the Django admin."""

from __future__ import annotations

from django.contrib import admin
from django.db import models
from django.http import HttpRequest

from apps.audit.admin_pages import RecordedAdmin
from apps.model_groups.models import ModelGroup


@admin.register(ModelGroup)
class ModelGroupAdmin(RecordedAdmin):
    """Model groups."""

    noun = "model_group"
    list_display = ("name", "model_count", "multiplier", "is_public", "is_active", "created_at")
    list_filter = ("is_public", "is_active", "user_groups")
    search_fields = ("name", "description")
    filter_horizontal = ("models", "user_groups")
    readonly_fields = ("created_at",)
    ordering = ("name",)

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[ModelGroup]:
        """Return the groups with the number of their models."""
        rows: models.QuerySet[ModelGroup] = super().get_queryset(request)
        return rows.annotate(models_counted=models.Count("models", distinct=True))

    @admin.display(description="models", ordering="models_counted")
    def model_count(self, row: ModelGroup) -> int:
        """Show how many models are in it."""
        return int(getattr(row, "models_counted", 0))

    @admin.display(description="multiplier", ordering="multiplier_millionths")
    def multiplier(self, row: ModelGroup) -> str:
        """Show the multiplier as a number."""
        return f"{row.multiplier_millionths / 1_000_000:g}"

    def find_history(self, row: ModelGroup) -> str:
        """Return why the group must stay."""
        return "has quotas and cannot be deleted. Deactivate it." if row.quotas.exists() else ""
