"""What a gateway does in the background, against a database that does not answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator

import psycopg
import pytest
from django.db import OperationalError

from apps.api_keys.models import APIKey
from apps.billing.tests.writer_kit import in_thread
from apps.proxy import loader
from apps.proxy.gateway import Gateway
from apps.proxy.models import ConfigurationVersion
from tests.support.databases import Database
from tests.support.world import make_world

# Longer than any wait here; a test that needs it has failed.
HANGING_SECONDS = 10.0


@pytest.fixture
def release() -> Iterator[threading.Event]:
    """What a read that hangs waits for."""
    event = threading.Event()
    yield event
    event.set()


async def test_a_read_of_the_configuration_that_hangs_is_given_up(release: threading.Event) -> None:
    gateway = Gateway()

    with pytest.raises(TimeoutError):
        await gateway._load(0.05, release.wait, HANGING_SECONDS)

    assert not release.is_set()


async def test_a_read_of_the_configuration_that_hangs_does_not_delay_the_next(
    release: threading.Event,
) -> None:
    gateway = Gateway()
    with pytest.raises(TimeoutError):
        await gateway._load(0.05, release.wait, HANGING_SECONDS)

    found = await gateway._load(HANGING_SECONDS / 2, lambda: "the configuration")

    assert found == "the configuration"


@pytest.mark.parametrize("error", [OperationalError, psycopg.OperationalError])
async def test_after_a_read_that_failed_the_whole_configuration_is_read(
    committed_db: Database, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    """The database that answers next may lack the last changes, and have others in their place."""
    key = (await in_thread(make_world)()).key
    gateway = Gateway()
    await gateway._update_snapshot()
    snapshot = await gateway._update_snapshot()

    def switch_off() -> None:
        APIKey.objects.filter(pk=key.pk).update(is_active=False)
        ConfigurationVersion.objects.update(version=snapshot.version)

    def fail(since: int) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(loader, "load_delta", fail)
        with pytest.raises(error):
            await gateway._update_snapshot()
    await in_thread(switch_off)()
    found = await gateway._update_snapshot()

    assert found.version == snapshot.version
    assert [one.is_active for one in found.keys.values() if one.id == key.pk] == [False]


async def test_a_database_that_goes_away_while_all_is_read_is_one_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail() -> None:
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(loader, "load_snapshot", fail)
    gateway = Gateway()
    following = asyncio.create_task(gateway._follow_configuration())
    async with asyncio.timeout(10):
        while not caplog.records:  # noqa: ASYNC110 (nobody tells when)
            await asyncio.sleep(0.01)
    following.cancel()

    assert caplog.records[0].getMessage() == "the configuration cannot be read: OperationalError"
    assert caplog.records[0].exc_info is None
