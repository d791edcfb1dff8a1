"""Findings are written beside the calls: bounded, once, and later where the database is away."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final

import pytest
from django.db import OperationalError

from apps.core.ids import new_uuid7
from apps.proxy import rule_findings
from apps.proxy.rule_findings import A_MINUTE_MAX, OF_ONE_MAX, RuleFindings
from apps.proxy.tests.values import NOW
from apps.risk.findings import Finding
from apps.risk.models import RiskFinding
from tests.support.databases import Database

FINDING: Final = Finding(
    request_id=new_uuid7(), rule_id=1, rule_name="no bombs", kind="content", action="block",
    user_id=2, user_name="alice", api_key_id=3, api_key_name="laptop", model_id=4,
    requested_model="small", operation="rerank", ip_address="192.0.2.7", user_agent="x",
    created_at=NOW,
)  # fmt: skip


class _Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def _one(rule_id: int = 1, api_key_id: int = 3) -> Finding:
    return replace(FINDING, request_id=new_uuid7(), rule_id=rule_id, api_key_id=api_key_id)


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Finding]:
    """Return what is written, instead of writing it."""
    found: list[Finding] = []
    monkeypatch.setattr(rule_findings, "write_findings", found.extend)
    monkeypatch.setattr(rule_findings, "GATHER_SECONDS", 0.01)
    return found


async def test_findings_of_one_key_and_rule_leave_room_for_others(written: list[Finding]) -> None:
    clock = _Clock()
    findings = RuleFindings(clock)

    for _ in range(OF_ONE_MAX + 5):
        findings.add(_one())
    findings.add(_one(rule_id=2))
    findings.add(_one(api_key_id=4))
    clock.now = 60.0
    findings.add(_one())
    await findings.stop()

    assert len(written) == OF_ONE_MAX + 3
    assert findings.dropped.counts == {(): 5}


async def test_findings_of_a_minute_are_bounded(written: list[Finding]) -> None:
    findings = RuleFindings(_Clock())

    for number in range(A_MINUTE_MAX + 7):
        findings.add(_one(api_key_id=number))
    await findings.stop()

    assert len(written) == A_MINUTE_MAX
    assert findings.dropped.counts == {(): 7}


async def test_findings_wait_while_the_database_is_away(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    written: list[Finding] = []
    tries = []

    def write(batch: list[Finding]) -> None:
        tries.append(len(batch))
        if len(tries) < 4:
            raise OperationalError("secret")
        written.extend(batch)

    monkeypatch.setattr(rule_findings, "write_findings", write)
    monkeypatch.setattr(rule_findings, "GATHER_SECONDS", 0.01)
    clock = _Clock()
    findings = RuleFindings(clock)

    for number in range(A_MINUTE_MAX):
        findings.add(_one(api_key_id=number))
    clock.now = 60.0
    findings.add(_one())  # No room is left.
    while findings._waiting:  # noqa: ASYNC110 (bounded by the timeout of the test run)
        await asyncio.sleep(0.01)
    await findings.stop()

    assert len(written) == A_MINUTE_MAX
    assert findings.dropped.counts == {(): 1}
    assert [record.getMessage() for record in caplog.records] == [
        "findings of rules have to wait: OperationalError"
    ]


async def test_a_bug_does_not_have_findings_tried_for_ever(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def write(batch: list[Finding]) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr(rule_findings, "write_findings", write)
    findings = RuleFindings(_Clock())

    findings.add(_one())
    await findings.stop()

    assert findings.dropped.counts == {(): 1}
    assert "1 findings of rules cannot be written" in caplog.text


async def test_findings_that_gathered_are_in_the_database_soon(committed_db: Database) -> None:
    findings = RuleFindings(_Clock())
    found = [_one(api_key_id=number) for number in range(250)]

    for finding in found:
        findings.add(finding)
    while findings._waiting:  # noqa: ASYNC110 (bounded by the timeout of the test run)
        await asyncio.sleep(0.05)
    findings.add(found[0])
    await findings.stop()

    rows = await asyncio.to_thread(lambda: list(RiskFinding.objects.order_by("id")))
    assert sorted(row.request_id for row in rows) == sorted(one.request_id for one in found)
