"""A fresh Redis, a model group, and who administers, for each test that asks for one."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from rest_framework.test import APIClient

from apps.model_groups.models import ModelGroup
from apps.quotas.tests.redis_kit import Server, running_redis
from tests.support.processes import free_port


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with running_redis(free_port(), tmp_path) as running:
        yield running


@pytest.fixture
def group(db: None) -> ModelGroup:
    """Return a model group."""
    return ModelGroup.objects.create(name="group")


@pytest.fixture
def admin(client: APIClient) -> APIClient:
    """Return the client of the administrator, for tests in which others have theirs, too."""
    return client
