"""Rollups in the Django admin: to be looked at."""

from __future__ import annotations

from django.contrib import admin

from apps.analytics.models import RolledUp, Rollup
from apps.audit.admin_pages import ReadOnlyAdmin, usd


@admin.register(Rollup)
class RollupAdmin(ReadOnlyAdmin):
    """What calls come to by day."""

    list_display = (
        "started_on",
        "settled_on",
        "user_name",
        "requested_model",
        "provider_name",
        "requests",
        usd("charge_nanos"),
    )
    list_filter = ("started_on",)
    search_fields = ("=user_id", "=model_id")
    ordering = ("-started_on", "-id")


@admin.register(RolledUp)
class RolledUpAdmin(ReadOnlyAdmin):
    """How far the rollups go."""

    list_display = ("incarnation_id", "sequence")
    ordering = ("-incarnation_id",)
