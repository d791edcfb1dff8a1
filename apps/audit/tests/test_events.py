"""Tests of admin events."""

from __future__ import annotations

import pytest
from django.test import RequestFactory

from apps.audit.events import changed_values, record_event, values_of
from apps.audit.models import AdminEvent
from tests.support.people import make_admin, make_user


@pytest.mark.usefixtures("db")
def test_an_event_says_who_did_what_to_whom_from_where() -> None:
    actor, subject = make_admin(username="root"), make_user(username="ada")
    request = RequestFactory().get("/", headers={"user-agent": "browser"}, REMOTE_ADDR="192.0.2.7")

    event = record_event(
        actor=actor,
        action="user.changed",
        subject=subject,
        before={"name": ""},
        after={"name": "Ada"},
        reason="asked for it",
        request=request,
    )

    stored = AdminEvent.objects.get(pk=event.pk)
    assert (stored.actor_id, stored.actor_name) == (actor.pk, "root")
    assert (stored.object_type, stored.object_id) == ("users.user", str(subject.pk))
    assert (stored.object_name, stored.reason) == ("ada", "asked for it")
    assert (stored.before, stored.after) == ({"name": ""}, {"name": "Ada"})
    assert (stored.ip_address, stored.user_agent) == ("192.0.2.7", "browser")


@pytest.mark.usefixtures("db")
def test_the_values_of_a_row_hold_no_secret() -> None:
    user = make_user(password="correct horse battery staple")

    assert "password" not in values_of(user)
    assert values_of(user)["email"] == user.email


@pytest.mark.usefixtures("db")
def test_texts_are_bounded_and_without_nul() -> None:
    event = record_event(
        actor=None,
        action="note",
        subject=None,
        after={"text": "a\x00b" + "c" * 5_000},
        reason="r" * 900,
    )

    stored = AdminEvent.objects.get(pk=event.pk)
    assert stored.after == {"text": "ab" + "c" * 1_998}
    assert stored.reason == "r" * 500
    assert stored.actor_name == "system"


def test_only_what_differs_is_kept() -> None:
    before = {"name": "a", "weight": 1, "updated_at": "1"}
    after = {"name": "b", "weight": 1, "updated_at": "2"}

    assert changed_values(before, after) == ({"name": "a"}, {"name": "b"})
