"""Findings are written beside the calls: bounded, once, and later where the database is away."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Final
from uuid import UUID

import pytest
from django.db import connection

from apps.core.ids import new_uuid7
from apps.proxy import rule_findings
from apps.proxy.rule_findings import A_MINUTE_MAX, OF_ONE_MAX, RuleFindings
from apps.proxy.tests.values import NOW
from apps.risk.findings import CallFinding
from apps.risk.models import RiskFinding
from tests.support.clocks import Clock
from tests.support.databases import Database

FINDING: Final = CallFinding(
    request_id=new_uuid7(), rule_id=1, rule_name="no bombs", kind="content", action="block",
    user_id=2, user_name="alice", api_key_id=3, api_key_name="laptop", model_id=4,
    requested_model="small", operation="rerank", ip_address="192.0.2.7", user_agent="x",
    created_at=NOW,
)  # fmt: skip


def _one(rule_id: int = 1, api_key_id: int = 3) -> CallFinding:
    return replace(FINDING, request_id=new_uuid7(), rule_id=rule_id, api_key_id=api_key_id)


def test_findings_of_one_key_and_rule_leave_room_for_others() -> None:
    async def add() -> None:
        clock = Clock(0.0)
        findings = RuleFindings(clock)

        for _ in range(OF_ONE_MAX + 5):
            findings.add(_one())
        findings.add(_one(rule_id=2))
        findings.add(_one(api_key_id=4))
        clock.now = 60.0
        findings.add(_one())

        assert len(findings.waiting) == OF_ONE_MAX + 3
        assert findings.dropped.counts == {(): 5}

    asyncio.run(add())


def test_findings_of_a_minute_and_those_that_wait_are_bounded() -> None:
    async def add() -> None:
        clock = Clock(0.0)
        findings = RuleFindings(clock)

        for number in range(A_MINUTE_MAX + 7):
            findings.add(_one(api_key_id=number))
        clock.now = 60.0
        findings.add(_one())

        assert len(findings.waiting) == A_MINUTE_MAX
        assert findings.dropped.counts == {(): 8}

    asyncio.run(add())


async def test_findings_that_gathered_are_in_the_database_soon(committed_db: Database) -> None:
    findings = RuleFindings(Clock(0.0))
    found = [_one(api_key_id=number) for number in range(250)]

    for finding in found:
        findings.add(finding)
    await _until_written(findings)
    findings.add(found[0])
    await findings.stop()

    assert await asyncio.to_thread(_request_ids) == sorted(one.request_id for one in found)


async def test_findings_wait_while_the_database_is_away(
    committed_db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    findings = RuleFindings(Clock(0.0))
    await asyncio.to_thread(_execute, "ALTER TABLE risk_riskfinding RENAME TO away")

    finding = _one()
    findings.add(finding)
    await asyncio.sleep(3 * rule_findings.GATHER_SECONDS)
    is_waiting = list(findings.waiting) == [finding]
    await asyncio.to_thread(_execute, "ALTER TABLE away RENAME TO risk_riskfinding")
    await _until_written(findings)
    await findings.stop()

    assert is_waiting
    assert await asyncio.to_thread(_request_ids) == [finding.request_id]
    assert findings.dropped.counts == {}
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == 1  # and not one a try
    assert lines[0].startswith("findings of rules have to wait: ")


async def test_what_no_database_takes_is_not_tried_for_ever(
    committed_db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    findings = RuleFindings(Clock(0.0))

    findings.add(_one(rule_id=2**70))
    await _until_written(findings)
    await findings.stop()

    assert findings.dropped.counts == {(): 1}
    (record,) = caplog.records
    assert record.getMessage().startswith("1 findings of rules ")
    assert await asyncio.to_thread(_request_ids) == []


async def _until_written(findings: RuleFindings) -> None:
    async with asyncio.timeout(30):
        while findings.waiting:  # noqa: ASYNC110 (bounded)
            await asyncio.sleep(0.05)


def _request_ids() -> list[UUID]:
    return sorted(RiskFinding.objects.values_list("request_id", flat=True))


def _execute(statement: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement)
