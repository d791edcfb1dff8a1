"""A gateway whose event loop stands still for good ends, so that it can be started again."""

from __future__ import annotations

import time
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
CONSTANTS = {**FAST, "apps.proxy.management.commands.serve:HANG_SECONDS": HANG_SECONDS}


def test_a_gateway_lives_on_until_it_hangs_and_says_where(
    committed_db: Database, tmp_path: Path
) -> None:
    gateway = GatewayProcess.start(
        tmp_path,
        committed_db,
        constants=CONSTANTS,
        plant=["tests.e2e.planted:hang_when_asked_for_health"],
    )
    try:
        until = time.monotonic() + 1.5 * HANG_SECONDS
        wait_until(
            lambda: gateway.get("/livez") == 200 and time.monotonic() > until,
            timeout_seconds=30,
            what="more than the time of a hang",
            pause_seconds=0.1,
        )
        with RawConnection(gateway.port) as peer:
            peer.send(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
            status = gateway.process.wait(30)
    finally:
        gateway.kill()

    assert status == 1
    assert "Timeout (0:00:02)!" in gateway.log()
    assert "in hang" in gateway.log()
