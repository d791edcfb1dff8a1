"""Disks that are full or do not keep what they are given (F28, F29, F93, F94)."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import orjson
import pytest

from apps.audit.models import APIRequest
from apps.billing.models import Account
from tests.faults.load import first_success_after, steady_calls
from tests.faults.machine import Ballast, failing_fsyncs, needs_strace, small_disk
from tests.faults.site import SHORT_LEASE, Site, chat
from tests.support.databases import Database, TestDatabases
from tests.support.processes import wait_until

KILLS = int(os.environ.get("KILLS") or "200")
LOOP = (sys.executable, "-m", "tests.faults.ledger_loop")
FULL_SECONDS = 6.0
BACK_SECONDS_MAX = 10.0


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """Mount a disk of 40 MiB."""
    with small_disk(tmp_path / "disk", 40) as folder:
        yield folder


@pytest.fixture
def site_on_disk(
    disk: Path,
    committed_db: Database,
    test_databases: TestDatabases,
    tmp_path: Path,
    fault_report: Callable[[str], None],
) -> Iterator[Site]:
    """A site whose SQLite file is on the small disk."""
    path = disk / "gateway.sqlite3"
    shutil.copyfile(committed_db.name, path)
    database = replace(committed_db, name=str(path))
    test_databases.adopt(database)
    with test_databases.selected(database):
        site = Site(tmp_path, database, fault_report)
        try:
            site.start_provider()
            yield site
        finally:
            site.stop()


def check_file(path: str) -> None:
    file = sqlite3.connect(path)
    try:
        assert file.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    finally:
        file.close()


@pytest.mark.sqlite
def test_the_disk_of_the_database_is_full_for_a_while(site_on_disk: Site, disk: Path) -> None:
    site = site_on_disk
    payer, quick = site.make_payer(), site.make_model("tokens=5")
    streaming = site.make_model("tokens=40,pace=0.1")
    (gateway,) = site.start_gateways("a", environment={"PAYLOADS": "off"})
    site.crowd.call(gateway.url, payer.key, chat(streaming, stream=True), count=20)
    wait_until(lambda: site.crowd.streaming == 20, timeout_seconds=20, what="the streams")
    ballast = Ballast(disk)

    with steady_calls(site, [gateway], payer, quick, 4) as outcomes:
        time.sleep(0.5)
        ballast.fill()
        full_at = time.monotonic()
        time.sleep(FULL_SECONDS)
        ballast.remove()
        healed_at = time.monotonic()
        time.sleep(3.0)
    streams = site.crowd.wait(60)

    during = [one for one in outcomes if full_at + 0.5 < one.ended_at - one.seconds < healed_at - 2]
    assert {one.status for one in outcomes} == {200, 503}
    assert {one.status for one in during} == {503}
    assert [one.is_whole for one in streams] == [True] * 20
    back = first_success_after(outcomes, healed_at)
    assert back < BACK_SECONDS_MAX
    check_file(site.database.name)
    site.check_books(
        f"F28 SQLite's disk full, calls again after {back:.1f} s",
        [*streams, *outcomes],
        healed_at=healed_at,
    )


@needs_strace
@pytest.mark.sqlite
def test_a_disk_that_cannot_sync_acknowledges_nothing(site: Site, tmp_path: Path) -> None:
    payer, quick = site.make_payer(), site.make_model("tokens=5")
    (gateway,) = site.start_gateways("a")

    with steady_calls(site, [gateway], payer, quick, 4) as outcomes:
        time.sleep(0.5)
        with failing_fsyncs(gateway.process.pid, tmp_path / "strace.log"):
            failing_from = time.monotonic()
            time.sleep(FULL_SECONDS)
            failing_until = time.monotonic()
        healed_at = time.monotonic()
        time.sleep(4.0)

    began = [(one.ended_at - one.seconds, one) for one in outcomes]
    during = [one for at, one in began if failing_from + 0.5 < at < failing_until - 3.0]
    assert "EIO" in (tmp_path / "strace.log").read_text()
    # Nothing that was not on the disk was called done.
    assert {one.status for one in during} == {503}
    assert {one.status for one in outcomes} <= {200, 503}
    back = first_success_after(outcomes, healed_at)
    assert back < BACK_SECONDS_MAX
    check_file(site.database.name)
    site.check_books(
        f"F28 fsync fails with EIO, calls again after {back:.1f} s", outcomes, healed_at=healed_at
    )


@pytest.mark.sqlite
def test_a_writer_killed_during_its_commits_200_times_loses_none_of_them(site: Site) -> None:
    payer = site.make_payer()
    clearing = Account.objects.get(kind="clearing", customer=None)

    ended = subprocess.run(
        [*LOOP, site.database.name, str(clearing.pk), str(payer.wallet.pk), str(KILLS), "1"],
        stdout=subprocess.PIPE,
        check=True,
        timeout=300,
    )

    figures = orjson.loads(ended.stdout)
    assert (figures["unsound"], figures["lost"]) == (0, 0)
    assert figures["acknowledged"] >= KILLS
    site.check_books(
        f"F29 kill -9 during {KILLS} commits, {figures['acknowledged']} acknowledged",
        [],
        healed_at=time.monotonic(),
        faults=KILLS,
    )


def test_a_full_disk_of_the_log_is_not_noticed_by_clients(site: Site) -> None:
    payer = site.make_payer()
    good, bad = site.make_model("tokens=5"), site.make_model("fault=cut_after(4)")
    log = site.directory / "a" / "stderr.log"
    log.parent.mkdir()
    log.symlink_to("/dev/full")
    (gateway,) = site.start_gateways("a")

    # Each of these is a line, or two.
    site.crowd.call(gateway.url, payer.key, chat(bad, stream=True), count=50)
    site.crowd.call(gateway.url, payer.key, chat(good), count=50)
    outcomes = site.crowd.wait(60)
    healed_at = time.monotonic()
    answers = Counter(one.status for one in outcomes)
    gateway.stop()

    assert answers == {200: 100}
    assert sum(one.is_whole for one in outcomes) == 50
    rows = APIRequest.objects.values_list("state", flat=True)
    assert Counter(rows) == {"completed": 50, "upstream_interrupted": 50}
    assert not site.directory.joinpath("a", "stderr.log").is_file()
    site.check_books("F93 the log's disk is full", outcomes, healed_at=healed_at)


@pytest.mark.postgres
def test_a_full_disk_of_the_journal_keeps_settlements_in_memory_until_there_is_room(
    own_site: Site, disk: Path
) -> None:
    site, server = own_site, own_site.database.server
    assert server is not None
    payer, quick = site.make_payer(), site.make_model("tokens=5")
    streaming = site.make_model("tokens=20,pace=0.1")
    ballast = Ballast(disk)
    (gateway,) = site.start_gateways(
        "a", plant=[SHORT_LEASE], environment={"DATA_DIR": str(disk / "data")}
    )
    site.crowd.call(gateway.url, payer.key, chat(streaming, stream=True), count=30)
    wait_until(lambda: site.crowd.streaming == 30, timeout_seconds=20, what="the streams")
    ballast.fill()

    server.stop("immediate")
    time.sleep(7.0)
    # All have been answered by their provider, and none is called complete.
    waiting = site.crowd.streaming
    site.crowd.call(gateway.url, payer.key, chat(quick), count=5)
    is_told = "the journal is full" in gateway.log()
    server.restart()
    healed_at = time.monotonic()
    outcomes = site.crowd.wait(60)
    ballast.remove()

    assert waiting == 30
    assert is_told
    assert Counter(one.status for one in outcomes) == {200: 30, 503: 5}
    assert sum(one.is_whole for one in outcomes) == 30
    site.check_books("F94 the journal's disk is full", outcomes, healed_at=healed_at, faults=2)
