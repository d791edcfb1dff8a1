"""The version of the configuration in the Django admin, to be looked at."""

from __future__ import annotations

from django.contrib import admin

from apps.audit.admin_pages import ReadOnlyAdmin
from apps.proxy.models import ConfigurationChange, ConfigurationVersion


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
