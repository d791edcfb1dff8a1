"""Whoever sets a password takes a place to hash it, and keeps no lock meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, ClassVar

import pytest
from django.db import connection
from django.test import Client
from pytest_django import Settings

from apps.audit.models import AdminEvent
from apps.billing.administrators import readmit_administrator
from apps.users import hashing
from apps.users.changes import change_user
from apps.users.hashing import HashingBusy, hashing_place
from apps.users.models import User
from tests.support.databases import Database
from tests.support.hasher import QuickArgon2PasswordHasher
from tests.support.house import page_of, send, texts_of
from tests.support.people import PASSWORD, make_admin, make_user

NEW_PASSWORD = "another correct horse"


class WatchedHasher(QuickArgon2PasswordHasher):
    """Remembers of each hash whether a transaction waited for it."""

    is_within: ClassVar[list[bool]] = []

    def encode(self, *arguments: Any) -> str:
        """Return the hash."""
        self.is_within.append(connection.in_atomic_block)
        return super().encode(*arguments)


def set_password(user: User) -> None:
    change_user(user=user, actor=None, password=NEW_PASSWORD)


def readmit(user: User) -> None:
    readmit_administrator(username=user.username, password=NEW_PASSWORD)


def make_another(user: User) -> None:
    make_user(username="new", password=NEW_PASSWORD)


def _browser_of(user: User) -> Client:
    browser = Client()
    browser.force_login(user)
    return browser


def add_in_admin(user: User) -> None:
    answer = send(
        _browser_of(user),
        page_of(User, "add"),
        username="new",
        email="new@example.com",
        password1=NEW_PASSWORD,
        password2=NEW_PASSWORD,
    )
    if texts_of(answer) == [HashingBusy.message]:
        raise HashingBusy
    assert User.objects.get(username="new").has_usable_password()


ways = pytest.mark.parametrize("act", [set_password, readmit, make_another, add_in_admin])


@ways
def test_without_a_place_nothing_changes(
    db: None, monkeypatch: pytest.MonkeyPatch, act: Callable[[User], None]
) -> None:
    monkeypatch.setattr(hashing, "WAIT_SECONDS", 0.001)
    boss = make_admin(password=PASSWORD)

    with ExitStack() as places:
        for _ in range(4):
            places.enter_context(hashing_place())
        with pytest.raises(HashingBusy):
            act(boss)

    boss.refresh_from_db()
    assert boss.check_password(PASSWORD)
    assert User.objects.count() == 1
    assert list(AdminEvent.objects.values_list("action", flat=True)) == ["user.created"]


@pytest.mark.sqlite  # Whether a transaction is open is the same for PostgreSQL.
@ways
def test_no_transaction_waits_for_a_hash(
    committed_db: Database, settings: Settings, act: Callable[[User], None]
) -> None:
    boss = make_admin(password=PASSWORD)
    settings.PASSWORD_HASHERS = [f"{__name__}.WatchedHasher"]
    WatchedHasher.is_within.clear()

    act(boss)

    assert WatchedHasher.is_within == [False]
