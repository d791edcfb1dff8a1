"""One database and one world for all tests of a module about the whole REST API."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.rest.world import RestWorld, build_world
from tests.support.databases import Database
from tests.support.gateway import DemoThread


@pytest.fixture(scope="module")
def world(module_db: Database) -> Iterator[RestWorld]:
    """Return one of everything, with secrets that must not be seen. Leave it as it is."""
    provider = DemoThread()
    yield build_world(base_url=provider.base_url)
    provider.stop()
