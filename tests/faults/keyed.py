"""Calls with an idempotency key, and what they were charged."""

from __future__ import annotations

import orjson

from apps.ai_models.models import AIModel
from apps.billing.models import Entry
from tests.e2e.answers import HttpAnswer, ask
from tests.faults.site import Payer, chat
from tests.support.gateway import GatewayProcess


def post(gateway: GatewayProcess, payer: Payer, model: AIModel, key: str = "once") -> HttpAnswer:
    """Make a call with an idempotency key."""
    headers = {
        "Authorization": f"Bearer {payer.key}",
        "Content-Type": "application/json",
        "Idempotency-Key": key,
    }
    body = orjson.dumps(chat(model))
    return ask(gateway, "POST", "/v1/chat/completions", headers=headers, body=body)


def charges(payer: Payer) -> list[int]:
    """Return what a payer was charged, in nanos, oldest first."""
    entries = Entry.objects.filter(account__customer_id=payer.customer_id)
    entries = entries.exclude(request_id=None)
    return list(entries.order_by("pk").values_list("amount_nanos", flat=True))
