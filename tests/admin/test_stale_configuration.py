"""Old pages of providers, models, routes, groups and rules in the Django admin undo nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import pytest
from django.db import models
from django.test import Client

from apps.ai_models.catalogue import change_model
from apps.ai_models.models import AIModel, Route
from apps.ai_models.routes import change_route
from apps.audit.models import AdminEvent
from apps.model_groups.groups import change_group
from apps.model_groups.models import ModelGroup
from apps.model_groups.user_groups import change_user_group
from apps.providers.credentials import change_key
from apps.providers.models import Provider, ProviderKey
from apps.providers.registration import change_provider
from apps.risk.changes import change_rule
from apps.risk.models import RiskRule
from apps.users.models import UserGroup
from tests.support.admin_events import newest_event
from tests.support.house import (
    DOLLAR,
    House,
    columns_of,
    page_of,
    read_values,
    send_old,
    send_values,
)

LINES: Final = "First line.\n\nThird line, with a blank at its end: "
OVERRIDES: Final = {
    "parameters": {"default": {"temperature": 0.6, "seed": 1, "logprobs": True}, "remove": ["a"]},
    "headers": {"set": {"x-team": "research"}},
}


class Kind(NamedTuple):
    """One kind of row: as it is, what others change of it, and what is typed in an old page."""

    model: type[models.Model]
    noun: str
    stored: dict[str, Any]
    change: Callable[[Any, dict[str, Any]], Any]
    elsewhere: dict[str, Any]
    typed: dict[str, Any]
    written: dict[str, Any]
    # Of what others change as well.
    contested: dict[str, Any]
    won: dict[str, Any]


def _change_group(row: ModelGroup, values: dict[str, Any]) -> None:
    rest = dict(values)
    links = {name: rest.pop(name, None) for name in ("models", "user_groups")}
    change_group(group=row, values=rest, **links)


KINDS: Final = (
    Kind(
        Provider,
        "provider",
        {"headers": {"x-team": "research"}, "rpm": 7, "daily_cost_nanos": DOLLAR},
        lambda row, values: change_provider(provider=row, values=values),
        {
            "headers": {"x-team": "sales", "x-site": "b"},
            "priority": 4,
            "is_active": False,
            "rpm": None,
            "cap_nanos": 5 * DOLLAR,
            "idle_timeout_seconds": 2.5,
            "payload_mode": "off",
        },
        {"weight": "7"},
        {"weight": 7},
        {"headers": "{}", "daily_cost_nanos": "", "rpm": "8", "is_active": None},
        {"headers": {}, "daily_cost_nanos": None, "rpm": 8},
    ),
    Kind(
        ProviderKey,
        "provider_key",
        {"tpm": 9, "daily_cost_nanos": DOLLAR},
        lambda row, values: change_key(key=row, values=values),
        {"weight": 5, "rpm": 3, "tpm": None, "is_active": False, "daily_cost_nanos": 1},
        {"name": "second"},
        {"name": "second"},
        {"tpm": "10", "daily_cost_nanos": "2.5"},
        {"tpm": 10, "daily_cost_nanos": 2_500_000_000},
    ),
    Kind(
        AIModel,
        "model",
        {"description": LINES, "capabilities": {"vision": True, "sizes": [1, 1.5, {"é": None}]}},
        lambda row, values: change_model(model=row, values=values),
        {
            "description": "Another.",
            "capabilities": {"vision": False},
            "context_length": 1_000,
            "cache_share_millionths": 100_000,
            "strategy": "least_cost",
            "is_active": False,
        },
        {"display_name": "Big"},
        {"display_name": "Big"},
        {"description": "Mine.", "capabilities": '{"vision": 1}'},
        {"description": "Mine.", "capabilities": {"vision": 1}},
    ),
    Kind(
        Route,
        "route",
        {"overrides": OVERRIDES},
        lambda row, values: change_route(route=row, values=values),
        {"overrides": {}, "priority": 3, "is_active": False, "max_tokens_parameter": "max_tokens"},
        {"weight": "9"},
        {"weight": 9},
        {"overrides": '{"headers": {"remove": ["x-team"]}}', "max_tokens_parameter": "n_max"},
        {"overrides": {"headers": {"remove": ["x-team"]}}, "max_tokens_parameter": "n_max"},
    ),
    Kind(
        ModelGroup,
        "model_group",
        {},
        _change_group,
        {"models": [], "is_public": False, "multiplier_millionths": 500_000, "is_active": False},
        {"description": "Everything."},
        {"description": "Everything."},
        {"multiplier_millionths": "2"},
        {"multiplier_millionths": 2_000_000},
    ),
    Kind(
        UserGroup,
        "user_group",
        {"description": LINES, "cap_nanos": 5 * DOLLAR, "rpm": 7},
        lambda row, values: change_user_group(group=row, **values),
        {
            "description": "Another.",
            "cap_nanos": None,
            "daily_budget_nanos": DOLLAR,
            "rpm": None,
            "multiplier_millionths": 500_000,
        },
        {"name": "people"},
        {"name": "people"},
        {"cap_nanos": "1", "rpm": "8", "description": ""},
        {"cap_nanos": DOLLAR, "rpm": 8, "description": ""},
    ),
    Kind(
        RiskRule,
        "risk_rule",
        {"description": LINES, "words": ["bomb", "pipe bomb"], "pattern": "gas "},
        lambda row, values: change_rule(rule=row, values=values),
        {
            "words": ["gun"],
            "models": [1],
            "networks": ["10.0.0.0/8"],
            "operations": ["messages"],
            "pattern": "gas",
            "description": "Another.",
            "is_active": False,
        },
        {"message": "Not here."},
        {"message": "Not here."},
        {"words": "bomb", "networks": "2001:db8::/32", "pattern": "gas  "},
        {"words": ["bomb"], "networks": ["2001:db8::/32"], "pattern": "gas  "},
    ),
)
each_kind = pytest.mark.parametrize("kind", KINDS, ids=[kind.noun for kind in KINDS])


def _row_of(kind: Kind) -> Any:
    rows = kind.model._default_manager.order_by("pk")
    rows.update(**kind.stored)
    return rows[:1].get()


def _without_moment(changed: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in changed.items() if name != "updated_at"}


@each_kind
def test_an_old_page_brings_back_nothing(client: Client, house: House, kind: Kind) -> None:
    row = _row_of(kind)
    before = {name: columns_of(row)[name] for name in kind.written}

    changed = send_old(client, row, lambda: kind.change(row, kind.elsewhere), **kind.typed)

    assert _without_moment(changed) == kind.written
    assert newest_event() == (f"{kind.noun}.changed", before, kind.written)
    now = columns_of(row)
    assert {name: now[name] for name in kind.elsewhere} == kind.elsewhere


@each_kind
def test_what_is_changed_in_an_old_page_counts(client: Client, house: House, kind: Kind) -> None:
    row = _row_of(kind)

    changed = send_old(client, row, lambda: kind.change(row, kind.elsewhere), **kind.contested)

    assert _without_moment(changed) == kind.won
    action, before, after = newest_event()
    assert (action, after) == (f"{kind.noun}.changed", kind.won)
    assert {name: before[name] for name in before if name in kind.elsewhere} == {
        name: value for name, value in kind.elsewhere.items() if name in kind.won
    }


@each_kind
def test_a_page_that_is_sent_as_it_was_shown_changes_nothing(
    client: Client, house: House, kind: Kind
) -> None:
    row = _row_of(kind)
    count, page = AdminEvent.objects.count(), page_of(kind.model, "change", row.pk)
    before = columns_of(row)
    # As browsers end lines.
    shown = {
        name: value.replace("\n", "\r\n") if isinstance(value, str) else value
        for name, value in read_values(client.get(page)).items()
    }

    send_values(client, page, shown)
    changed_elsewhere = send_old(client, row, lambda: kind.change(row, kind.elsewhere))

    assert changed_elsewhere == {}
    assert {name: columns_of(row)[name] for name in kind.elsewhere} == kind.elsewhere
    untouched = before.keys() - kind.elsewhere.keys() - {"updated_at"}
    assert {name: columns_of(row)[name] for name in untouched} == {
        name: before[name] for name in untouched
    }
    assert AdminEvent.objects.count() == count + 1


@each_kind
def test_a_page_that_is_sent_twice_changes_once(client: Client, house: House, kind: Kind) -> None:
    row = _row_of(kind)
    page = page_of(kind.model, "change", row.pk)
    values = read_values(client.get(page))
    count = AdminEvent.objects.count()

    send_values(client, page, values, **kind.typed)
    once = columns_of(row)
    send_values(client, page, values, **kind.typed)

    assert {name: once[name] for name in kind.written} == kind.written
    assert columns_of(row) == once
    assert AdminEvent.objects.count() == count + 1


@each_kind
def test_a_page_that_does_not_say_what_it_showed_is_not_obeyed(
    client: Client, house: House, kind: Kind
) -> None:
    row = _row_of(kind)
    page, before = page_of(kind.model, "change", row.pk), columns_of(row)
    values = read_values(client.get(page))

    for shown in (None, "nonsense"):
        answer = send_values(client, page, values, as_shown=shown, **kind.typed)
        assert answer.context["adminform"].form.non_field_errors() == [
            "This form cannot be sent. Open it again."
        ]

    assert columns_of(row) == before


def test_links_are_written_whole_where_they_were_changed(client: Client, house: House) -> None:
    group, staff = ModelGroup.objects.get(), UserGroup.objects.get()
    people = UserGroup.objects.create(name="people")

    def change_elsewhere() -> None:
        change_group(group=group, values={}, models=[], user_groups=[people])

    changed = send_old(client, group, change_elsewhere, user_groups=[str(staff.pk)])

    assert changed == {"user_groups": [staff.pk]}
    assert columns_of(group)["models"] == []
    assert newest_event() == (
        "model_group.changed",
        {"user_groups": [people.pk]},
        {"user_groups": [staff.pk]},
    )


def test_what_others_wrote_is_checked_together_with_an_old_page(
    client: Client, house: House
) -> None:
    rule = RiskRule.objects.get()
    page = page_of(RiskRule, "change", rule.pk)
    old = read_values(client.get(page))
    change_rule(rule=rule, values={"words": [], "pattern": "bomb"})
    before = columns_of(rule)

    # On its page it still has a word; without the pattern the rule would look for nothing.
    RiskRule.objects.filter(pk=rule.pk).update(pattern="")
    answer = send_values(client, page, old, message="Not here.")

    assert "looks for words or a pattern" in answer.content.decode()
    assert columns_of(rule) == {**before, "pattern": ""}


def test_a_change_at_the_end_of_a_long_text_is_written_and_on_record(
    client: Client, house: House
) -> None:
    model = house.model
    AIModel.objects.update(description="x" * 3_000)

    changed = send_old(client, model, lambda: None, description="x" * 2_999 + "y")

    assert changed["description"] == "x" * 2_999 + "y"
    assert newest_event()[0] == "model.changed"
