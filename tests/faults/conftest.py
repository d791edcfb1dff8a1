"""Sites for accidents, on the session's database or on a PostgreSQL server of their own."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

import pytest

# Nothing that imports models: this file may be read before the settings are.
if TYPE_CHECKING:
    from pytest_django import DjangoDbBlocker

    from tests.faults.site import Site
    from tests.support.databases import Database, TestDatabases
    from tests.support.postgres import PostgresServer

_TEMPLATE = "template_faults"
_numbers = itertools.count(1)
_lines: list[str] = []


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave all of these to `make test-long`."""
    folder = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(folder):
            item.add_marker("long")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print one line a fault."""
    for line in _lines:
        terminalreporter.write_line(line)


@pytest.fixture
def fault_report() -> Callable[[str], None]:
    """Return what takes the line of a fault."""
    return _report


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> Random:
    """What is drawn at random, from a seed that is told, also where the test fails: SEED."""
    from tests.support.seeds import draw_seed

    seed = draw_seed()
    told = f"{request.node.name}: SEED={seed}"
    print(told)
    _report(told)
    return Random(f"{seed} {request.node.name}")


@pytest.fixture
def site(committed_db: Database, tmp_path: Path) -> Iterator[Site]:
    """A site on a database of the session's server."""
    yield from _open(committed_db, tmp_path)


@pytest.fixture(scope="session")
def own_server(
    test_databases: TestDatabases,
    django_test_environment: None,
    django_db_blocker: DjangoDbBlocker,
) -> Iterator[PostgresServer]:
    """A PostgreSQL server that may be killed, with a migrated template."""
    from tests.support.environment import session_directory, worker_name
    from tests.support.postgres import PostgresServer

    server = PostgresServer.start(session_directory() / f"postgres-{worker_name()}")
    try:
        with django_db_blocker.unblock():
            test_databases.migrate_on(server, _TEMPLATE)
        yield server
    finally:
        server.stop("immediate")


@pytest.fixture
def own_site(
    own_server: PostgresServer,
    test_databases: TestDatabases,
    django_db_blocker: DjangoDbBlocker,
    tmp_path: Path,
) -> Iterator[Site]:
    """A site on a PostgreSQL server that the test may harm."""
    from tests.support.databases import Database

    name = f"faults_{next(_numbers)}"
    own_server.execute(f'CREATE DATABASE "{name}" TEMPLATE "{_TEMPLATE}"')
    database = Database("postgres", name, own_server)
    test_databases.adopt(database)
    with django_db_blocker.unblock(), test_databases.selected(database):
        yield from _open(database, tmp_path)


def _open(database: Database, tmp_path: Path) -> Iterator[Site]:
    from tests.faults.site import Site

    site = Site(tmp_path, database, _report)
    try:
        site.start_provider()
        yield site
    finally:
        site.stop()


def _report(line: str) -> None:
    _lines.append(line)
