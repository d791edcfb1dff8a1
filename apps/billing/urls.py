"""Paths: users with their money, and the ledger."""

from __future__ import annotations

from apps.billing.api import AdjustBalanceView, ResetKeyView, UsersView, UserView
from apps.core.routes import rest_path

urlpatterns = [
    rest_path("admin/users", UsersView),
    rest_path("admin/users/{id:user_id}", UserView),
    rest_path("admin/users/{id:user_id}/adjust-balance", AdjustBalanceView),
    rest_path("admin/users/{id:user_id}/reset-key", ResetKeyView),
]
