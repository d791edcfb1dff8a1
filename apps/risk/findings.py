"""Findings on their way into the database, and out of it when their time is up. Blocks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Final
from uuid import UUID

from django.db import transaction

from apps.audit.records import clean_text
from apps.core.pieces import delete_in_pieces
from apps.risk.models import RiskFinding

KEPT: Final = timedelta(days=90)
# In one statement, and of those whose time is up in one transaction and in one run.
_ROWS: Final = 200
_PRUNED_ROWS: Final = 1_000
_PRUNED_MAX: Final = 1_000_000
_TEXT_MAX: Final = {
    "rule_name": 100, "user_name": 150, "api_key_name": 100, "requested_model": 200,
    "operation": 32, "ip_address": 45, "user_agent": 256,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class CallFinding:
    """A call that a rule found, before it is written: the columns of RiskFinding."""

    request_id: UUID
    rule_id: int
    rule_name: str
    kind: str
    action: str
    user_id: int
    user_name: str
    api_key_id: int
    api_key_name: str
    model_id: int
    requested_model: str
    operation: str
    ip_address: str
    user_agent: str
    created_at: datetime


def write_findings(findings: Sequence[CallFinding]) -> None:
    """Write findings, in one transaction; those that are there already stay as they are."""
    rows = []
    for finding in findings:
        values = asdict(finding)
        for name, length in _TEXT_MAX.items():
            values[name] = clean_text(values[name], length)
        rows.append(RiskFinding(**values))
    with transaction.atomic():
        RiskFinding.objects.bulk_create(rows, batch_size=_ROWS, ignore_conflicts=True)


def prune_findings(*, now: datetime) -> int:
    """Delete the findings whose time is up, some at a time, and return how many."""
    rows = RiskFinding.objects.filter(created_at__lt=now - KEPT).order_by("created_at")
    return delete_in_pieces(rows, size=_PRUNED_ROWS, rows_max=_PRUNED_MAX)
