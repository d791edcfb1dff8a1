"""Administrators at once, each with a connection of its own; the control shows that it bites."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest
from django.db import connection

from apps.audit.models import AdminEvent
from apps.billing.customers import delete_user
from apps.users.changes import LastAdmin, change_user
from apps.users.models import Role, User
from tests.support.databases import Database
from tests.support.people import make_admin

BARRIER_SECONDS = 30
Act = Callable[[User, User], object]


def _each_against_the_other(act: Act) -> list[str]:
    """Have two administrators act on each other at once; return what came of it, sorted."""
    first, second = make_admin(), make_admin()
    barrier = threading.Barrier(2, timeout=BARRIER_SECONDS)

    def run(actor: User, other: User) -> str:
        try:
            barrier.wait()
            act(actor, other)
        except LastAdmin:
            return "refused"
        finally:
            connection.close()
        return "done"

    with ThreadPoolExecutor(2) as threads:
        futures = [threads.submit(run, first, second), threads.submit(run, second, first)]
        return sorted(future.result() for future in futures)


def _demote(actor: User, other: User) -> None:
    change_user(user=other, actor=actor, role=Role.USER)


def _deactivate(actor: User, other: User) -> None:
    change_user(user=other, actor=actor, is_active=False)


def _delete(actor: User, other: User) -> None:
    delete_user(user=other, actor=actor)


@pytest.mark.parametrize("act", [_demote, _deactivate, _delete])
def test_of_two_that_remove_each_other_one_remains(committed_db: Database, act: Act) -> None:
    outcome = _each_against_the_other(act)

    assert outcome == ["done", "refused"]
    assert User.objects.filter(role=Role.ADMIN, is_active=True).count() == 1
    removals = ("user.role_changed", "user.changed", "user.deleted")
    assert AdminEvent.objects.filter(action__in=removals).count() == 1


def test_control_two_that_look_before_they_demote_remove_both(committed_db: Database) -> None:
    looked = threading.Barrier(2, timeout=BARRIER_SECONDS)

    def demote(looked: threading.Barrier, actor: User, other: User) -> None:
        remaining = User.objects.filter(role=Role.ADMIN, is_active=True).exclude(pk=other.pk)
        is_allowed = remaining.exists()
        looked.wait()
        if is_allowed:
            User.objects.filter(pk=other.pk).update(role=Role.USER)

    outcome = _each_against_the_other(partial(demote, looked))

    assert outcome == ["done", "done"]
    assert User.objects.filter(role=Role.ADMIN, is_active=True).count() == 0
