"""Tests of making, changing and trying rules, and of what becomes of findings."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from apps.audit.models import AdminEvent
from apps.core.ids import new_uuid7
from apps.risk import changes
from apps.risk.changes import (
    RuleExists,
    RuleGone,
    RuleInvalid,
    TooManyRules,
    change_rule,
    create_rule,
    remove_rule,
    try_rules,
)
from apps.risk.findings import CallFinding, prune_findings, write_findings
from apps.risk.loading import load_rules
from apps.risk.models import RiskFinding, RiskRule
from apps.risk.rules import RuleBook
from apps.risk.tasks import prune_findings as prune_task
from tests.support.people import make_admin
from tests.support.risk import make_rule, note_finding

CONTENT = {"name": "new", "kind": "content", "action": "block"}
REQUEST = {"name": "new", "kind": "request", "action": "block"}


@pytest.mark.parametrize(
    ("values", "field"),
    [
        (CONTENT, "words"),
        ({**CONTENT, "words": ["\u200b"]}, "words"),
        ({**CONTENT, "words": ["x" * 101]}, "words"),
        ({**CONTENT, "pattern": "("}, "pattern"),
        ({**CONTENT, "pattern": "a*"}, "pattern"),
        ({**CONTENT, "words": ["a"], "networks": ["192.0.2.0/33"]}, "networks"),
        ({**CONTENT, "words": ["a"], "user_agent": "(?=x)"}, "user_agent"),
        ({**CONTENT, "words": ["a"], "operations": ["images"]}, "operations"),
        (REQUEST, "kind"),
        ({**REQUEST, "words": ["a"], "users": [1]}, "kind"),
        ({**REQUEST, "pattern": "a", "users": [1]}, "kind"),
    ],
)
def test_a_rule_that_could_not_be_in_force_is_refused(
    db: None, values: dict[str, Any], field: str
) -> None:
    with pytest.raises(RuleInvalid) as raised:
        create_rule(values=values)

    assert raised.value.field == field
    assert not RiskRule.objects.exists()
    assert not AdminEvent.objects.filter(action="risk_rule.created").exists()


def test_changes_are_on_record(db: None) -> None:
    root = make_admin()
    rule = create_rule(values={**CONTENT, "words": ["bomb"]}, actor=root)

    change_rule(rule=rule, values={"words": ["gun"], "action": "block"}, actor=root)
    change_rule(rule=rule, values={"words": ["gun"]}, actor=root)
    with pytest.raises(RuleInvalid):
        change_rule(rule=rule, values={"words": []}, actor=root)
    remove_rule(rule=rule, actor=root)
    with pytest.raises(RuleGone):
        change_rule(rule=rule, values={"words": ["x"]}, actor=root)

    events = AdminEvent.objects.filter(object_type="risk.riskrule").order_by("id")
    assert [event.action for event in events] == [
        "risk_rule.created", "risk_rule.changed", "risk_rule.deleted",
    ]  # fmt: skip
    assert (events[1].before, events[1].after) == ({"words": ["bomb"]}, {"words": ["gun"]})
    assert {event.actor_id for event in events} == {root.pk}


def test_names_are_unique_and_rules_few(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    make_rule("one")
    with pytest.raises(RuleExists):
        make_rule("one")
    make_rule("two")
    with pytest.raises(RuleExists):
        change_rule(rule=RiskRule.objects.get(name="two"), values={"name": "one"})

    monkeypatch.setattr(changes, "RULES_MAX", 2)
    with pytest.raises(TooManyRules):
        make_rule("three")
    assert sorted(RiskRule.objects.values_list("name", flat=True)) == ["one", "two"]


@pytest.mark.parametrize("values", [{"kind": "other"}, {"action": "warn"}])
def test_the_database_knows_kinds_and_actions(db: None, values: dict[str, str]) -> None:
    with pytest.raises(IntegrityError), transaction.atomic():
        RiskRule.objects.create(**{**CONTENT, "words": ["a"], **values})


def test_rules_are_tried_in_their_order_active_or_not(db: None) -> None:
    second = make_rule("second", priority=2, pattern="b.mb")
    first = make_rule("first", priority=1, is_active=False, users=[5], action="record")
    make_rule("else", words=["gun"])
    make_rule("where from", kind="request", networks=["192.0.2.0/24"])
    RiskRule.objects.create(**{**CONTENT, "name": "broken", "pattern": "("})

    assert try_rules("A ＢＯ\u200bＭＢ") == [first, second]
    assert try_rules("") == []
    assert not RiskFinding.objects.exists()


def test_rules_are_loaded_by_kind_and_in_order(db: None, caplog: pytest.LogCaptureFixture) -> None:
    assert load_rules() is None
    make_rule("off", is_active=False)
    assert load_rules() is None

    late = make_rule("late", priority=5, words=["a"], pattern="b")
    early = make_rule("early", priority=-5, action="record", message="No.", users=[1])
    request = make_rule("request", kind="request", networks=["192.0.2.1"], operations=["rerank"])
    broken: list[dict[str, Any]] = [
        {"pattern": "(canary"}, {}, {"words": "canary"}, {"words": ["a"], "users": "12"},
        {"words": ["a"], "networks": ["canary"]},
    ]  # fmt: skip
    for number, values in enumerate(broken):
        RiskRule.objects.create(**{**CONTENT, "name": f"broken {number}", **values})
    book = load_rules()

    assert isinstance(book, RuleBook)
    assert [rule.id for rule in book.contents] == [early.pk, late.pk]
    assert [rule.id for rule in book.requests] == [request.pk]
    assert [len(rule.contents) for rule in book.contents] == [1, 2]
    assert (book.contents[0].message, book.contents[0].is_blocking) == ("No.", False)
    assert book.contents[0].reach.users == frozenset({1})
    assert book.requests[0].operations == frozenset({"rerank"})
    assert len(caplog.records) == 5
    assert "canary" not in caplog.text


def _finding(**values: Any) -> CallFinding:
    given = {
        "request_id": new_uuid7(), "rule_id": 1, "rule_name": "no bombs", "kind": "content",
        "action": "block", "user_id": 2, "user_name": "alice", "api_key_id": 3,
        "api_key_name": "laptop", "model_id": 4, "requested_model": "small",
        "operation": "rerank", "ip_address": "192.0.2.7", "user_agent": "x",
        "created_at": timezone.now(),
    }  # fmt: skip
    return CallFinding(**{**given, **values})


def test_findings_fit_their_columns_and_are_written_once(db: None) -> None:
    finding = _finding(user_agent="a\x00\x1b" + "x" * 300, user_name="y" * 200)

    write_findings([finding, _finding()])
    write_findings([finding])

    rows = RiskFinding.objects.order_by("id")
    assert rows.count() == 2
    assert rows[0].request_id == finding.request_id
    assert rows[0].user_agent == "a  " + "x" * 253
    assert rows[0].user_name == "y" * 150


def test_findings_are_never_edited(db: None) -> None:
    finding = note_finding(make_rule())

    with pytest.raises(DatabaseError, match="append-only"), transaction.atomic():
        RiskFinding.objects.filter(pk=finding.pk).update(user_name="somebody else")

    assert RiskFinding.objects.get().user_name == "alice"


def test_findings_go_in_pieces_with_a_pause_after_each_where_there_is_one_writer(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr("apps.core.pieces.time.sleep", pauses.append)
    monkeypatch.setattr("apps.risk.findings._PRUNED_ROWS", 2)
    rule = make_rule()
    now = timezone.now()
    for _ in range(5):
        note_finding(rule, created_at=now - timedelta(days=91))

    with CaptureQueriesContext(connection) as queries:
        pruned = prune_findings(now=now)

    assert pruned == 5
    assert len([query for query in queries if query["sql"].startswith("DELETE")]) == 3
    assert pauses == ([0.03] * 3 if connection.vendor == "sqlite" else [])


def test_findings_end_after_90_days(db: None) -> None:
    rule = make_rule()
    now = timezone.now()
    for days in (0, 89, 91, 400):
        note_finding(rule, created_at=now - timedelta(days=days))

    assert prune_findings(now=now) == 2
    assert prune_task() == 0
    assert RiskFinding.objects.count() == 2
