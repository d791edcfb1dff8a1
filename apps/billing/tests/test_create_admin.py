"""Administrators come from the command line without their password ever standing there."""

from __future__ import annotations

import io
import sys
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from apps.audit.models import AdminEvent
from apps.billing.accounts import list_standings
from apps.users.models import Role, Session, User
from apps.users.tokens import open_session
from tests.support.people import PASSWORD, make_admin, make_user

NEW_PASSWORD = "another correct horse"
ADA = ("--username", "ada", "--email", "ada@example.com")


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str, typed: str = "") -> str:
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdin", io.StringIO(typed))
    call_command("create_admin", *arguments, stdout=out)
    return out.getvalue()


def test_a_new_administrator_has_accounts_and_is_on_record(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = run(monkeypatch, *ADA, "--password-stdin", typed=f"{PASSWORD}\n")

    user = User.objects.get(username="ada")
    event = AdminEvent.objects.get(action="user.created")
    assert (user.role, user.is_superuser, user.is_staff) == (Role.ADMIN, True, True)
    assert user.check_password(PASSWORD)
    assert list_standings([user.customer_id])[user.customer_id].balance_nanos == 0
    assert (event.actor_name, event.object_name) == ("system", "ada")
    assert PASSWORD not in said + str(event.after)


def test_a_generated_password_is_shown_once_and_stored_as_a_digest(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    said = run(monkeypatch, *ADA, "--generate")

    password = said.rpartition(": ")[2].strip()
    assert len(password) == 24
    assert User.objects.get(username="ada").check_password(password)
    assert password not in str(list(AdminEvent.objects.values()))


def test_a_reset_lets_an_administrator_in_again_and_everybody_else_out(
    db: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    user = make_admin(username="ada", password=PASSWORD)
    open_session(user=user, request=None)
    User.objects.filter(pk=user.pk).update(is_active=False)

    run(monkeypatch, "--username", "ada", "--reset", "--password-stdin", typed=NEW_PASSWORD)

    user.refresh_from_db()
    event = AdminEvent.objects.get(action="user.password_set")
    assert user.is_active
    assert user.check_password(NEW_PASSWORD)
    assert Session.objects.filter(ended_at=None).count() == 0
    assert (event.before, event.after) == (
        {"is_active": False},
        {"is_active": True, "sessions_ended": 1},
    )


@pytest.mark.parametrize("username", ["bob", "nobody"])
def test_a_reset_never_promotes(db: None, monkeypatch: pytest.MonkeyPatch, username: str) -> None:
    make_user(username="bob", password=PASSWORD)

    with pytest.raises(CommandError, match="no administrator"):
        run(monkeypatch, "--username", username, "--reset", "--generate")

    assert User.objects.get(username="bob").role == Role.USER
    assert User.objects.get(username="bob").check_password(PASSWORD)


REFUSED: dict[str, tuple[tuple[str, ...], str]] = {
    "taken": (("--username", "root", "--email", "x@example.com", "--generate"), ""),
    "weak": ((*ADA, "--password-stdin"), "password"),
    "like the name": ((*ADA, "--password-stdin"), "ada@example.com"),
    "empty": ((*ADA, "--password-stdin"), "\n"),
    "too long": ((*ADA, "--password-stdin"), "x1y2" * 2_000),
    "no terminal": (ADA, PASSWORD),
    "no address": (("--username", "ada", "--email", "ada", "--generate"), ""),
    "neither new nor reset": (("--username", "ada", "--generate"), ""),
    "both": ((*ADA, "--reset", "--generate"), ""),
    "two sources": ((*ADA, "--password-stdin", "--generate"), PASSWORD),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused_makes_nobody(db: None, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    make_admin(username="root", password=PASSWORD)
    arguments, typed = REFUSED[case]

    with pytest.raises(CommandError):
        run(monkeypatch, *arguments, typed=typed)

    assert list(User.objects.values_list("username", flat=True)) == ["root"]
    assert User.objects.get().check_password(PASSWORD)


def test_no_option_takes_a_password() -> None:
    from apps.billing.management.commands.create_admin import Command

    parser = Command().create_parser("manage.py", "create_admin")
    taking: list[Any] = [action.dest for action in parser._actions if action.nargs != 0]

    assert {"username", "email"} <= set(taking)
    assert not any("password" in name or "secret" in name for name in taking)
