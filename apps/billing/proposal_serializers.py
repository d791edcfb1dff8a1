"""Adjustments that want a second administrator, over REST."""

from __future__ import annotations

from typing import Any

from rest_framework import serializers

from apps.billing.models import ProposalStatus, ProposedAdjustment
from apps.billing.proposals import PENDING_FOR
from apps.core.rest import StrictSerializer, USDField, example


@example({"reason": "the invoice is paid already"})
class RejectionInput(StrictSerializer):
    """Why an adjustment is not to be."""

    reason = serializers.CharField(max_length=500)


@example(
    {
        "id": 3,
        "user": 7,
        "user_name": "ada",
        "amount": "250",
        "reason": "invoice 1701",
        "corrects": None,
        "status": "approved",
        "requested_by": 1,
        "requested_by_name": "root",
        "requested_at": "2026-11-21T03:44:00Z",
        "expires_at": "2026-11-28T03:44:00Z",
        "decided_by": 2,
        "decided_by_name": "grace",
        "decided_at": "2026-11-21T08:12:30Z",
        "decision_reason": "",
        "transaction": "019aa1b2-c3d4-7e5f-8a6b-0c1d2e3f4a5b",
    }
)
class ProposedAdjustmentOutput(serializers.Serializer[ProposedAdjustment]):
    """An adjustment that a second administrator has to approve, and what became of it."""

    id = serializers.IntegerField()
    user = serializers.IntegerField(source="user_id")
    user_name = serializers.CharField(source="user.username")
    amount = USDField(source="amount_nanos", is_signed=True)
    reason = serializers.CharField()
    corrects = serializers.IntegerField(source="corrects_id", allow_null=True)
    status = serializers.ChoiceField(choices=ProposalStatus.choices)
    requested_by = serializers.IntegerField(source="requested_by_id")
    requested_by_name = serializers.CharField(source="requested_by.username")
    requested_at = serializers.DateTimeField()
    expires_at = serializers.SerializerMethodField(help_text="Until then it can be approved.")
    decided_by = serializers.IntegerField(
        source="decided_by_id", allow_null=True, help_text="Null while it waits, or expired."
    )
    decided_by_name = serializers.SerializerMethodField()
    decided_at = serializers.DateTimeField(allow_null=True)
    decision_reason = serializers.CharField(allow_blank=True)
    transaction = serializers.UUIDField(
        source="transaction_id", allow_null=True, help_text="Null unless it is approved."
    )

    def get_expires_at(self, row: ProposedAdjustment) -> Any:
        """Return when it is too late."""
        return serializers.DateTimeField().to_representation(row.requested_at + PENDING_FOR)

    def get_decided_by_name(self, row: ProposedAdjustment) -> str:
        """Return who decided; empty where nobody has."""
        return "" if row.decided_by is None else row.decided_by.username
