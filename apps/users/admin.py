"""Customers and sessions in the Django admin.

Users are in `apps.billing.admin`: making one opens accounts. User groups are in
`apps.model_groups.admin`.
"""

from __future__ import annotations

from typing import Any

from django.contrib import admin
from django.contrib.auth.models import Group
from django.http import HttpRequest

from apps.audit.admin_pages import ReadOnlyAdmin, RecordedAdmin
from apps.users.models import Customer, Session

# Roles decide what people may do; a second system of permissions beside them would confuse.
admin.site.unregister(Group)


@admin.register(Customer)
class CustomerAdmin(RecordedAdmin):
    """Customers; they are made with their users."""

    noun = "customer"
    list_display = ("name", "created_at")
    list_filter = ("created_at",)
    search_fields = ("name",)
    readonly_fields = ("created_at",)
    ordering = ("id",)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Refuse: a customer without accounts could not pay."""
        return False

    def find_history(self, row: Customer) -> str:
        """Return why the customer must stay."""
        return "owns accounts and cannot be deleted. Deactivate the user instead."


@admin.register(Session)
class SessionAdmin(ReadOnlyAdmin):
    """Who is signed in over REST."""

    list_display = ("created_at", "user", "ip_address", "expires_at", "ended_at")
    list_select_related = ("user",)
    list_filter = ("created_at", "ended_at")
    search_fields = ("user__username", "=ip_address")
    ordering = ("-created_at",)

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """Return every column but those that tokens are checked by."""
        hidden = {"refresh_id", "auth_hash"}
        return [name for name in super().get_readonly_fields(request, obj) if name not in hidden]
