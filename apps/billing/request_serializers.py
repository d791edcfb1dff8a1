"""One recorded call over REST, with its attempts, its timing and why it cost what it cost."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, ClassVar, Final

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from apps.audit.models import APIRequest, Attempt
from apps.audit.serializers import (
    OWN_EXAMPLE,
    REQUEST_EXAMPLE,
    AttemptOutput,
    OwnRequestOutput,
    RequestOutput,
)
from apps.billing.explanation import ExplainedRequest, usage_of
from apps.billing.models import AccountKind, Entry, EntryKind, TransactionKind
from apps.core.price_terms import format_factor
from apps.core.rest import MultiplierField, USDField, example

_TIMING: Final = {
    "started_at": "2026-11-21T12:00:00.123456Z",
    "first_byte_ms": 412,
    "duration_ms": 3_950,
    "ended_at": "2026-11-21T12:00:04.073456Z",
    "settled_at": "2026-11-21T12:00:04.080000Z",
    "output_tokens_per_second": 98.93,
}
_CHARGE: Final = {
    "lines": [
        {
            "item": "input",
            "count": 1_200,
            "price_per_million": "2.5",
            "price_per_request": None,
            "price_per_piece": None,
            "terms_multiplier": "1",
            "multiplier": "1",
            "amount": "0.003",
        },
        {
            "item": "cache_read",
            "count": 800,
            "price_per_million": "1.25",
            "price_per_request": None,
            "price_per_piece": None,
            "terms_multiplier": "1",
            "multiplier": "1",
            "amount": "0.001",
        },
        {
            "item": "output",
            "count": 350,
            "price_per_million": "10",
            "price_per_request": None,
            "price_per_piece": None,
            "terms_multiplier": "1",
            "multiplier": "1",
            "amount": "0.0035",
        },
    ],
    "adjustments": [],
    "total": "0.0075",
    "note": "",
    "terms": [],
}
_ENTRIES: Final = [
    {
        "id": 9_001,
        "transaction": "0199c2a4-7e10-7d44-8a0b-5c6d7e8f9a0b",
        "transaction_kind": "settlement",
        "account": 41,
        "account_kind": "wallet",
        "kind": "charge",
        "amount": "-0.0075",
        "created_at": "2026-11-21T12:00:04.080000Z",
    }
]
_OWN_PARTS: Final = {"timing": _TIMING, "explained_charge": _CHARGE, "entries": _ENTRIES}
_ATTEMPT: Final = {
    "number": 1,
    "route_id": 6,
    "provider_id": 2,
    "provider_name": "somewhere",
    "provider_key_id": 3,
    "upstream_model": "gpt-4o-2024-11-20",
    "started_at": "2026-11-21T12:00:00.125000Z",
    "duration_ms": 3_940,
    "status_code": 200,
    "outcome": "completed",
    "error_text": "",
    "upstream_request_id": "req_8f2c",
    "changes": "default temperature=0.6; headers x-team",
    "cost": "0.006",
}


class TimingOutput(serializers.Serializer[Any]):
    """How long a call took. `ended_at` is the start and the duration together.

    The rate counts from the first byte of a stream, and over the whole time of a call that was
    answered at once.
    """

    started_at = serializers.DateTimeField()
    first_byte_ms = serializers.IntegerField(allow_null=True)
    duration_ms = serializers.IntegerField()
    ended_at = serializers.DateTimeField()
    settled_at = serializers.DateTimeField()
    output_tokens_per_second = serializers.FloatField(allow_null=True)


@extend_schema_field({"type": "string", "format": "decimal"})
class FactorField(serializers.Field[int, Any, str, int]):
    """The product of the multipliers of a price's terms, exact. Read only."""

    def to_representation(self, value: int) -> str:
        """Return the decimal string."""
        return format_factor(value)


class ExplainedLineOutput(serializers.Serializer[Any]):
    """A count × a price × the multiplier of its terms × the multiplier = an amount.

    One of the three prices is there. `minimum`: what is missing to the least that a request costs.
    """

    item = serializers.CharField(help_text="A token class, a count, `request` or `minimum`.")
    count = serializers.IntegerField()
    price_per_million = USDField(source="price_per_million_nanos", allow_null=True)
    price_per_request = USDField(source="price_per_request_nanos", allow_null=True)
    price_per_piece = USDField(source="price_per_piece_nanos", allow_null=True)
    terms_multiplier = FactorField(source="terms_factor")
    multiplier = MultiplierField(source="multiplier_millionths")
    amount = USDField(source="amount_nanos")


class AdjustmentLineOutput(serializers.Serializer[Any]):
    """What was added to the lines, or taken from them, and why."""

    kind = serializers.CharField()
    amount = USDField(source="amount_nanos")
    note = serializers.CharField()


class ExplanationOutput(serializers.Serializer[Any]):
    """Lines and adjustments sum to the total, to the last nano."""

    lines = ExplainedLineOutput(many=True)
    adjustments = AdjustmentLineOutput(many=True)
    total = USDField(source="total_nanos")
    note = serializers.CharField()
    terms = serializers.ListField(
        child=serializers.CharField(), help_text="Which terms of the price counted, in words."
    )


class RequestEntryOutput(serializers.Serializer[Entry]):
    """An entry of the ledger that names the call: negative where money was taken."""

    id = serializers.IntegerField()
    transaction = serializers.UUIDField(source="transaction_id")
    transaction_kind = serializers.ChoiceField(
        source="transaction.kind", choices=TransactionKind.choices
    )
    account = serializers.IntegerField(source="account_id")
    account_kind = serializers.ChoiceField(source="account.kind", choices=AccountKind.choices)
    kind = serializers.ChoiceField(choices=EntryKind.choices)
    amount = USDField(source="amount_nanos")
    created_at = serializers.DateTimeField(source="transaction.created_at")


@example({**OWN_EXAMPLE, **_OWN_PARTS})
class OwnRequestDetailOutput(OwnRequestOutput):
    """One's own call, its timing, and why it cost what it cost."""

    timing = TimingOutput()
    explained_charge = ExplanationOutput()
    entries = RequestEntryOutput(many=True)


@example({**REQUEST_EXAMPLE, **_OWN_PARTS, "attempts": [_ATTEMPT], "explained_cost": None})
class RequestDetailOutput(RequestOutput):
    """One call with its attempts, its timing, and why it cost what it cost.

    Viewers see neither the money of it nor entries of the ledger.
    """

    hidden_from: ClassVar = {
        "viewer": RequestOutput.hidden_from["viewer"]
        | {"explained_charge", "explained_cost", "entries"}
    }

    attempts = AttemptOutput(many=True)
    timing = TimingOutput()
    explained_charge = ExplanationOutput(allow_null=True)
    explained_cost = ExplanationOutput(allow_null=True)
    entries = RequestEntryOutput(many=True, allow_null=True)


def timing_of(row: APIRequest) -> dict[str, Any]:
    """Return how long a call took, as far as its columns say."""
    waited_ms = row.ttft_ms or 0 if row.is_stream else 0
    generating_ms = row.duration_ms - waited_ms
    produced = usage_of(row).output_tokens
    rate = produced * 1_000 / generating_ms if produced and generating_ms > 0 else None
    return {
        "started_at": row.started_at,
        "first_byte_ms": row.ttft_ms,
        "duration_ms": row.duration_ms,
        "ended_at": row.started_at + timedelta(milliseconds=row.duration_ms),
        "settled_at": row.settled_at,
        "output_tokens_per_second": None if rate is None else round(rate, 2),
    }


def show_own_request(row: APIRequest, explained: ExplainedRequest) -> Mapping[str, Any]:
    """Return what the owner of a call sees of it."""
    return OwnRequestDetailOutput(_whole(row, explained)).data


def show_request(
    row: APIRequest, explained: ExplainedRequest, attempts: list[Attempt], context: dict[str, Any]
) -> Mapping[str, Any]:
    """Return what the role of the caller in `context` sees of a call."""
    whole = _whole(row, explained) | {"attempts": attempts, "explained_cost": explained.cost}
    return RequestDetailOutput(whole, context=context).data


def _whole(row: APIRequest, explained: ExplainedRequest) -> dict[str, Any]:
    columns = {field.attname: getattr(row, field.attname) for field in row._meta.concrete_fields}
    return {
        **columns,
        "late_charges_nanos": explained.late_charges_nanos,
        "timing": timing_of(row),
        "explained_charge": explained.charge,
        "entries": explained.entries,
    }
