"""Installations to back up, empty ones to restore into, a journal, a connection, who tampers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest
from pytest_django import DjangoDbBlocker, Settings

from apps.billing.journal import Journal
from apps.billing.ledger.postgres import connect
from apps.billing.ledger.store import Engine
from apps.billing.tests import backup_kit as kit
from apps.billing.tests.backup_kit import Elsewhere, Installation, Original
from tests.support.databases import Database, TestDatabases
from tests.support.tampering import Tamper
from tests.support.world import UNIT, Gateway, make_world


@pytest.fixture
def installation(ledger_connect: Callable[[], Engine], data_dir: Path) -> Installation:
    """An installation with history, of this test alone."""
    return kit.furnish(Gateway(make_world(), ledger_connect()), data_dir)


@pytest.fixture
def gateway(ledger_connect: Callable[[], Engine]) -> Gateway:
    """A gateway whose customer has 100 units."""
    return Gateway(make_world(100 * UNIT), ledger_connect())


@pytest.fixture
def raw(committed_db: Database) -> Iterator[psycopg.Connection[Any]]:
    """A connection as the ledger's writer has it, on PostgreSQL."""
    assert committed_db.server is not None
    opened = connect(committed_db.server.parameters(committed_db.name))
    yield opened
    opened.close()


@pytest.fixture
def tamper(committed_db: Database) -> Tamper:
    """Somebody who can write the database as its owner."""
    return Tamper(committed_db)


@pytest.fixture(scope="module")
def _original(
    test_databases: TestDatabases,
    django_db_blocker: DjangoDbBlocker,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Original]:
    with django_db_blocker.unblock():
        database = test_databases.clone()
        with test_databases.selected(database):
            original = kit.make_original(database, tmp_path_factory.mktemp("original"))
        yield original
        test_databases.drop(database)


@pytest.fixture
def journal(tmp_path: Path) -> Iterator[Journal]:
    """An empty journal."""
    journal = Journal(tmp_path)
    yield journal
    journal.close()


@pytest.fixture
def original(
    _original: Original,
    test_databases: TestDatabases,
    django_db_blocker: DjangoDbBlocker,
    settings: Settings,
) -> Iterator[Original]:
    """Select an installation with history and a backup of it. Tests leave both as they are."""
    settings.DATA_DIR = _original.installation.data_dir
    with django_db_blocker.unblock(), test_databases.selected(_original.database):
        yield _original


@pytest.fixture
def target(tmp_path: Path) -> Path:
    """Where a backup goes."""
    folder = tmp_path / "backups"
    folder.mkdir()
    return folder / "backup.tar.gz"


@pytest.fixture
def elsewhere(test_databases: TestDatabases, tmp_path: Path) -> Elsewhere:
    """Return what lets Django use an empty installation for a while."""
    return partial(kit.empty_installation, test_databases, tmp_path)


@pytest.fixture(scope="module")
def _nowhere(
    test_databases: TestDatabases, django_db_blocker: DjangoDbBlocker
) -> Iterator[Database]:
    with django_db_blocker.unblock():
        database = kit.make_empty_database()
        test_databases.adopt(database)
        yield database
        test_databases.drop(database)


@pytest.fixture
def nowhere(
    _nowhere: Database, test_databases: TestDatabases, tmp_path: Path
) -> Callable[[], AbstractContextManager[Database]]:
    """Return what lets Django use an empty installation that stays empty."""
    return partial(kit.selected_installation, test_databases, _nowhere, tmp_path)
