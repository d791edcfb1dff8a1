"""One gateway and one demo provider for the tests of a module; each test makes its own callers."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytest_django import DjangoDbBlocker

from tests.support.databases import Database, TestDatabases
from tests.support.gateway import Bench, DemoThread, open_bench


@pytest.fixture(scope="module")
def module_db(
    test_databases: TestDatabases, django_db_blocker: DjangoDbBlocker
) -> Iterator[Database]:
    """Give the tests of a module one database, in which they commit for real."""
    with django_db_blocker.unblock():
        database = test_databases.clone()
        with test_databases.selected(database):
            yield database
        test_databases.drop(database)


@pytest.fixture(scope="module")
def demo() -> Iterator[DemoThread]:
    """Run a demo provider."""
    provider = DemoThread()
    yield provider
    provider.stop()


@pytest.fixture(scope="module")
def module_bench(
    module_db: Database, demo: DemoThread, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Bench]:
    """Run a gateway."""
    bench = open_bench(tmp_path_factory.mktemp("gateway"), module_db, demo)
    yield bench
    bench.gateway.stop()


@pytest.fixture
def bench(module_bench: Bench) -> Iterator[Bench]:
    """Return the module's gateway and close what the test connected to it."""
    yield module_bench
    module_bench.close_clients()
