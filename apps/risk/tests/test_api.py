"""Tests of risk rules and findings over REST."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, Final

import pytest
from django.test import Client
from django.utils import timezone
from rest_framework.test import APIClient

from apps.ai_models.models import AIModel
from apps.api_keys.issue import issue_key
from apps.audit.models import AdminEvent
from apps.model_groups.models import ModelGroup
from apps.risk import changes
from apps.risk.models import RiskFinding, RiskRule
from apps.users.models import Role, UserGroup
from tests.support.house import page_of, send, texts_of
from tests.support.people import make_admin, make_user, rest_client
from tests.support.risk import make_rule, note_finding

Named = dict[str, list[int]]
PATH: Final = "/api/admin/risk-rules/"
FOUND: Final = "/api/admin/risk-findings/"
RULE: Final = {
    "name": "no weapons", "description": "Asked for by legal.", "kind": "content",
    "action": "block", "priority": 3, "is_active": False, "message": "Not here.", "users": [],
    "user_groups": [], "api_keys": [], "models": [], "model_groups": [],
    "networks": ["192.0.2.0/24"], "user_agent": "curl", "operations": ["messages"],
    "words": ["nerve gas"], "are_whole_words": True, "pattern": "pipe.?bomb",
}  # fmt: skip


@pytest.fixture
def named(client: APIClient) -> Named:
    """Return ids of what a rule can name."""
    user = make_user()
    key, _ = issue_key(user=user, name="laptop")
    return {
        "users": [user.pk],
        "user_groups": [UserGroup.objects.create(name="staff").pk],
        "api_keys": [key.pk],
        "models": [AIModel.objects.create(name="small").pk],
        "model_groups": [ModelGroup.objects.create(name="chat").pk],
    }


def test_what_is_deleted_later_stays_in_a_rule(client: APIClient, named: Named) -> None:
    made = client.post(PATH, {**RULE, **named}).json()
    AIModel.objects.all().delete()

    changed = client.patch(f"{PATH}{made['id']}/", {"priority": 9})
    renamed = client.patch(f"{PATH}{made['id']}/", {"models": made["models"]})

    assert (changed.status_code, changed.json()["models"]) == (200, made["models"])
    assert (renamed.status_code, list(renamed.json())) == (400, ["models"])


def test_a_rule_is_made_changed_and_deleted_on_record(client: APIClient, named: Named) -> None:
    rule = {**RULE, **named}
    made = client.post(PATH, rule)
    path = f"{PATH}{made.json()['id']}/"
    shown = client.get(path)
    changed = client.patch(path, {"words": [], "is_active": True})
    replaced = client.put(path, {"name": "other", "kind": "content", "action": "record"})
    deleted = client.delete(path)

    statuses = [answer.status_code for answer in (made, shown, changed, replaced, deleted)]
    assert statuses == [201, 200, 200, 200, 204]
    assert {name: made.json()[name] for name in rule} == rule
    assert set(made.json()) == {*RULE, "id", "created_at", "updated_at"}
    assert made.json() == shown.json()
    assert (changed.json()["words"], changed.json()["pattern"]) == ([], "pipe.?bomb")
    assert (replaced.json()["name"], replaced.json()["action"]) == ("other", "record")
    events = AdminEvent.objects.filter(object_type="risk.riskrule").order_by("id")
    assert [event.action for event in events] == [
        "risk_rule.created", "risk_rule.changed", "risk_rule.changed", "risk_rule.deleted",
    ]  # fmt: skip
    assert client.get(path).status_code == 404


@pytest.mark.parametrize(
    ("values", "field"),
    [
        ({"name": ""}, "name"),
        ({"name": "taken"}, "name"),
        ({"kind": "other"}, "kind"),
        ({"action": "warn"}, "action"),
        ({"priority": 1_000_001}, "priority"),
        ({"priority": "first"}, "priority"),
        ({"message": "x" * 301}, "message"),
        ({"users": [0]}, "users"),
        ({"users": ["1"]}, "users"),
        ({"models": list(range(1, 102))}, "models"),
        ({"users": [999_999]}, "users"),
        ({"user_groups": [999_999]}, "user_groups"),
        ({"api_keys": [999_999]}, "api_keys"),
        ({"models": [999_999]}, "models"),
        ({"model_groups": [999_999]}, "model_groups"),
        ({"networks": ["anywhere"]}, "networks"),
        ({"user_agent": "("}, "user_agent"),
        ({"operations": ["images"]}, "operations"),
        ({"words": [""]}, "words"),
        ({"words": ["x"] * 1_001}, "words"),
        ({"words": [], "pattern": ""}, "words"),
        ({"pattern": "(a+"}, "pattern"),
        ({"pattern": r"(a)\1"}, "pattern"),
        ({"pattern": "x" * 501}, "pattern"),
        ({"kind": "request"}, "kind"),
        ({"severity": "high"}, "severity"),
    ],
)
def test_what_is_wrong_about_a_rule_is_named(
    client: APIClient, values: dict[str, Any], field: str
) -> None:
    make_rule("taken")
    rule = make_rule("there")

    made = client.post(PATH, {**RULE, **values})
    changed = client.patch(f"{PATH}{rule.pk}/", values)

    assert (made.status_code, list(made.json())) == (400, [field]), made.json()
    assert (changed.status_code, list(changed.json())) == (400, [field]), changed.json()
    assert RiskRule.objects.count() == 2


def test_there_is_a_bound_to_rules(client: APIClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(changes, "RULES_MAX", 1)
    make_rule()

    answer = client.post(PATH, RULE)

    assert (answer.status_code, answer.json()["code"]) == (409, "too_many_risk_rules")


def test_rules_are_tried_on_a_text(client: APIClient) -> None:
    rule = make_rule(is_active=False)

    found = client.post(f"{PATH}test/", {"text": "a ＢＯＭＢ"})
    nothing = client.post(f"{PATH}test/", {"text": ""})
    long = client.post(f"{PATH}test/", {"text": "x" * 100_001})

    assert found.json() == {
        "matched": [{"id": rule.pk, "name": "no bombs", "action": "block", "is_active": False}]
    }
    assert nothing.json() == {"matched": []}
    assert (long.status_code, list(long.json())) == (400, ["text"])
    assert not RiskFinding.objects.exists()


def test_rules_are_listed_in_their_order(client: APIClient) -> None:
    make_rule("b", priority=1)
    make_rule("a", priority=2, action="record", is_active=False, description="for legal")
    make_rule("c", kind="request", users=[1])

    def names(query: str = "") -> list[str]:
        return [row["name"] for row in client.get(f"{PATH}{query}").json()["results"]]

    assert names() == ["c", "b", "a"]
    assert names("?kind=request") == ["c"]
    assert names("?action=record") == ["a"]
    assert names("?is_active=true&ordering=-name") == ["c", "b"]
    assert names("?search=legal") == ["a"]
    assert client.get(f"{PATH}?pattern=a").status_code == 400


def test_findings_tell_who_was_found_by_which_rule_and_when(client: APIClient) -> None:
    rule, other = make_rule(), make_rule("other", action="record")
    now = timezone.now()
    first = note_finding(rule, user_id=7, api_key_id=8, created_at=now - timedelta(hours=2))
    second = note_finding(
        other, requested_model="big", operation="messages", ip_address="198.51.100.3"
    )

    def ids(query: str = "") -> list[int]:
        answer = client.get(f"{FOUND}{query}")
        assert answer.status_code == 200, answer.content
        return [row["id"] for row in answer.json()["results"]]

    assert ids() == [second.pk, first.pk]
    for query in (
        f"?rule={rule.pk}", "?user=7", "?api_key=8", "?action=block", "?model=small",
        "?operation=chat/completions", "?address=192.0.2.0/24", f"?request_id={first.request_id}",
        f"?created_before={(now - timedelta(hours=1)).strftime('%Y-%m-%dT%H:%M:%SZ')}",
    ):  # fmt: skip
        assert ids(query) == [first.pk], query
    assert ids(f"?rule={rule.pk},{other.pk}&kind=content") == [second.pk, first.pk]
    assert client.get(f"{FOUND}?text=bomb").status_code == 400
    row = client.get(f"{FOUND}?user=7").json()["results"][0]
    assert (row["rule_id"], row["rule_name"], row["user_name"]) == (rule.pk, "no bombs", "alice")
    rule.delete()
    assert ids("?user=7") == [first.pk]


def test_operators_read_rules_and_analysts_findings(db: None) -> None:
    rule = make_rule()
    note_finding(rule)
    expected = {Role.USER: (403, 403), Role.VIEWER: (200, 403), Role.ANALYST: (200, 200)}

    for role, statuses in expected.items():
        client = rest_client(make_user(role=role))
        read = (client.get(PATH), client.get(FOUND))
        writes = (
            client.post(PATH, RULE), client.post(f"{PATH}test/", {"text": "x"}),
            client.patch(f"{PATH}{rule.pk}/", {}), client.delete(f"{PATH}{rule.pk}/"),
        )  # fmt: skip
        assert tuple(answer.status_code for answer in read) == statuses
        assert {answer.status_code for answer in writes} == {403}
    assert RiskRule.objects.count() == 1


def test_rules_in_the_django_admin_are_checked_and_on_record(db: None) -> None:
    browser = Client()
    browser.force_login(make_admin())
    add = page_of(RiskRule, "add")

    people = [make_user().pk, make_user().pk]
    refused = send(browser, add, name="new", kind="content", action="block", pattern="(")
    nobody = send(browser, add, name="new", kind="request", action="block", users="999999")
    bad_ids = send(browser, add, name="new", kind="request", action="block", users="x")
    zero = send(browser, add, name="new", kind="request", action="block", users="0")
    lines = "\n".join(f"word{number}" for number in range(1_001))
    many = send(browser, add, name="new", kind="content", action="block", words=lines)
    none = RiskRule.objects.count()
    send(
        browser, add, name="new", kind="content", action="block", words="pipe bomb\nnerve gas",
        users="\n".join(map(str, people)), networks="192.0.2.0/24",
    )  # fmt: skip
    rule = RiskRule.objects.get()
    send(browser, page_of(RiskRule, "change", rule.pk), priority="4")

    assert "This is no regular expression of RE2: missing ): (</li>" in refused.content.decode()
    for answer in (bad_ids, zero):
        assert "Enter ids, one a line: whole numbers from 1 on." in answer.content.decode()
    # Not the first thousand: what is left out in silence is not looked for.
    assert "Enter at most 1000 lines." in many.content.decode()
    assert "There is no user 999999." in nobody.content.decode()
    assert none == 0
    assert (rule.words, rule.users) == (["pipe bomb", "nerve gas"], people)
    assert rule.networks == ["192.0.2.0/24"]
    events = AdminEvent.objects.filter(object_type="risk.riskrule").order_by("id")
    assert [event.action for event in events] == ["risk_rule.created", "risk_rule.changed"]
    assert (events[1].before, events[1].after) == ({"priority": 0}, {"priority": 4})


def test_the_bound_holds_in_the_django_admin(db: None, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = Client()
    browser.force_login(make_admin())
    monkeypatch.setattr(changes, "RULES_MAX", 0)

    answer = send(
        browser, page_of(RiskRule, "add"), name="new", kind="content", action="block", words="x"
    )

    assert texts_of(answer) == ["There are 100 risk rules already. Delete one first."]
    assert not RiskRule.objects.exists()
