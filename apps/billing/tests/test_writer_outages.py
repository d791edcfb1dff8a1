"""What becomes of holds and settlements when the database fails."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from apps.billing.flushing import Flusher
from apps.billing.journal import Journal
from apps.billing.ledger.store import Engine
from apps.billing.ledger_thread import CONNECT_TRIES
from apps.billing.pending import Pace
from apps.billing.reaper import resolve_all
from apps.billing.tests.writer_kit import (
    WAIT_SECONDS,
    Switch,
    account,
    ends,
    in_thread,
    open_holds,
    place,
    resolve_of,
    running,
    until_stored,
)
from apps.billing.writer import LedgerUnavailable
from tests.support.databases import Database
from tests.support.processes import until
from tests.support.world import World, make_world

pytestmark = pytest.mark.usefixtures("committed_db")
WALLET = 1_000_000


@pytest.fixture
def world(committed_db: Database) -> World:
    """A customer with 1,000,000 nanos."""
    return make_world(WALLET)


@pytest.fixture
def switch(ledger_connect: Callable[[], Engine]) -> Switch:
    """The database, as the writer meets it."""
    return Switch(ledger_connect)


def copy_journal(source: Path, target: Path) -> None:
    (path,) = source.glob("*.jsonl")
    (target / "999-dead.jsonl").write_bytes(path.read_bytes())


async def test_without_a_database_holds_are_refused_at_once_and_settlements_wait(
    world: World, switch: Switch, tmp_path: Path
) -> None:
    async with running(switch.open, tmp_path) as writer:
        held = await place(writer, world)
        switch.is_down = True
        settling = asyncio.create_task(writer.resolve(resolve_of(world, held, 1)))
        await until(lambda: not writer.is_available)
        with pytest.raises(LedgerUnavailable):
            await place(writer, world)
        is_settled_meanwhile = settling.done()
        switch.is_down = False
        await settling

    assert not is_settled_meanwhile
    assert await in_thread(ends)() == [("completed", 1_000)]
    assert await in_thread(account)(world.wallet_id) == (WALLET - 1_000, 0)


@pytest.mark.parametrize("moment", ["breaks_before_commit", "breaks_after_commit"])
async def test_a_connection_that_breaks_once_is_not_noticed(
    world: World, switch: Switch, tmp_path: Path, moment: str
) -> None:
    async with running(switch.open, tmp_path, pace=Pace(duty=60)) as writer:
        setattr(switch, moment, 1)
        held = await place(writer, world)
        setattr(switch, moment, 1)
        await writer.resolve(resolve_of(world, held, 2))

    assert await in_thread(ends)() == [("completed", 2_000)]
    assert await in_thread(account)(world.wallet_id) == (WALLET - 2_000, 0)
    assert len(switch.engines) == 3


async def test_a_hold_in_doubt_is_refused_where_others_have_ended_its_lease(
    world: World, switch: Switch, tmp_path: Path, ledger_connect: Callable[[], Engine]
) -> None:
    def open_late() -> Engine:
        """Connect when another process has taken this one for dead and resolved its holds."""
        if switch.engines:
            engine = ledger_connect()
            engine.end(writer.incarnation_id)
            other = Flusher(engine)
            other.use_lease(
                engine.open_incarnation(kind="gateway", host="other", pid=1, lease_seconds=60)
            )
            resolve_all(engine, other, [writer.incarnation_id], now=datetime.now(UTC))
        return switch.open()

    async with running(open_late, tmp_path, pace=Pace(duty=60)) as writer:
        switch.breaks_after_commit = 1
        with pytest.raises(LedgerUnavailable):
            await place(writer, world)

    assert await in_thread(ends)() == [("interrupted", 0)]
    assert await in_thread(open_holds)() == set()
    assert await in_thread(account)(world.wallet_id) == (WALLET, 0)


async def test_connections_that_break_one_after_the_other_refuse_nobody(
    world: World, switch: Switch, tmp_path: Path
) -> None:
    async with running(switch.open, tmp_path, pace=Pace(hold=WAIT_SECONDS, duty=60)) as writer:
        switch.breaks_before_commit = 1
        switch.breaks_at_once = 10
        held = await place(writer, world)
        await writer.resolve(resolve_of(world, held, 2))

    assert await in_thread(ends)() == [("completed", 2_000)]
    assert len(switch.engines) == 12


async def test_where_no_connection_holds_the_calls_that_wait_are_refused(
    world: World, switch: Switch, tmp_path: Path
) -> None:
    async with running(switch.open, tmp_path, pace=Pace(hold=0.2, duty=60)) as writer:
        switch.breaks_before_commit = 1
        switch.breaks_at_once = sys.maxsize
        with pytest.raises(LedgerUnavailable):
            await place(writer, world)
        await until(lambda: not writer.is_available)
        switch.breaks_at_once = 0
        await until(lambda: writer.is_available)
        await place(writer, world)

    assert await in_thread(account)(world.wallet_id) == (WALLET, 1_000)


async def test_a_server_that_is_not_there_is_tried_before_anybody_is_refused(
    world: World, switch: Switch, tmp_path: Path
) -> None:
    async with running(switch.open, tmp_path, pace=Pace(hold=WAIT_SECONDS, duty=60)) as writer:
        switch.breaks_before_commit = 1
        switch.refuses_connections = CONNECT_TRIES - 1
        await place(writer, world)
        switch.breaks_before_commit = 1
        switch.refuses_connections = CONNECT_TRIES
        with pytest.raises(LedgerUnavailable):
            await place(writer, world)

    assert await in_thread(account)(world.wallet_id) == (WALLET, 1_000)


async def test_an_old_settlement_goes_to_the_journal_and_is_replayed_once(
    world: World, switch: Switch, tmp_path: Path
) -> None:
    pace = Pace(journal_after=0.05, duty=0.1)
    async with running(switch.open, tmp_path, pace=pace) as writer:
        held = await place(writer, world)
        switch.is_down = True
        await writer.resolve(resolve_of(world, held, 1))
        in_journal = writer.figures()["journal"]
        stored = await in_thread(ends)()
        switch.is_down = False
        await until_stored(ends, [("completed", 1_000)])
        await until(lambda: writer.figures()["journal"] == 0)

    assert (in_journal, stored) == (1, [])
    assert await in_thread(account)(world.wallet_id) == (WALLET - 1_000, 0)
    assert os.listdir(tmp_path) == []


async def test_a_replay_that_fails_leaves_the_journal_as_it_was(
    world: World, switch: Switch, tmp_path: Path
) -> None:
    pace = Pace(journal_after=0.05, duty=0.1)
    async with running(switch.open, tmp_path, pace=pace) as writer:
        held = await place(writer, world)
        switch.is_down = True
        await writer.resolve(resolve_of(world, held, 1))
        switch.breaks_before_commit = 1
        switch.is_down = False
        await until(lambda: switch.breaks_before_commit == 0)
        await until_stored(ends, [("completed", 1_000)])

    assert await in_thread(account)(world.wallet_id) == (WALLET - 1_000, 0)
    assert os.listdir(tmp_path) == []


async def test_a_full_journal_loses_nothing(world: World, switch: Switch, tmp_path: Path) -> None:
    journal = Journal(tmp_path, bytes_max=10)
    pace = Pace(journal_after=0.01, duty=0.1)
    async with running(switch.open, tmp_path, pace=pace, journal=journal) as writer:
        held = await place(writer, world)
        switch.is_down = True
        settling = asyncio.create_task(writer.resolve(resolve_of(world, held, 1)))
        await until(lambda: writer._is_journal_full)
        is_settled_meanwhile = settling.done()
        switch.is_down = False
        await settling

    assert not is_settled_meanwhile
    assert await in_thread(ends)() == [("completed", 1_000)]


async def test_a_writer_that_stops_without_a_database_leaves_its_settlements_to_the_next(
    world: World, switch: Switch, tmp_path: Path
) -> None:
    async with running(switch.open, tmp_path) as writer:
        held = await place(writer, world)
        switch.is_down = True
        settling = asyncio.create_task(writer.resolve(resolve_of(world, held, 1)))
        await until(lambda: not writer.is_available)
    await settling
    switch.is_down = False

    async with running(switch.open, tmp_path):
        await until_stored(ends, [("completed", 1_000)])

    assert await in_thread(account)(world.wallet_id) == (WALLET - 1_000, 0)
    assert os.listdir(tmp_path) == []


async def test_the_settlements_of_a_process_that_died_are_settled_by_a_living_one(
    world: World, switch: Switch, tmp_path: Path
) -> None:
    dead, shared = Journal(tmp_path / "dead"), tmp_path / "shared"
    async with running(switch.open, shared) as writer:
        held = await place(writer, world)
        dead.append([resolve_of(world, held, 1)])
        await in_thread(copy_journal)(tmp_path / "dead", shared)
        await until_stored(ends, [("completed", 1_000)])
    dead.close()

    assert os.listdir(shared) == []
    assert await in_thread(account)(world.wallet_id) == (WALLET - 1_000, 0)


@pytest.mark.sqlite
@pytest.mark.parametrize("at", ["a settlement", "a heartbeat"])
async def test_a_lock_that_is_held_for_long_is_an_outage_that_ends_by_itself(
    world: World,
    switch: Switch,
    tmp_path: Path,
    committed_db: Database,
    caplog: pytest.LogCaptureFixture,
    at: str,
) -> None:
    # Nothing but the statement that returns at last says that the database is there again.
    duty = 0.1 if at == "a heartbeat" else 60.0
    pace = Pace(hold=0.2, hang=0.3, duty=duty, journal_after=60.0, probe=60.0)
    async with running(switch.open, tmp_path, pace=pace) as writer:
        held = await place(writer, world)
        other = committed_db.connect()
        other.execute("BEGIN IMMEDIATE")
        calls = [writer.resolve(resolve_of(world, held, 1))] if at == "a settlement" else []
        settling = [asyncio.create_task(call) for call in calls]
        await until(lambda: "its connection is cut" in caplog.text)
        with pytest.raises(LedgerUnavailable):
            await place(writer, world)
        other.execute("ROLLBACK")
        other.close()
        await until(lambda: writer.is_available)
        await asyncio.gather(*settling)
        again = await place(writer, world)
        await writer.resolve(resolve_of(world, again, 1))

    charged = len(settling) + 1
    assert await in_thread(ends)() == [("completed", 1_000)] * charged
    assert (await in_thread(account)(world.wallet_id))[0] == WALLET - charged * 1_000
    assert len(switch.engines) == 1


@pytest.mark.postgres
async def test_a_connection_that_hangs_is_cut_and_the_settlement_takes_another(
    world: World, switch: Switch, tmp_path: Path, committed_db: Database
) -> None:
    pace = Pace(hang=0.2, duty=60)
    async with running(switch.open, tmp_path, pace=pace) as writer:
        held = await place(writer, world)
        connection = committed_db.connect()
        (pid,) = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'ledger_writer' "
            "AND datname = current_database()"
        ).fetchone()
        connection.close()
        os.kill(pid, signal.SIGSTOP)
        try:
            await writer.resolve(resolve_of(world, held, 1))
        finally:
            os.kill(pid, signal.SIGCONT)

    assert await in_thread(ends)() == [("completed", 1_000)]
    assert await in_thread(account)(world.wallet_id) == (WALLET - 1_000, 0)


async def test_an_idle_writer_finds_out_that_its_database_is_gone_and_that_it_is_back(
    world: World, switch: Switch, tmp_path: Path
) -> None:
    pace = Pace(duty=60, probe=0.02)
    async with running(switch.open, tmp_path, pace=pace) as writer:
        switch.is_down = True
        await until(lambda: not writer.is_available)
        await until(lambda: writer.answer_age > 0.1)
        switch.is_down = False
        await until(lambda: writer.is_available and writer.answer_age < 0.1)
        held = await place(writer, world)
        await writer.resolve(resolve_of(world, held, 1))
        figures = writer.figures()

    assert sum(writer.commit_seconds.counts) == 2
    assert writer.batch_commands.counts[0] == 2
    assert (figures["holds_open"], figures["journal_bytes"], figures["quarantined"]) == (0, 0, 0)


async def test_a_database_that_takes_connections_and_no_writes_is_not_stormed(
    world: World, switch: Switch, tmp_path: Path
) -> None:
    pace = Pace(duty=60, journal_after=60)
    async with running(switch.open, tmp_path, pace=pace) as writer:
        held = await place(writer, world)
        switch.failures = [sqlite3.OperationalError("database or disk is full")] * 100_000
        settling = asyncio.create_task(writer.resolve(resolve_of(world, held, 1)))
        await asyncio.sleep(1.0)
        tries = len(switch.engines)
        switch.failures = []
        await settling

    # Once at once, and then every quarter of a second.
    assert 4 <= tries <= 7
    assert await in_thread(ends)() == [("completed", 1_000)]
