"""What gateways tell each other through the database, in the Django admin, to be looked at."""

from __future__ import annotations

from django.contrib import admin

from apps.audit.admin_pages import ReadOnlyAdmin
from apps.proxy.models import CircuitRest, ConfigurationChange, ConfigurationVersion


@admin.register(ConfigurationVersion)
class ConfigurationVersionAdmin(ReadOnlyAdmin):
    """The version that every gateway polls."""

    list_display = ("id", "version")
    search_fields = ("=version",)


@admin.register(ConfigurationChange)
class ConfigurationChangeAdmin(ReadOnlyAdmin):
    """What changed at which version."""

    list_display = ("version", "table_name", "row_key")
    list_filter = ("table_name",)
    search_fields = ("=version", "=table_name", "=row_key")
    ordering = ("-version", "-id")


@admin.register(CircuitRest)
class CircuitRestAdmin(ReadOnlyAdmin):
    """Routes, and keys on routes, that gateways pass over or passed over within the last hour."""

    list_display = (
        *("route_id", "provider_id", "provider_key_id", "reason", "openings"),
        *("began_at", "ends_at", "next_check_at", "failed_checks"),
    )
    list_filter = ("reason",)
    search_fields = ("=route_id", "=provider_id", "=provider_key_id")
    ordering = ("-ends_at", "-id")
