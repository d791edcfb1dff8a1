"""Workers that die, come twice, or lose their queue; no money depends on one (F06 to F08, F45)."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import redis

from apps.audit.models import APIRequest
from apps.billing.models import Hold, Incarnation
from tests.faults.site import SHORT_LEASE, Payer, Site, chat
from tests.faults.worker import BATCH, EXIT_CODE
from tests.support.environment import ENCRYPTION_KEY, SECRET_KEY
from tests.support.processes import wait_until
from tests.support.redis import RedisServer, is_installed

pytestmark = pytest.mark.postgres
STREAMS = 20
RESOLVED_SECONDS_MAX = 60.0
WORKER = (sys.executable, "-m", "tests.faults.worker")

Start = Callable[..., subprocess.Popen[bytes]]


@pytest.fixture
def start_worker(site: Site, data_dir: Path, tmp_path: Path) -> Iterator[Start]:
    """Return what starts a worker; the books are checked by the anchors of all of them."""
    started: list[subprocess.Popen[bytes]] = []

    def start(*plants: str, redis_url: str = "") -> subprocess.Popen[bytes]:
        with (tmp_path / "worker.log").open("ab") as log:
            process = subprocess.Popen(
                [*WORKER, *plants],
                env=worker_environment(site, data_dir, redis_url),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()


def worker_environment(site: Site, data_dir: Path, redis_url: str) -> dict[str, str]:
    return {
        **os.environ,
        "DATA_DIR": str(data_dir),
        "DATABASE_URL": site.database.url,
        "REDIS_URL": redis_url,
        "SECRET_KEY": SECRET_KEY,
        "ENCRYPTION_KEY": ENCRYPTION_KEY,
    }


def kill_with_streams(site: Site) -> Payer:
    """Kill a gateway with open streams; nobody but a worker can end them."""
    payer, streaming = site.make_payer(), site.make_model("tokens=300,pace=0.1")
    (gateway,) = site.start_gateways("a", plant=[SHORT_LEASE])
    site.crowd.call(gateway.url, payer.key, chat(streaming, stream=True), count=STREAMS)
    wait_until(lambda: site.crowd.streaming == STREAMS, timeout_seconds=20, what="the streams")
    gateway.kill()
    site.crowd.wait(20)
    return payer


def test_what_a_killed_worker_has_left_is_done_once_by_two_others(
    site: Site, start_worker: Start, data_dir: Path
) -> None:
    kill_with_streams(site)
    begun = time.monotonic()

    killed = start_worker("die_in_the_middle")
    assert killed.wait(RESOLVED_SECONDS_MAX) == EXIT_CODE
    left = Hold.objects.count()
    start_worker()
    start_worker()
    wait_until(
        lambda: not Hold.objects.exists(),
        timeout_seconds=RESOLVED_SECONDS_MAX,
        what="the end of all holds",
    )
    resolved_after = time.monotonic() - begun
    anchors = data_dir / "anchors" / "anchors.jsonl"
    wait_until(
        lambda: anchors.exists() and anchors.read_bytes().count(b"\n") >= 2,
        timeout_seconds=20,
        what="signed heads",
    )

    assert left == STREAMS - BATCH
    rows = APIRequest.objects.values_list("state", flat=True)
    assert list(rows) == ["interrupted"] * STREAMS
    assert Incarnation.objects.filter(kind="worker").count() >= 2
    site.check_books(
        f"F06, F08 worker killed after {BATCH} of {STREAMS} holds, two others did the rest after "
        f"{resolved_after:.1f} s and signed with both beats",
        [],
        healed_at=time.monotonic(),
        faults=2,
    )


@pytest.mark.redis
@pytest.mark.skipif(not is_installed(), reason="redis-server is not installed")
def test_a_queue_that_is_lost_delays_nothing_that_matters(
    site: Site, start_worker: Start, tmp_path: Path
) -> None:
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer.start(folder)
    client = redis.Redis.from_url(server.url)
    try:
        # Its beat fills the queue, and nobody takes anything from it.
        first = start_worker(redis_url=server.url)
        wait_until(lambda: bool(client.keys()), timeout_seconds=30, what="a queue")
        first.kill()
        first.wait()
        kill_with_streams(site)

        client.flushall()
        lost_at = time.monotonic()
        start_worker(redis_url=server.url)
        wait_until(
            lambda: not Hold.objects.exists(),
            timeout_seconds=RESOLVED_SECONDS_MAX,
            what="the end of all holds",
        )
        resolved_after = time.monotonic() - lost_at
    finally:
        client.close()
        server.stop()

    rows = APIRequest.objects.values_list("state", flat=True)
    assert list(rows) == ["interrupted"] * STREAMS
    site.check_books(
        f"F45 queue lost, holds of a dead gateway resolved after {resolved_after:.1f} s",
        [],
        healed_at=lost_at,
    )
