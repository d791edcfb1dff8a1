"""Recorded calls over REST: every column, money as decimal strings of US dollars."""

from __future__ import annotations

from typing import Any

from drf_spectacular.utils import extend_schema_field
from rest_framework import serializers

from apps.audit.models import APIRequest, RequestState, UsageSource
from apps.core.rest import MultiplierField, USDField
from apps.core.usage import TOKEN_CLASSES


@extend_schema_field({"type": "string", "nullable": True})
class HexField(serializers.Field[bytes, Any, str, bytes]):
    """Bytes as hexadecimal digits. Read only."""

    def to_representation(self, value: bytes) -> str:
        """Return the digits."""
        return bytes(value).hex()


class RequestOutput(serializers.Serializer[APIRequest]):
    """One accepted call in its final state."""

    id = serializers.UUIDField()
    customer_id = serializers.IntegerField()
    user_id = serializers.IntegerField()
    user_name = serializers.CharField()
    api_key_id = serializers.IntegerField()
    api_key_name = serializers.CharField()
    model_id = serializers.IntegerField()
    requested_model = serializers.CharField()
    route_id = serializers.IntegerField(allow_null=True)
    provider_id = serializers.IntegerField(allow_null=True)
    provider_name = serializers.CharField()
    upstream_model = serializers.CharField()
    endpoint = serializers.CharField()
    method = serializers.CharField()
    dialect = serializers.CharField()
    is_stream = serializers.BooleanField()
    state = serializers.ChoiceField(choices=RequestState.choices)
    status_code = serializers.IntegerField()
    error_code = serializers.CharField()
    finish_reason = serializers.CharField()
    usage_source = serializers.ChoiceField(choices=UsageSource.choices)
    is_usage_suspect = serializers.BooleanField()
    charge = USDField(source="charge_nanos")
    cost = USDField(source="cost_nanos", allow_null=True)
    hold = USDField(source="hold_nanos")
    price_version_id = serializers.IntegerField()
    cost_version_id = serializers.IntegerField(allow_null=True)
    multiplier = MultiplierField(source="multiplier_millionths")
    attempt_count = serializers.IntegerField()
    input_bytes = serializers.IntegerField()
    output_bytes = serializers.IntegerField()
    started_at = serializers.DateTimeField()
    ttft_ms = serializers.IntegerField(allow_null=True)
    duration_ms = serializers.IntegerField()
    settled_at = serializers.DateTimeField()
    ip_address = serializers.CharField()
    user_agent = serializers.CharField()
    upstream_request_id = serializers.CharField()
    payload_digest = HexField(allow_null=True)
    incarnation_id = serializers.IntegerField()
    sequence = serializers.IntegerField()
    hash = HexField()

    def get_fields(self) -> dict[str, Any]:
        """Add one count for each token class."""
        counts = {f"{name}_tokens": serializers.IntegerField() for name in TOKEN_CLASSES}
        return {**super().get_fields(), **counts}
