"""Gateways that are told to stop in every way, and such that cannot start (F05, F13)."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from apps.audit.models import APIRequest
from apps.billing.models import Hold, Incarnation
from tests.faults.site import SHORT_LEASE, Site, chat
from tests.support.environment import ENCRYPTION_KEY, SECRET_KEY
from tests.support.processes import wait_until

STREAMS = 20
DRAIN_SECONDS = 5
STARTS = 3
BETWEEN_SECONDS = 0.7
WAYS = {
    "SIGTERM twice": (signal.SIGTERM, signal.SIGTERM),
    "SIGINT": (signal.SIGINT,),
    "SIGINT twice": (signal.SIGINT, signal.SIGINT),
    "SIGKILL in the drain": (signal.SIGTERM, signal.SIGKILL),
}
# What a signal that came once, or the same one again, leaves: the drain goes its way.
ORDERLY = ("SIGTERM twice", "SIGINT")
BAD = {
    "ENCRYPTION_KEY": "too-short",
    "SECRET_KEY": "short",
    "DATABASE_URL": "oracle://nobody@127.0.0.1/none",
    "DRAIN_SECONDS": "soon",
}


@pytest.mark.parametrize("way", WAYS)
def test_a_gateway_that_is_stopped_in_any_way_loses_nothing(site: Site, way: str) -> None:
    long, short = site.make_model("tokens=200,pace=0.1"), site.make_model("tokens=20,pace=0.1")
    payer = site.make_payer()
    (gateway,) = site.start_gateways(
        "a", plant=[SHORT_LEASE], environment={"DRAIN_SECONDS": str(DRAIN_SECONDS)}
    )
    for model in (long, short):
        site.crowd.call(gateway.url, payer.key, chat(model, stream=True), count=STREAMS)
    wait_until(lambda: site.crowd.streaming == 2 * STREAMS, timeout_seconds=20, what="the streams")

    begun = time.monotonic()
    for number in WAYS[way]:
        gateway.process.send_signal(number)
        time.sleep(BETWEEN_SECONDS)
    gateway.process.wait(DRAIN_SECONDS + 10)
    stopped_after = time.monotonic() - begun
    outcomes = site.crowd.wait(30)
    site.start_gateways("a", plant=[SHORT_LEASE])

    long_ones = APIRequest.objects.filter(model_id=long.pk)
    wait_until(lambda: not Hold.objects.exists(), timeout_seconds=30, what="the end of all holds")
    states = set(long_ones.values_list("state", flat=True))
    # Nobody was told that a long stream was complete.
    assert sum(one.is_whole for one in outcomes) == (STREAMS if way in ORDERLY else 0)
    assert long_ones.count() == STREAMS
    if way in ORDERLY:
        assert states == {"gateway_drained"}
    else:
        assert states <= {"gateway_drained", "interrupted"}
    site.check_books(
        f"F05 {way}, ended after {stopped_after:.1f} s", outcomes, healed_at=time.monotonic()
    )


@pytest.mark.parametrize("name", BAD)
def test_a_gateway_with_a_setting_that_cannot_be_right_starts_in_vain_and_touches_nothing(
    site: Site, name: str
) -> None:
    before = _figures(site)

    for _ in range(STARTS):
        ended = _serve(site.directory / "bad", {**_environment(site), name: BAD[name]})
        lines = ended.stderr.decode().splitlines()
        assert ended.returncode != 0
        assert name in lines[-1]
        assert not any("Traceback" in line for line in lines)
        assert BAD[name] not in ended.stderr.decode() or name == "DRAIN_SECONDS"

    assert _figures(site) == before
    # The right one makes it serve.
    (gateway,) = site.start_gateways("a")
    assert gateway.get("/readyz") == 200
    site.report(f"F13 {name}: {STARTS} starts in vain, one line each: {lines[-1][:80]}")


def _environment(site: Site) -> dict[str, str]:
    return {
        **os.environ,
        "DATA_DIR": str(site.directory / "bad"),
        "DATABASE_URL": site.database.url,
        "SECRET_KEY": SECRET_KEY,
        "ENCRYPTION_KEY": ENCRYPTION_KEY,
    }


def _serve(data_dir: Path, environment: dict[str, str]) -> subprocess.CompletedProcess[bytes]:
    data_dir.mkdir(mode=0o700, exist_ok=True)
    return subprocess.run(
        [sys.executable, "manage.py", "serve", "--port", "0"],
        env=environment,
        capture_output=True,
        timeout=30,
        check=False,
    )


def _figures(site: Site) -> tuple[int, int, list[str]]:
    journal = site.directory / "bad" / "journal"
    kept = sorted(one.name for one in journal.iterdir()) if journal.exists() else []
    return Incarnation.objects.count(), Hold.objects.count(), kept
