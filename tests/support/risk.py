"""Rules and what they found, for tests."""

from __future__ import annotations

from typing import Any

from django.utils import timezone

from apps.core.ids import new_uuid7
from apps.risk.changes import create_rule
from apps.risk.models import RiskFinding, RiskRule


def make_rule(name: str = "no bombs", **values: Any) -> RiskRule:
    """Make a rule that blocks, about a word unless something else is named."""
    given = {"kind": "content", "action": "block", **values}
    if given["kind"] == "content" and not given.get("pattern"):
        given.setdefault("words", ["bomb"])
    return create_rule(values={"name": name, **given})


def note_finding(rule: RiskRule, **values: Any) -> RiskFinding:
    """Write what a rule found."""
    given = {
        "request_id": new_uuid7(),
        "rule_id": rule.pk,
        "rule_name": rule.name,
        "kind": rule.kind,
        "action": rule.action,
        "user_id": 1,
        "user_name": "alice",
        "api_key_id": 1,
        "api_key_name": "laptop",
        "model_id": 1,
        "requested_model": "small",
        "operation": "chat/completions",
        "ip_address": "192.0.2.7",
        "user_agent": "x",
        "created_at": timezone.now(),
    }
    return RiskFinding.objects.create(**{**given, **values})
