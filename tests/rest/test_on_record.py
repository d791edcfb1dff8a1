"""Tests that nothing is changed over REST without its event, in the same transaction (I-71)."""

from __future__ import annotations

import orjson
import pytest
from django.db import transaction
from pytest_django import Settings

from apps.audit.models import AdminEvent
from tests.access.matrix import read_rules
from tests.rest.changes import ADDRESS, AGENT, CHANGES, Change
from tests.rest.refused_events import EVENTS, refusing
from tests.rest.world import RestWorld, all_rows, body_of, differences, undone

# What an event of each kind tells, by the end of its action.
NEW = ("created", "imported")
GONE = ("deleted",)
OTHER = ("changed", "deactivated", "archived", "secret_replaced")
REFUSED = [(change, action) for change in CHANGES for action in dict.fromkeys(change.events)]


def test_every_write_operation_is_in_the_table() -> None:
    rules = {(rule.method, rule.path) for rule in read_rules() if rule.method != "GET"}

    assert {(change.method, change.path) for change in CHANGES} == rules
    assert len(rules) == 65


def test_only_what_changes_nothing_of_account_is_silent() -> None:
    assert [change.path for change in CHANGES if change.why_silent] == [
        "/api/admin/risk-rules/test/",
        "/api/auth/refresh/",
    ]
    assert all(bool(change.events) != bool(change.why_silent) for change in CHANGES)


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_change_leaves_its_events(world: RestWorld, change: Change) -> None:
    last = AdminEvent.objects.latest("id").pk
    actor = change.actor(world)

    with undone():
        answer = change.send(world)
        events = list(AdminEvent.objects.filter(pk__gt=last).order_by("pk"))

    assert answer.status_code == change.status, answer.content
    if change.status == 409:
        assert body_of(answer)["code"] == "archived_instead"
    assert tuple(event.action for event in events) == change.events
    for event in events:
        assert (event.actor_id, event.actor_name) == (actor.pk, actor.username)
        assert (event.ip_address, event.user_agent) == (ADDRESS, AGENT)
        assert event.object_type
        assert event.object_id
        _check_values(event)


def _check_values(event: AdminEvent) -> None:
    """Check that an event tells what was and what is, as far as its kind has it."""
    before, after = event.before or {}, event.after or {}
    if event.action == "price.created":
        assert after
    elif event.action.endswith(NEW):
        assert not before
        assert after
    elif event.action.endswith(GONE):
        assert before
        assert not after
    elif event.action.endswith(OTHER) and event.action != "user.password_changed":
        assert before.keys() == after.keys() != set()
        assert all(before[name] != after[name] for name in after), (before, after)


@pytest.mark.sqlite  # What an event says is decided before it is written.
@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_events_hold_no_secret(world: RestWorld, change: Change) -> None:
    last = AdminEvent.objects.latest("id").pk

    with undone():
        answer = body_of(change.send(world)) or {}
        events = list(AdminEvent.objects.filter(pk__gt=last).values())
        secrets = world.secrets()

    shown_once = [answer.get(name) for name in ("api_key", "access", "refresh")]
    text = orjson.dumps(events, default=str).decode()
    assert [secret for secret in [*secrets, *filter(None, shown_once)] if secret in text] == []


@pytest.mark.parametrize(("change", "action"), REFUSED, ids=str)
def test_a_change_whose_event_is_refused_is_none(
    world: RestWorld, change: Change, action: str
) -> None:
    before = all_rows()

    with refusing(action):
        answer = change.send(world)
    after = all_rows()

    assert (answer.status_code, body_of(answer)) == (
        500, {"detail": "Something went wrong here.", "code": "server_error"},
    )  # fmt: skip
    left = differences(before, after)
    apart = [row["action"] for row in left.pop(EVENTS, [])]
    assert left == {}
    assert set(apart) <= set(change.apart)


@pytest.mark.parametrize(
    ("path", "action"),
    [
        ("/api/admin/requests/{request_id}/payload/", "payload.viewed"),
        ("/api/admin/requests/export/", "requests.exported"),
    ],
)
def test_what_is_not_on_record_is_not_shown(
    world: RestWorld, settings: Settings, path: str, action: str
) -> None:
    settings.PAYLOAD_READERS = "admin"
    path = world.cast.fill(path, "other")

    with refusing(action):
        refused, _, body = world.read("admin", path)
    with undone():
        shown, _, _ = world.read("admin", path)

    assert (refused, body.count(b"messages"), shown) == (500, 0, 200)


def test_the_database_refuses_only_for_a_while(world: RestWorld) -> None:
    with refusing("a.b"), transaction.atomic():
        AdminEvent.objects.create(action="a.c")
        transaction.set_rollback(True)

    assert not AdminEvent.objects.filter(action="a.c").exists()
