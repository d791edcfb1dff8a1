"""A fresh Redis for each test that asks for one."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from apps.quotas.tests.redis_kit import Server, free_port, running_redis


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running_redis(free_port(), tmp_path) as running:
        yield running
