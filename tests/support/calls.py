"""Recorded calls, written as rows."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from django.utils import timezone

from apps.audit.models import APIRequest
from apps.core.ids import new_uuid7


def make_call(**changes: Any) -> APIRequest:
    """Return an unsaved call."""
    now = timezone.now() - timedelta(minutes=changes.pop("minutes_ago", 0))
    values: dict[str, Any] = {
        "id": new_uuid7(),
        "customer_id": 1,
        "user_id": 1,
        "user_name": "ada",
        "api_key_id": 1,
        "api_key_name": "main",
        "model_id": 1,
        "requested_model": "small",
        "provider_name": "somewhere",
        "upstream_model": "small-2026",
        "endpoint": "chat/completions",
        "method": "POST",
        "dialect": "openai",
        "is_stream": False,
        "state": "completed",
        "status_code": 200,
        "usage_source": "reported",
        "charge_nanos": 1,
        "hold_nanos": 1,
        "price_version_id": 1,
        "multiplier_millionths": 500_000,
        "input_bytes": 1,
        "output_bytes": 1,
        "started_at": now,
        "duration_ms": 1,
        "settled_at": now,
        "ip_address": "192.0.2.1",
        "user_agent": "tests",
        "incarnation_id": 1,
        "sequence": 1,
        "hash": b"\x01" * 32,
    }
    return APIRequest(**{**values, **changes})


def record_call(**changes: Any) -> APIRequest:
    """Write a call that ended."""
    row = make_call(**changes)
    row.save(force_insert=True)
    return row
