"""The schedule verifies what is new and, once a day, everything; one run of a kind at a time."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from django.db import connection

from apps.billing.ledger.commands import Held
from apps.billing.ledger.store import Engine
from apps.billing.models import Verification
from apps.billing.tasks import verify_full, verify_recent
from tests.support.databases import Database
from tests.support.tampering import Tamper
from tests.support.world import Gateway, make_world

LOCKS = {"recent": 7_270_418_011, "full": 7_270_418_012}
TASKS = {"recent": verify_recent, "full": verify_full}


@pytest.fixture(autouse=True)
def gateway(ledger_connect: Callable[[], Engine], data_dir: Path) -> Gateway:
    """A gateway that has settled a call."""
    gateway = Gateway(make_world(), ledger_connect())
    held = gateway.hold(1_000)
    assert isinstance(held, Held)
    gateway.resolve(held, 1)
    return gateway


def rows() -> list[tuple[str, bool, int]]:
    found = Verification.objects.order_by("pk")
    return [(row.started_by, row.is_full, row.finding_count) for row in found]


@contextmanager
def another_run(kind: str, database: Database, data_dir: Path) -> Iterator[None]:
    """Hold the lock of a run, as another worker would."""
    if connection.vendor == "postgresql":
        other = database.connect()
        other.execute("SELECT pg_advisory_lock(%s)", (LOCKS[kind],))
        yield
        other.execute("SELECT pg_advisory_unlock(%s)", (LOCKS[kind],))
        other.close()
    else:
        descriptor = os.open(data_dir / f"verification-{kind}.lock", os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
        os.close(descriptor)


@pytest.mark.parametrize(("kind", "other"), [("recent", "full"), ("full", "recent")])
def test_a_run_that_finds_another_one_of_its_kind_returns_at_once(
    committed_db: Database, data_dir: Path, kind: str, other: str
) -> None:
    with another_run(kind, committed_db, data_dir):
        assert TASKS[kind]() == 0
        assert rows() == []
        # A full one takes long: what is new is verified meanwhile.
        TASKS[other]()
        assert rows() == [("schedule", other == "full", 0)]

    TASKS[kind]()

    assert len(rows()) == 2


def test_everything_is_verified_once_a_day() -> None:
    verify_full()
    verify_full()
    assert rows() == [("schedule", True, 0)]

    # Whoever started the worker anew, or ran the command, changes nothing about it.
    Verification.objects.update(started_at=datetime.now(UTC) - timedelta(hours=23))
    verify_full()
    assert len(rows()) == 1
    Verification.objects.update(started_at=datetime.now(UTC) - timedelta(hours=25))
    verify_full()
    verify_full()

    assert rows() == [("schedule", True, 0), ("schedule", True, 0)]
    # One of the future was written by a clock that was ahead.
    Verification.objects.update(started_at=datetime.now(UTC) + timedelta(days=300))
    verify_full()
    assert len(rows()) == 3


def test_the_database_alone_puts_no_verification_off(data_dir: Path) -> None:
    noted = data_dir / "verified-everything-at"
    verify_full()
    began_at = Verification.objects.get().started_at
    assert noted.read_text() == f"{began_at.isoformat()}\n"
    noted.unlink()

    verify_full()
    verify_full()

    assert rows() == [("schedule", True, 0), ("schedule", True, 0)]


@pytest.mark.parametrize(
    ("noted", "is_due"),
    [
        (lambda now: now - timedelta(hours=23), False),
        (lambda now: now - timedelta(hours=25), True),
        (lambda now: now + timedelta(hours=1), True),
        (lambda now: "yesterday", True),
    ],
    ids=["today", "before", "in the future", "damaged"],
)
def test_what_is_noted_beside_the_database_counts(
    data_dir: Path, noted: Callable[[datetime], object], is_due: bool
) -> None:
    verify_full()
    (data_dir / "verified-everything-at").write_text(f"{noted(datetime.now(UTC))}\n")

    verify_full()

    assert len(rows()) == 1 + is_due


def test_what_only_a_full_run_can_find_is_logged_and_on_record(
    committed_db: Database, caplog: pytest.LogCaptureFixture
) -> None:
    verify_recent()
    Tamper(committed_db).run("UPDATE audit_apirequest SET user_agent = 'x'")
    assert verify_recent() == 0

    assert verify_full() == 1

    assert rows() == [("schedule", False, 0), ("schedule", False, 0), ("schedule", True, 1)]
    assert Verification.objects.latest("pk").findings.startswith("I-68 incarnation ")
    (told,) = [record for record in caplog.records if record.levelname == "CRITICAL"]
    assert told.getMessage().startswith("the ledger is off: I-68 incarnation ")
