"""Rules reach the Snapshot by its deltas, whoever changes them and how."""

from __future__ import annotations

from typing import Any

import pytest
from django.db import connection

from apps.proxy import loader
from apps.proxy.snapshot import Snapshot
from apps.risk.models import RiskRule
from apps.users.models import UserGroup
from tests.support.risk import make_rule, note_finding

pytestmark = pytest.mark.usefixtures("committed_db")


def _follow(snapshot: Snapshot) -> loader.Delta:
    delta = loader.load_delta(snapshot.version)
    assert delta is not None
    loader.apply_delta(snapshot, delta)
    return delta


def _names(snapshot: Snapshot) -> list[str]:
    return [] if snapshot.rules is None else [rule.name for rule in snapshot.rules.contents]


def test_without_rules_there_is_nothing_to_look_at() -> None:
    make_rule(is_active=False)

    assert loader.load_snapshot().rules is None


def test_rules_are_loaded_with_everything_else_at_the_start() -> None:
    make_rule("one")

    assert _names(loader.load_snapshot()) == ["one"]


@pytest.mark.parametrize("how", ["save", "update", "sql"])
def test_a_rule_is_followed_however_it_changes(how: str) -> None:
    rule = make_rule("before")
    snapshot = loader.load_snapshot()

    if how == "save":
        rule.name = "after"
        rule.save()
    elif how == "update":
        RiskRule.objects.filter(pk=rule.pk).update(name="after")
    else:
        with connection.cursor() as cursor:
            cursor.execute("UPDATE risk_riskrule SET name = 'after' WHERE id = %s", [rule.pk])
    delta = _follow(snapshot)

    assert _names(snapshot) == ["after"]
    # Nothing else is read again.
    assert (delta.keys, delta.members, delta.catalogue) == ({}, {}, None)


@pytest.mark.parametrize(
    "values",
    [
        {"priority": 9}, {"action": "record"}, {"message": "No."}, {"users": [1]},
        {"user_groups": [1]}, {"api_keys": [1]}, {"models": [1]}, {"model_groups": [1]},
        {"networks": ["192.0.2.0/24"]}, {"user_agent": "x"}, {"operations": ["rerank"]},
        {"words": ["gun"]}, {"are_whole_words": True}, {"pattern": "x"}, {"is_active": False},
        {"kind": "request", "users": [1], "words": []},
    ],
)  # fmt: skip
def test_every_column_that_gateways_go_by_is_stamped(values: dict[str, Any]) -> None:
    rule = make_rule()
    snapshot = loader.load_snapshot()
    before = snapshot.rules

    RiskRule.objects.filter(pk=rule.pk).update(**values)
    delta = _follow(snapshot)

    assert delta.has_rules
    assert snapshot.rules != before


def test_the_last_rule_that_goes_leaves_nothing_to_look_at() -> None:
    rule = make_rule()
    snapshot = loader.load_snapshot()

    rule.delete()
    _follow(snapshot)

    assert snapshot.rules is None


def test_other_changes_leave_the_rules_as_they_are() -> None:
    rule = make_rule()
    snapshot = loader.load_snapshot()
    before = snapshot.rules

    UserGroup.objects.create(name="staff")
    RiskRule.objects.update(description="for legal")
    delta = _follow(snapshot)

    assert delta.catalogue is not None
    assert not delta.has_rules
    assert snapshot.rules is before
    version = snapshot.version
    note_finding(rule)
    assert _follow(snapshot).version == version
