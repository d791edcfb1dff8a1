"""One database and one world for all tests of a module about the whole REST API."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pytest_django import DjangoDbBlocker

from tests.rest.world import RestWorld, build_world
from tests.support.databases import Database, TestDatabases
from tests.support.gateway import DemoThread


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
def world(module_db: Database) -> Iterator[RestWorld]:
    """Return one of everything, with secrets that must not be seen. Leave it as it is."""
    provider = DemoThread()
    yield build_world(base_url=provider.base_url)
    provider.stop()
