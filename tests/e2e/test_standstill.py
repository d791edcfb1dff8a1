"""A gateway whose event loop stands still for good ends, and none that was merely stopped."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.e2e.wire import RawConnection
from tests.support.databases import Database
from tests.support.gateway import FAST, GatewayProcess
from tests.support.processes import wait_until

# The event loop is no database's.
pytestmark = pytest.mark.sqlite

HANG_SECONDS: Final = 2.0
LOCKED_SECONDS: Final = 6.0
CONSTANTS = {
    **FAST,
    "apps.proxy.standstill:HANG_SECONDS": HANG_SECONDS,
    "apps.proxy.standstill:LOCKED_SECONDS": LOCKED_SECONDS,
}


@pytest.fixture
def gateway(committed_db: Database, tmp_path: Path) -> Iterator[GatewayProcess]:
    """Start a gateway that hangs when it is asked to."""
    process = GatewayProcess.start(
        tmp_path,
        committed_db,
        constants=CONSTANTS,
        plant=["tests.e2e.planted:hang_when_asked_for_health"],
    )
    yield process
    process.kill()


def _answers_for(gateway: GatewayProcess, seconds: float) -> None:
    until = time.monotonic() + seconds
    wait_until(
        lambda: gateway.get("/livez") == 200 and time.monotonic() > until,
        timeout_seconds=30,
        what="an answer at the end",
        pause_seconds=0.1,
    )


@pytest.mark.parametrize("path", ["/health", "/api/health"])
def test_a_gateway_that_hangs_ends_and_says_where(gateway: GatewayProcess, path: str) -> None:
    _answers_for(gateway, 1.5 * HANG_SECONDS)

    with RawConnection(gateway.port) as peer:
        peer.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        status = gateway.process.wait(30)

    assert status == 1
    assert "in hang" in gateway.log()


def test_a_gateway_that_was_stopped_for_longer_goes_on(gateway: GatewayProcess) -> None:
    _answers_for(gateway, 0.0)

    gateway.process.send_signal(signal.SIGSTOP)
    time.sleep((HANG_SECONDS + LOCKED_SECONDS) / 2)
    gateway.process.send_signal(signal.SIGCONT)

    _answers_for(gateway, 1.5 * HANG_SECONDS)
