"""The ledger over REST, read only. Amounts are signed decimal strings of US dollars."""

from __future__ import annotations

from typing import Any, Final

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from apps.audit.serializers import HexField
from apps.billing.late_records import sentence_of
from apps.billing.models import (
    Account,
    AccountKind,
    Entry,
    EntryKind,
    Transaction,
    TransactionKind,
)
from apps.core.rest import USDField, example

_HASH: Final = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_TRANSACTION_ID: Final = "0199c2a4-6f3e-7c1a-9b52-3d8e5f7a1b2c"
_REQUEST_ID: Final = "0199c2a4-6f3e-7c1a-8d11-0a2b4c6d8e9f"

_ENTRY_EXAMPLE: Final = {
    "id": 90_211,
    "transaction": _TRANSACTION_ID,
    "transaction_kind": "settlement",
    "account": 41,
    "account_kind": "wallet",
    "account_name": "wallet of ada",
    "customer": 12,
    "request_id": _REQUEST_ID,
    "kind": "charge",
    "amount": "-0.0075",
    "balance_after": "9.9925",
    "sequence": 17,
    "corrects": None,
    "actor_id": None,
    "actor_name": "",
    "reason": "",
    "created_at": "2026-11-21T12:00:04.080000Z",
    "hash": _HASH,
}
_TRANSACTION_EXAMPLE: Final = {
    "id": _TRANSACTION_ID,
    "kind": "settlement",
    "idempotency_key": f"settlement:{_TRANSACTION_ID}",
    "actor_id": None,
    "actor_name": "",
    "reason": "",
    "created_at": "2026-11-21T12:00:04.080000Z",
}


@example(
    {
        "id": 41,
        "kind": "wallet",
        "name": "wallet of ada",
        "customer": 12,
        "user": 12,
        "posted": "9.9925",
        "held": "0.168",
        "available": "9.8245",
        "sequence": 17,
        "verified_sequence": 15,
        "head": _HASH,
        "created_at": "2026-11-01T08:00:00Z",
    }
)
class AccountOutput(serializers.Serializer[Account]):
    """Something with a balance. `posted` is the sum of its entries, `available` posted − held."""

    id = serializers.IntegerField()
    kind = serializers.ChoiceField(choices=AccountKind.choices)
    name = serializers.CharField()
    customer = serializers.IntegerField(
        source="customer_id", allow_null=True, help_text="Null for the operator's own accounts."
    )
    user = serializers.IntegerField(source="user_id", allow_null=True)
    posted = USDField(source="posted_nanos", is_signed=True)
    held = USDField(source="held_nanos", is_signed=True)
    available = USDField(source="available_nanos", is_signed=True)
    sequence = serializers.IntegerField(help_text="How many entries it has.")
    verified_sequence = serializers.IntegerField(
        help_text="Up to which entry its chain is verified."
    )
    head = HexField(help_text="The hash of its last entry; empty without entries.")
    created_at = serializers.DateTimeField()


@example(_ENTRY_EXAMPLE)
class EntryOutput(serializers.Serializer[Entry]):
    """One signed line on one account."""

    id = serializers.IntegerField()
    transaction = serializers.UUIDField(source="transaction_id")
    transaction_kind = serializers.ChoiceField(
        source="transaction.kind", choices=TransactionKind.choices
    )
    account = serializers.IntegerField(source="account_id")
    account_kind = serializers.ChoiceField(source="account.kind", choices=AccountKind.choices)
    account_name = serializers.CharField(source="account.name")
    customer = serializers.IntegerField(source="account.customer_id", allow_null=True)
    request_id = serializers.UUIDField(allow_null=True)
    kind = serializers.ChoiceField(choices=EntryKind.choices)
    amount = USDField(source="amount_nanos", is_signed=True)
    balance_after = USDField(source="balance_after_nanos", is_signed=True)
    sequence = serializers.IntegerField()
    corrects = serializers.IntegerField(source="corrects_id", allow_null=True)
    actor_id = serializers.IntegerField(source="transaction.actor_id", allow_null=True)
    actor_name = serializers.CharField(source="transaction.actor_name", allow_blank=True)
    reason = serializers.CharField(source="transaction.reason", allow_blank=True)
    created_at = serializers.DateTimeField(source="transaction.created_at")
    hash = HexField()


@example(
    {
        "id": 90_211,
        "account": 41,
        "account_kind": "wallet",
        "transaction_kind": "adjustment",
        "kind": "credit",
        "amount": "10",
        "balance_after": "10",
        "request_id": None,
        "actor": "operator",
        "reason": "welcome",
        "created_at": "2026-11-01T08:00:00Z",
    }
)
class OwnEntryOutput(serializers.Serializer[Entry]):
    """One signed line on one of one's own accounts."""

    id = serializers.IntegerField()
    account = serializers.IntegerField(source="account_id")
    account_kind = serializers.ChoiceField(source="account.kind", choices=AccountKind.choices)
    transaction_kind = serializers.ChoiceField(
        source="transaction.kind", choices=TransactionKind.choices
    )
    kind = serializers.ChoiceField(choices=EntryKind.choices)
    amount = USDField(source="amount_nanos", is_signed=True)
    balance_after = USDField(source="balance_after_nanos", is_signed=True)
    request_id = serializers.UUIDField(allow_null=True)
    actor = serializers.SerializerMethodField(
        help_text="operator: a person there did it; self: you did; system: nobody had to."
    )
    reason = serializers.SerializerMethodField(help_text="Why it was made.")
    created_at = serializers.DateTimeField(source="transaction.created_at")

    def get_reason(self, entry: Entry) -> str:
        """Return why, without what a late settlement tells of what providers bill."""
        if entry.transaction.kind == TransactionKind.LATE_SETTLEMENT:
            return sentence_of(entry.transaction.reason)
        return entry.transaction.reason

    @extend_schema_field(serializers.ChoiceField(choices=("operator", "self", "system")))
    def get_actor(self, entry: Entry) -> str:
        """Return who did it, without a name."""
        actor_id = entry.transaction.actor_id
        if actor_id is None:
            return "system"
        request = self.context.get("request")
        is_own = request is not None and request.user.pk == actor_id
        return "self" if is_own else "operator"


@example(_TRANSACTION_EXAMPLE)
class TransactionOutput(serializers.Serializer[Transaction]):
    """Entries that belong together and sum to zero."""

    id = serializers.UUIDField()
    kind = serializers.ChoiceField(choices=TransactionKind.choices)
    idempotency_key = serializers.CharField()
    actor_id = serializers.IntegerField(allow_null=True)
    actor_name = serializers.CharField(allow_blank=True)
    reason = serializers.CharField(allow_blank=True)
    created_at = serializers.DateTimeField()


@example({**_TRANSACTION_EXAMPLE, "entry_count": 4, "entries": [_ENTRY_EXAMPLE]})
class TransactionWithEntriesOutput(TransactionOutput):
    """A transaction with its first 200 entries."""

    entry_count = serializers.IntegerField()
    entries = EntryOutput(
        source="first_entries",
        many=True,
        help_text="At most 200; all are listed by /api/admin/ledger/entries/?transaction=….",
    )


class VerificationOutput(serializers.Serializer[Any]):
    """What one verification looked at and found."""

    started_at = serializers.DateTimeField()
    finished_at = serializers.DateTimeField()
    is_full = serializers.BooleanField(help_text="Everything, and not only what was new.")
    started_by = serializers.ChoiceField(choices=("schedule", "command"))
    entries = serializers.IntegerField(help_text="Links verified in the accounts' chains.")
    requests = serializers.IntegerField(help_text="Links verified in the chains of calls.")
    anchors = serializers.IntegerField(help_text="Lines of the anchor file.")
    finding_count = serializers.IntegerField(help_text="0: all was as it must be.")
    findings = serializers.CharField(allow_blank=True, help_text="The first ones, a line each.")


class ChainsOutput(serializers.Serializer[Any]):
    """How far the chains of one kind are verified."""

    chains = serializers.IntegerField()
    links = serializers.IntegerField()
    verified_links = serializers.IntegerField()
    unverified_links = serializers.IntegerField()


class AnchorOutput(serializers.Serializer[Any]):
    """The last line of the anchor file."""

    number = serializers.IntegerField()
    at = serializers.CharField(allow_blank=True)
    digest = HexField()
    key_id = serializers.CharField(
        allow_blank=True, help_text="Which ENCRYPTION_KEY the signing key comes from."
    )
    public_key_fingerprint = serializers.CharField(
        allow_blank=True,
        help_text="SHA-256 of the Ed25519 public key; empty where the key is not ours.",
    )
    problem = serializers.CharField(
        allow_blank=True, help_text="Why it must not be believed; empty: it is signed."
    )


class AnchorNoteOutput(serializers.Serializer[Any]):
    """What the database remembers of the last anchor."""

    number = serializers.IntegerField()
    at = serializers.DateTimeField()
    digest = HexField()


_VERIFICATION_EXAMPLE: Final = {
    "started_at": "2026-11-21T12:00:00Z",
    "finished_at": "2026-11-21T12:00:01Z",
    "is_full": False,
    "started_by": "schedule",
    "entries": 310,
    "requests": 298,
    "anchors": 20_160,
    "finding_count": 0,
    "findings": "",
}


@example(
    {
        "last": _VERIFICATION_EXAMPLE,
        "last_full": None,
        "accounts": {
            "chains": 219,
            "links": 90_211,
            "verified_links": 90_100,
            "unverified_links": 111,
        },
        "requests": {
            "chains": 4,
            "links": 70_310,
            "verified_links": 70_300,
            "unverified_links": 10,
        },
        "anchor": {
            "number": 20_160,
            "at": "2026-11-21T12:00:30+00:00",
            "digest": _HASH,
            "key_id": "a1b2c3d4",
            "public_key_fingerprint": _HASH,
            "problem": "",
        },
        "anchor_note": {"number": 20_160, "at": "2026-11-21T12:00:30Z", "digest": _HASH},
        "is_anchor_noted": True,
    }
)
class ProofOutput(serializers.Serializer[Any]):
    """What proves the ledger, as of its last verification and anchor."""

    last = VerificationOutput(allow_null=True, help_text="Null before the first one.")
    last_full = VerificationOutput(allow_null=True, help_text="The last one of everything.")
    accounts = ChainsOutput()
    requests = ChainsOutput()
    anchor = AnchorOutput(
        allow_null=True, help_text="Null where this process cannot read the anchor file."
    )
    anchor_note = AnchorNoteOutput(allow_null=True)
    is_anchor_noted = serializers.BooleanField(
        allow_null=True, help_text="Whether the file's last line is the one the database remembers."
    )
