"""The ledger in the Django admin: to be looked at, never to be changed. Users: `user_admin`,
adjustments that want a second administrator: `proposal_admin`.
"""

from __future__ import annotations

from django.contrib import admin
from django.db import models
from django.http import HttpRequest

from apps.audit.admin_pages import ReadOnlyAdmin, usd
from apps.billing import proposal_admin as proposal_admin
from apps.billing import user_admin as user_admin
from apps.billing.models import (
    Account,
    Entry,
    Hold,
    Incarnation,
    SpendCounter,
    Transaction,
    Verification,
    VerifiedHead,
)


@admin.register(Account)
class AccountAdmin(ReadOnlyAdmin):
    """Accounts and their balances."""

    list_display = (
        "id",
        "kind",
        "name",
        "customer",
        usd("posted_nanos"),
        usd("held_nanos"),
        "sequence",
    )
    list_display_links = ("id", "name")
    list_select_related = ("customer",)
    list_filter = ("kind", "created_at")
    search_fields = ("name", "customer__name")
    ordering = ("-id",)


@admin.register(Transaction)
class TransactionAdmin(ReadOnlyAdmin):
    """Transactions."""

    list_display = ("created_at", "kind", "actor_name", "reason", "idempotency_key", "id")
    list_display_links = ("created_at", "id")
    list_filter = ("kind", "created_at")
    search_fields = ("=idempotency_key", "=actor_name")
    search_help_text = "Exactly the idempotency key or the actor."
    ordering = ("-created_at", "-id")


@admin.register(Entry)
class EntryAdmin(ReadOnlyAdmin):
    """Entries."""

    list_display = (
        "id",
        "account",
        "kind",
        usd("amount_nanos"),
        usd("balance_after_nanos"),
        "request_id",
        "sequence",
        "transaction",
    )
    list_select_related = ("account", "transaction")
    list_filter = ("kind",)
    search_fields = ("=account__name",)
    search_help_text = "Exactly the account's name."
    ordering = ("-id",)

    def get_queryset(self, request: HttpRequest) -> models.QuerySet[Entry]:
        """Return the entries with what their names are made of."""
        rows: models.QuerySet[Entry] = super().get_queryset(request)
        return rows.select_related("account", "transaction")


@admin.register(Hold)
class HoldAdmin(ReadOnlyAdmin):
    """Money reserved for calls that run now."""

    list_display = (
        "placed_at",
        "request_id",
        "customer_id",
        usd("amount_nanos"),
        "incarnation_id",
    )
    list_display_links = ("placed_at", "request_id")
    list_filter = ("placed_at",)
    search_fields = ("=customer_id", "=incarnation_id")
    search_help_text = "Customer id or incarnation id."
    ordering = ("-placed_at",)


@admin.register(Incarnation)
class IncarnationAdmin(ReadOnlyAdmin):
    """Lives of the processes that hold money."""

    list_display = (
        "id",
        "kind",
        "host",
        "pid",
        "started_at",
        "renewed_at",
        "expires_at",
        "ended_at",
        "sequence",
    )
    list_filter = ("kind", "ended_at")
    search_fields = ("host", "=pid")
    ordering = ("-id",)


@admin.register(SpendCounter)
class SpendCounterAdmin(ReadOnlyAdmin):
    """What capped things have spent and hold."""

    list_display = ("scope", "scope_id", usd("spent_nanos"), usd("held_nanos"))
    # No filter: each day has scopes of its own.
    search_fields = ("scope", "=scope_id")
    ordering = ("-id",)


@admin.register(VerifiedHead)
class VerifiedHeadAdmin(ReadOnlyAdmin):
    """How far the chains have been verified."""

    list_display = ("chain", "chain_id", "sequence", "verified_at")
    list_filter = ("chain", "verified_at")
    search_fields = ("=chain_id",)
    ordering = ("-verified_at",)


@admin.register(Verification)
class VerificationAdmin(ReadOnlyAdmin):
    """What verifications of the ledger found."""

    list_display = (
        "started_at",
        "finished_at",
        "is_full",
        "started_by",
        "entries",
        "requests",
        "anchors",
        "finding_count",
    )
    list_filter = ("is_full", "started_by", "started_at")
    ordering = ("-id",)
