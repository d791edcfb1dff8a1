"""What happened, over REST: money as decimal strings of US dollars, bytes as hexadecimal digits."""

from __future__ import annotations

from typing import Any, ClassVar, Final

import orjson
from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from apps.audit.event_masks import mask_event, sees_all
from apps.audit.models import AdminEvent, RefusalCount, RequestState, UsageSource
from apps.core.rest import MaskedSerializer, MultiplierField, USDField, example
from apps.core.usage import COUNTS, TOKEN_CLASSES

_LATE: Final = "Charged after the record was written; with `charge` all that was taken for it."
_REQUEST_ID: Final = "0199c2a4-6f3e-7c1a-9b52-3d8e5f7a1b2c"
_TOKENS: Final = {f"{name}_tokens": 0 for name in TOKEN_CLASSES} | {
    "input_tokens": 1_200,
    "cache_read_tokens": 800,
    "output_tokens": 350,
}
OWN_EXAMPLE: Final = {
    "id": _REQUEST_ID,
    "api_key_id": 31,
    "api_key_name": "default",
    "model_id": 4,
    "requested_model": "gpt-4o",
    "endpoint": "/v1/chat/completions",
    "method": "POST",
    "dialect": "openai",
    "is_stream": True,
    "state": "completed",
    "status_code": 200,
    "error_code": "",
    "finish_reason": "stop",
    "counts": {"web_search": 1},
    "usage_source": "reported",
    "service_tier": "",
    "answered_from": "",
    "charge": "0.0075",
    "late_charges": "0",
    "hold": "0.168",
    "price_version_id": 9,
    "multiplier": "1",
    "input_bytes": 4_310,
    "output_bytes": 1_822,
    "started_at": "2026-11-21T12:00:00.123456Z",
    "ttft_ms": 412,
    "duration_ms": 3_950,
    "settled_at": "2026-11-21T12:00:04.080000Z",
    "ip_address": "192.0.2.7",
    "user_agent": "OpenAI/Python 2.8.0",
    **_TOKENS,
}
REQUEST_EXAMPLE: Final = {
    **OWN_EXAMPLE,
    "customer_id": 12,
    "user_id": 12,
    "user_name": "ada",
    "route_id": 6,
    "provider_id": 2,
    "provider_name": "somewhere",
    "upstream_model": "gpt-4o-2024-11-20",
    "is_usage_suspect": False,
    "cost": "0.006",
    "cost_version_id": 10,
    "attempt_count": 1,
    "upstream_request_id": "req_8f2c",
    "payload_digest": "5f" * 32,
    "incarnation_id": 3,
    "sequence": 1_044,
    "hash": "a0" * 32,
}


@extend_schema_field({"type": "string", "pattern": "^([0-9a-f]{2})*$"})
class HexField(serializers.Field[bytes, Any, str, bytes]):
    """Bytes as hexadecimal digits. Read only."""

    def to_representation(self, value: bytes) -> str:
        """Return the digits."""
        return bytes(value).hex()


@extend_schema_field(
    {
        "type": "object",
        "properties": {name: {"type": "integer", "minimum": 1} for name in COUNTS},
        "additionalProperties": False,
    }
)
class CountsField(serializers.Field[str, Any, dict[str, int], str]):
    """What was counted by the piece, by name and without zeros. Read only."""

    def to_representation(self, value: str) -> dict[str, int]:
        """Return the counts; none where they cannot be read, which `verify_ledger` finds."""
        try:
            counts: dict[str, int] = orjson.loads(value) if value else {}
        except orjson.JSONDecodeError:
            return {}
        return counts


class _TokenCounts(serializers.Serializer[Any]):
    """Adds one count for each token class."""

    def get_fields(self) -> dict[str, Any]:
        """Return the fields with the counts."""
        counts = {f"{name}_tokens": serializers.IntegerField() for name in TOKEN_CLASSES}
        return {**super().get_fields(), **counts}


@example(OWN_EXAMPLE)
class OwnRequestOutput(_TokenCounts):
    """One's own call in its final state. Token classes never overlap."""

    id = serializers.UUIDField()
    api_key_id = serializers.IntegerField()
    api_key_name = serializers.CharField()
    model_id = serializers.IntegerField()
    requested_model = serializers.CharField()
    endpoint = serializers.CharField()
    method = serializers.CharField()
    dialect = serializers.CharField()
    is_stream = serializers.BooleanField()
    state = serializers.ChoiceField(choices=RequestState.choices)
    status_code = serializers.IntegerField()
    error_code = serializers.CharField()
    finish_reason = serializers.CharField()
    counts = CountsField()
    usage_source = serializers.ChoiceField(choices=UsageSource.choices)
    service_tier = serializers.CharField(
        help_text="At whose prices it was charged; empty: the usual ones."
    )
    answered_from = serializers.CharField(
        help_text="`cache`: a kept answer to the same request; empty: a provider answered."
    )
    charge = USDField(source="charge_nanos")
    late_charges = USDField(source="late_charges_nanos", help_text=_LATE)
    hold = USDField(source="hold_nanos")
    price_version_id = serializers.IntegerField()
    multiplier = MultiplierField(source="multiplier_millionths")
    input_bytes = serializers.IntegerField()
    output_bytes = serializers.IntegerField()
    started_at = serializers.DateTimeField()
    ttft_ms = serializers.IntegerField(allow_null=True)
    duration_ms = serializers.IntegerField()
    settled_at = serializers.DateTimeField()
    ip_address = serializers.CharField()
    user_agent = serializers.CharField()


@example(REQUEST_EXAMPLE)
class RequestOutput(MaskedSerializer, OwnRequestOutput):
    """One accepted call in its final state. Token classes never overlap.

    Viewers see null where a person, money or a provider's own identifiers would show, and in the
    place of digests, by which hidden values could be guessed.
    """

    hidden_from: ClassVar = {
        "viewer": frozenset(
            {
                "customer_id", "user_id", "user_name", "api_key_id", "api_key_name",
                "ip_address", "user_agent", "upstream_request_id", "payload_digest", "hash",
                "charge", "late_charges", "hold", "multiplier", "price_version_id", "cost",
                "cost_version_id",
            }
        )
    }  # fmt: skip

    customer_id = serializers.IntegerField(allow_null=True)
    user_id = serializers.IntegerField(allow_null=True)
    api_key_id = serializers.IntegerField(allow_null=True)
    api_key_name = serializers.CharField(allow_null=True)
    charge = USDField(source="charge_nanos", allow_null=True)
    late_charges = USDField(source="late_charges_nanos", allow_null=True, help_text=_LATE)
    hold = USDField(source="hold_nanos", allow_null=True)
    price_version_id = serializers.IntegerField(allow_null=True)
    multiplier = MultiplierField(source="multiplier_millionths", allow_null=True)
    user_name = serializers.CharField(allow_null=True)
    route_id = serializers.IntegerField(allow_null=True)
    provider_id = serializers.IntegerField(allow_null=True)
    provider_name = serializers.CharField()
    upstream_model = serializers.CharField()
    is_usage_suspect = serializers.BooleanField()
    cost = USDField(source="cost_nanos", allow_null=True)
    cost_version_id = serializers.IntegerField(allow_null=True)
    attempt_count = serializers.IntegerField()
    ip_address = serializers.CharField(allow_null=True)
    user_agent = serializers.CharField(allow_null=True)
    upstream_request_id = serializers.CharField(allow_null=True)
    payload_digest = HexField(allow_null=True)
    incarnation_id = serializers.IntegerField()
    sequence = serializers.IntegerField()
    hash = HexField(allow_null=True)


class AttemptOutput(MaskedSerializer):
    """One try at a provider. The last one of a call is the one that answered."""

    hidden_from: ClassVar = {
        "viewer": frozenset({"error_text", "upstream_request_id", "changes", "cost"})
    }

    number = serializers.IntegerField()
    route_id = serializers.IntegerField()
    provider_id = serializers.IntegerField()
    provider_name = serializers.CharField()
    provider_key_id = serializers.IntegerField()
    upstream_model = serializers.CharField()
    started_at = serializers.DateTimeField()
    duration_ms = serializers.IntegerField()
    status_code = serializers.IntegerField(allow_null=True)
    outcome = serializers.CharField()
    error_text = serializers.CharField(allow_null=True)
    upstream_request_id = serializers.CharField(allow_null=True)
    changes = serializers.CharField(
        allow_null=True, help_text="What the route's overrides changed of the request."
    )
    cost = USDField(
        source="cost_nanos",
        allow_null=True,
        help_text="What the provider bills for it; null: it is not known.",
    )


class BodyOutput(serializers.Serializer[Any]):
    """A stored body: as text where it is UTF-8, else in base64."""

    content_type = serializers.CharField()
    encoding = serializers.ChoiceField(choices=[("text", "text"), ("base64", "base64")])
    content = serializers.CharField()
    stored_bytes = serializers.IntegerField()
    is_truncated = serializers.BooleanField()


@example(
    {
        "request_id": _REQUEST_ID,
        "is_intact": True,
        "request": {
            "content_type": "application/json",
            "encoding": "text",
            "content": '{"model":"gpt-4o","messages":[{"role":"user","content":"Hello"}]}',
            "stored_bytes": 65,
            "is_truncated": False,
        },
        "response": {
            "content_type": "text/event-stream",
            "encoding": "text",
            "content": 'data: {"choices":[]}\n\n',
            "stored_bytes": 23,
            "is_truncated": False,
        },
    }
)
class PayloadOutput(serializers.Serializer[Any]):
    """The bodies of a call. `is_intact`: they are those whose digest is in the record."""

    request_id = serializers.UUIDField()
    is_intact = serializers.BooleanField()
    request = BodyOutput()
    response = BodyOutput()


@example(
    {
        "id": 871,
        "actor_id": 1,
        "actor_name": "admin",
        "action": "provider.changed",
        "object_type": "providers.provider",
        "object_id": "2",
        "object_name": "somewhere",
        "before": {"weight": 1},
        "after": {"weight": 5},
        "reason": "",
        "ip_address": "192.0.2.7",
        "user_agent": "Mozilla/5.0",
        "created_at": "2026-11-21T12:00:00.123456Z",
    }
)
class EventOutput(serializers.Serializer[AdminEvent]):
    """Who did what to what, when, from where, with the values before and after.

    Without `actor_id` it was the system, or somebody who was not signed in. Analysts see null in
    the place of addresses of providers and people, and of what identifies a key.
    """

    def to_representation(self, instance: AdminEvent) -> dict[str, Any]:
        """Return what the caller may see of the event."""
        shown = super().to_representation(instance)
        return shown if sees_all(self.context.get("request")) else mask_event(shown)

    id = serializers.IntegerField()
    actor_id = serializers.IntegerField(allow_null=True)
    actor_name = serializers.CharField()
    action = serializers.CharField()
    object_type = serializers.CharField()
    object_id = serializers.CharField()
    object_name = serializers.CharField(allow_null=True)
    before = serializers.DictField(allow_null=True)
    after = serializers.DictField(allow_null=True)
    reason = serializers.CharField()
    ip_address = serializers.CharField()
    user_agent = serializers.CharField()
    created_at = serializers.DateTimeField()


@example(
    {
        "id": 51,
        "api_key_id": 31,
        "code": "rate_limit_exceeded",
        "minute": "2026-11-21T12:00:00Z",
        "count": 17,
    }
)
class RefusalOutput(serializers.Serializer[RefusalCount]):
    """How many calls were refused, by key, reason and minute. `api_key_id` 0: no known key."""

    id = serializers.IntegerField()
    api_key_id = serializers.IntegerField()
    code = serializers.CharField()
    minute = serializers.DateTimeField()
    count = serializers.IntegerField()


class RefusalSum(serializers.Serializer[Any]):
    """How many calls were refused for one reason."""

    code = serializers.CharField()
    count = serializers.IntegerField()


@example({"total": 18, "codes": [{"code": "rate_limit_exceeded", "count": 18}]})
class RefusalSumsOutput(serializers.Serializer[Any]):
    """How many calls were refused, in all and for each reason, the most frequent first."""

    total = serializers.IntegerField()
    codes = RefusalSum(many=True)
