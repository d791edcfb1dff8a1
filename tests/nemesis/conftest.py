"""A world that may be harmed: its database on a small disk of its own, where one can be mounted."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final

import pytest

# Nothing that imports models: this file may be read before the settings are.
if TYPE_CHECKING:
    from pytest_django import DjangoDbBlocker

    from tests.nemesis.faults import World
    from tests.support.databases import Database, TestDatabases
    from tests.support.disk import SmallDisk

_REAL_LEASE_FROM_SECONDS: Final = 600.0
_POSTGRES: Final = """
max_wal_size = 64MB
min_wal_size = 32MB
"""
_lines: list[str] = []


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the run was and what came out of it."""
    for line in _lines:
        terminalreporter.write_line(line)


@pytest.fixture
def seed() -> int:
    """What the whole schedule follows from: SEED, or one that nobody has chosen."""
    from tests.support.seeds import draw_seed

    return draw_seed()


@pytest.fixture
def seconds() -> float:
    """How long the load runs under the schedule: SECONDS."""
    return float(os.environ.get("SECONDS") or 300)


@pytest.fixture
def report() -> list[str]:
    """Take lines that are printed at the end, whatever happens."""
    return _lines


@pytest.fixture
def directory(seed: int, request: pytest.FixtureRequest) -> Iterator[Path]:
    """Give a directory for logs, which stays where the run failed."""
    path = Path(tempfile.mkdtemp(prefix=f"nemesis-{seed}-"))
    path.chmod(0o755)  # The database's server may run as somebody else.
    yield path
    if getattr(request.node, "has_passed", False):
        shutil.rmtree(path, ignore_errors=True)
    else:
        _lines.append(f"logs are kept in {path}")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:
    """Let fixtures know whether their test has passed."""
    outcome = yield
    result = outcome.get_result()  # type: ignore[attr-defined]  # of pluggy
    if result.when == "call":
        item.has_passed = result.passed  # type: ignore[attr-defined]  # our own


@pytest.fixture
def disk(directory: Path, seconds: float, engine_name: str) -> Iterator[SmallDisk | None]:
    """Give a small disk; None, with a line in the report, where none can be mounted."""
    from tests.support.disk import CannotMount, SmallDisk

    megabytes = int((300 if engine_name == "postgres" else 60) + seconds)
    try:
        disk = SmallDisk.make(directory / "disk", megabytes)
    except CannotMount as error:
        _lines.append(f"NO FULL DISK: none can be mounted here ({error})")
        yield None
        return
    try:
        yield disk
    finally:
        disk.remove()


@pytest.fixture
def database(
    directory: Path,
    disk: SmallDisk | None,
    test_databases: TestDatabases,
    django_test_environment: None,
    django_db_blocker: DjangoDbBlocker,
) -> Iterator[Database]:
    """Give a database on the disk, selected."""
    from tests.support.databases import Database
    from tests.support.postgres import PostgresServer

    place = disk.directory if disk is not None else directory
    with django_db_blocker.unblock():
        if test_databases.engine == "sqlite":
            path = place / "database.sqlite3"
            shutil.copyfile(test_databases.clone().name, path)
            database = Database("sqlite", str(path))
            test_databases.adopt(database)
            with test_databases.selected(database):
                yield database
            return
        server = PostgresServer.start(place / "postgres", _POSTGRES)
        try:
            database = test_databases.migrate_on(server, "nemesis")
            with test_databases.selected(database):
                yield database
        finally:
            with contextlib.suppress(Exception):  # a fault may have ended it already
                server.stop("immediate")


@pytest.fixture
def world(
    directory: Path, database: Database, disk: SmallDisk | None, seconds: float
) -> Iterator[World]:
    """Give two gateways on PostgreSQL or one on SQLite, Redis, and the demo provider."""
    from tests.faults.planted import SHORT_LEASE_SECONDS
    from tests.faults.site import SHORT_LEASE, Site
    from tests.nemesis.faults import World, heal_all
    from tests.nemesis.keeper import Keeper, can_fake_time
    from tests.support.chaos_proxy import ChaosProxy
    from tests.support.redis import RedisServer

    is_short = seconds < _REAL_LEASE_FROM_SECONDS
    if not can_fake_time():
        _lines.append("NO WRONG CLOCKS: libfaketime is not installed")
    site = Site(directory, database, _lines.append)
    site.start_provider()
    far = ChaosProxy(site.provider_port)
    far.start()
    redis = RedisServer.start(directory)
    # On SQLite what a gateway keeps lies beside its database, and both fill up together.
    place = disk.directory if disk is not None and database.server is None else directory
    keepers = {
        name: Keeper(
            name,
            directory / name,
            database,
            environment={"REDIS_URL": redis.url, "DATA_DIR": str(place / f"data-{name}")},
            plant=[SHORT_LEASE] if is_short else [],
        )
        for name in (("a", "b") if database.server is not None else ("a",))
    }
    lease = float(SHORT_LEASE_SECONDS if is_short else 30)
    world = World(site, keepers, far, redis, disk, lease)
    try:
        yield world
    finally:
        heal_all(world)
        for keeper in keepers.values():
            keeper.close()
        site.stop()
        far.stop()
        world.redis.stop()
