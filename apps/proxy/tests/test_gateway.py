"""What a gateway does in the background, against a database that does not answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from apps.proxy.gateway import Gateway

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
