"""Holds and settlements of one process; what an outage does to them is in test_writer_outages.

Over 400 lines because they are all of one writer, which each test starts in the same way.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from apps.audit.models import APIRequest, RefusalCount
from apps.billing import ledger_thread
from apps.billing.duties import Duties
from apps.billing.ledger.commands import Batch, Held, HoldRefused
from apps.billing.ledger.store import Engine, flush
from apps.billing.models import Hold, Incarnation
from apps.billing.pending import Pace
from apps.billing.tests.writer_kit import (
    NO_CUSTOMER,
    PACE,
    WAIT_SECONDS,
    Switch,
    account,
    ends,
    hold_of,
    in_thread,
    open_holds,
    place,
    resolve_of,
    running,
    until_stored,
)
from apps.billing.writer import LedgerBusy, LedgerUnavailable, LedgerWriter
from tests.support.databases import Database
from tests.support.processes import until
from tests.support.world import Gateway, World, make_world

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


# ---- one call


async def test_a_call_is_held_then_charged_and_the_rest_released(
    world: World, switch: Switch, tmp_path: Path
) -> None:
    async with running(switch.open, tmp_path) as writer:
        held = await place(writer, world, 5_000)
        during = await in_thread(account)(world.wallet_id)
        await writer.resolve(resolve_of(world, held, tokens=3))

    assert during == (WALLET, 5_000)
    assert await in_thread(account)(world.wallet_id) == (WALLET - 3_000, 0)
    assert await in_thread(ends)() == [("completed", 3_000)]


async def test_a_refused_hold_leaves_nothing(world: World, switch: Switch, tmp_path: Path) -> None:
    async with running(switch.open, tmp_path) as writer:
        answer = await writer.place(hold_of(world, WALLET + 1))
        figures = writer.figures()

    assert answer == HoldRefused("balance")
    assert (figures["holds_waiting"], figures["settlements_waiting"]) == (0, 0)
    assert await in_thread(account)(world.wallet_id) == (WALLET, 0)
    assert (await in_thread(open_holds)(), await in_thread(ends)()) == (set(), [])


async def test_a_hold_that_was_spent_is_not_counted_as_open_however_its_call_went(
    world: World, switch: Switch, tmp_path: Path
) -> None:
    async with running(switch.open, tmp_path) as writer:
        spent = [await place(writer, world) for _ in range(2)]
        ends_of = [resolve_of(world, held) for held in spent]
        refused = await writer.place(hold_of(world, WALLET + 1)._replace(spends=ends_of[0]))
        held = await writer.place(hold_of(world)._replace(spends=ends_of[1]))
        assert isinstance(held, Held)
        await writer.resolve(resolve_of(world, held))
        figures = writer.figures()

    assert refused == HoldRefused("balance")
    assert figures["holds_open"] == 0
    assert await in_thread(ends)() == [("voided", 0)] * 3


async def test_calls_that_come_together_share_commits(
    world: World, switch: Switch, tmp_path: Path
) -> None:
    async with running(switch.open, tmp_path) as writer:
        switch.gate.clear()
        calls = [asyncio.create_task(place(writer, world)) for _ in range(300)]
        await until(lambda: writer.figures()["holds_waiting"] == 300)
        switch.commits = 0
        switch.gate.set()
        held = await asyncio.gather(*calls)
        holds_commits = switch.commits
        await asyncio.gather(*(writer.resolve(resolve_of(world, one, 1)) for one in held))

    # At most: what was being committed, duties, and one or two batches with all the others.
    assert holds_commits <= 6
    assert await in_thread(account)(world.wallet_id) == (WALLET - 300_000, 0)


async def test_a_small_batch_waits_for_those_who_were_answered_last(
    world: World, switch: Switch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger_thread, "GATHER_SECONDS", WAIT_SECONDS)
    rounds = 20

    async def call_again_and_again(turns: int) -> None:
        for _ in range(rounds):
            held = await place(writer, world)
            for _ in range(turns):
                await asyncio.sleep(0)
            await writer.resolve(resolve_of(world, held, 1))

    async with running(switch.open, tmp_path) as writer:
        async with asyncio.TaskGroup() as group:
            for turns in range(8):
                group.create_task(call_again_and_again(turns))
        batches = sum(writer.batch_commands.counts)

    # At first they may come one by one; once together, they stay together.
    assert batches <= 2 * rounds + 4
    assert await in_thread(account)(world.wallet_id) == (WALLET - 8 * rounds * 1_000, 0)


async def test_the_lease_is_renewed_under_a_load_that_never_ends(
    world: World, switch: Switch, tmp_path: Path
) -> None:
    is_over = False

    async def call(writer: LedgerWriter) -> None:
        while not is_over:
            await writer.resolve(resolve_of(world, await place(writer, world), 0))

    async with running(switch.open, tmp_path) as writer:
        calls = [asyncio.create_task(call(writer)) for _ in range(30)]
        lease = await in_thread(Incarnation.objects.get)(pk=writer.incarnation_id)
        renewed = Incarnation.objects.filter(pk=lease.pk, renewed_at__gt=lease.renewed_at)
        await until_stored(renewed.exists, True)
        is_over = True
        await asyncio.gather(*calls)


async def test_holds_are_placed_between_two_duties_that_take_their_time(
    world: World, switch: Switch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    has_begun, may_end = threading.Event(), threading.Event()
    commits: list[int] = []

    def take_time(duties: Duties, engine: Engine) -> None:
        has_begun.set()
        may_end.wait(WAIT_SECONDS)

    def look(duties: Duties, engine: Engine) -> None:
        commits.append(switch.commits)

    monkeypatch.setattr(Duties, "_settle_journal", take_time)
    monkeypatch.setattr(Duties, "_reap", look)
    async with running(switch.open, tmp_path) as writer:
        await until(has_begun.is_set)
        caller = asyncio.create_task(place(writer, world))
        await until(lambda: writer.figures()["holds_waiting"] == 1)
        may_end.set()
        await caller
        await until(lambda: bool(commits))

    assert commits[0] == 1


# ---- callers who leave


async def test_a_hold_that_commits_after_its_caller_was_cancelled_is_voided(
    world: World, switch: Switch, tmp_path: Path
) -> None:
    async with running(switch.open, tmp_path) as writer:
        switch.gate.clear()
        caller = asyncio.create_task(place(writer, world))
        await until(lambda: writer.figures()["holds_waiting"] == 1)
        await asyncio.sleep(0.05)  # In the transaction by now, or still in the queue: both happen.
        caller.cancel()
        await asyncio.wait([caller])
        switch.gate.set()
        await until_stored(open_holds, set())
        later = await place(writer, world)
        await writer.resolve(resolve_of(world, later, 1))

    assert await in_thread(account)(world.wallet_id) == (WALLET - 1_000, 0)
    assert ("completed", 1_000) in await in_thread(ends)()
    assert {charge for state, charge in await in_thread(ends)() if state == "voided"} <= {0}


async def test_a_caller_who_is_cancelled_in_the_moment_of_the_grant_keeps_no_money(
    world: World, switch: Switch, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running(switch.open, tmp_path) as writer:
        deliver = writer._deliver

        def deliver_and_cancel(outcomes: Any) -> None:
            deliver(outcomes)
            caller.cancel()

        monkeypatch.setattr(writer, "_deliver", deliver_and_cancel)
        caller = asyncio.create_task(place(writer, world))
        await asyncio.wait([caller])
        await until_stored(ends, [("voided", 0)])

    assert caller.cancelled()
    assert await in_thread(account)(world.wallet_id) == (WALLET, 0)


async def test_a_hold_that_waits_too_long_is_refused_and_voided_when_it_commits(
    world: World, switch: Switch, tmp_path: Path
) -> None:
    async with running(switch.open, tmp_path, pace=Pace(hold=0.1, duty=0.1)) as writer:
        switch.gate.clear()
        with pytest.raises(LedgerUnavailable):
            await place(writer, world)
        is_available = writer.is_available
        switch.gate.set()
        await until_stored(ends, [("voided", 0)])

    assert not is_available
    assert await in_thread(account)(world.wallet_id) == (WALLET, 0)


async def test_too_many_waiting_holds_are_refused(
    world: World, switch: Switch, tmp_path: Path
) -> None:
    async with running(switch.open, tmp_path, waiting_max=3) as writer:
        switch.gate.clear()
        calls = [asyncio.create_task(place(writer, world)) for _ in range(3)]
        await until(lambda: writer.figures()["holds_waiting"] == 3)
        with pytest.raises(LedgerBusy):
            await place(writer, world)
        switch.gate.set()
        held = await asyncio.gather(*calls)
        await asyncio.gather(*(writer.resolve(resolve_of(world, one)) for one in held))

    assert await in_thread(account)(world.wallet_id) == (WALLET, 0)


# ---- rows that the database refuses


async def test_a_poisonous_hold_is_refused_and_the_others_are_granted(
    world: World, switch: Switch, tmp_path: Path
) -> None:
    bad = hold_of(world)._replace(**NO_CUSTOMER)
    async with running(switch.open, tmp_path) as writer:
        switch.gate.clear()
        calls = [asyncio.create_task(place(writer, world)) for _ in range(4)]
        refused = asyncio.create_task(writer.place(bad))
        calls += [asyncio.create_task(place(writer, world)) for _ in range(4)]
        await until(lambda: writer.figures()["holds_waiting"] == 9)
        switch.gate.set()
        held = await asyncio.gather(*calls)
        answer = await refused
        await asyncio.gather(*(writer.resolve(resolve_of(world, one)) for one in held))

    assert answer == HoldRefused("broken")
    assert await in_thread(account)(world.wallet_id) == (WALLET, 0)
    assert len(await in_thread(ends)()) == 8


async def test_a_quarantined_settlement_keeps_its_hold_and_lets_its_call_end(
    world: World, switch: Switch, tmp_path: Path
) -> None:
    pace = Pace(duty=0.05, stranger=0.01)
    async with running(switch.open, tmp_path, pace=pace) as writer:
        held, other = await place(writer, world), await place(writer, world)
        await writer.resolve(resolve_of(world, held, 1, user_name=None))
        lease = await in_thread(Incarnation.objects.get)(pk=writer.incarnation_id)
        await writer.resolve(resolve_of(world, other, 1))
        # Two heartbeats later, in which strangers were looked for.
        renewed = Incarnation.objects.filter(pk=lease.pk)
        for _ in range(2):
            before = (await in_thread(renewed.get)()).renewed_at
            await until_stored(renewed.filter(renewed_at__gt=before).exists, True)

        assert await in_thread(open_holds)() == {held.request_id}
        assert await in_thread(account)(world.wallet_id) == (WALLET - 1_000, 1_000)

    assert (tmp_path / "quarantine").read_bytes().count(b"\n") == 1


# ---- leases


async def test_a_writer_whose_lease_was_ended_takes_another_and_goes_on(
    world: World,
    switch: Switch,
    tmp_path: Path,
    ledger_connect: Callable[[], Engine],
) -> None:
    async with running(switch.open, tmp_path, pace=Pace(duty=60)) as writer:
        first = writer.incarnation_id
        held = await place(writer, world)
        await in_thread(ledger_connect().end)(first)
        second_call = await place(writer, world)
        second = writer.incarnation_id
        for one in (held, second_call):
            await writer.resolve(resolve_of(world, one, 1))

    assert second > first
    assert await in_thread(ends)() == [("completed", 1_000), ("completed", 1_000)]
    assert await in_thread(account)(world.wallet_id) == (WALLET - 2_000, 0)


async def test_holds_that_nobody_here_knows_are_voided_and_known_ones_are_not(
    world: World,
    switch: Switch,
    tmp_path: Path,
    ledger_connect: Callable[[], Engine],
) -> None:
    async with running(switch.open, tmp_path, pace=Pace(duty=0.05, stranger=0.01)) as writer:
        known = await place(writer, world)
        stranger = hold_of(world)
        batch = Batch(
            resolves=(), holds=(stranger,), revenue_id=world.revenue_id, now=datetime.now(UTC)
        )
        engine = await in_thread(ledger_connect)()
        await in_thread(flush)(engine, batch, incarnation_id=writer.incarnation_id)
        await until_stored(ends, [("voided", 0)])

        assert await in_thread(open_holds)() == {known.request_id}
        await writer.resolve(resolve_of(world, known))

    row = await in_thread(APIRequest.objects.get)(pk=stranger.request_id)
    assert (row.error_code, row.cost_nanos) == ("hold_abandoned", 0)


def held_amounts() -> list[int]:
    return sorted(Hold.objects.values_list("amount_nanos", flat=True))


def counted_refusals() -> list[int]:
    return list(RefusalCount.objects.values_list("count", flat=True))


@pytest.mark.parametrize(
    ("failing", "left", "refusals"),
    [
        ("checkpoint", [], 1),
        ("count_refusals", [], 0),
        ("own_holds", [1_000], 1),
        ("end_expired", [3_000], 1),
        ("make_partitions", [], 1),
    ],
)
async def test_a_duty_that_fails_does_not_stop_the_others(
    world: World,
    switch: Switch,
    tmp_path: Path,
    ledger_connect: Callable[[], Engine],
    failing: str,
    left: list[int],
    refusals: int,
) -> None:
    engine = await in_thread(ledger_connect)()
    dead = await in_thread(Gateway)(world, engine)
    await in_thread(dead.hold)(3_000)
    await in_thread(engine.end)(dead.incarnation_id)
    stranger = hold_of(world)
    batch = Batch(
        resolves=(), holds=(stranger,), revenue_id=world.revenue_id, now=datetime.now(UTC)
    )
    switch.failing.add(failing)
    async with running(switch.open, tmp_path, pace=Pace(duty=0.05, stranger=0.01)) as writer:
        await in_thread(flush)(engine, batch, incarnation_id=writer.incarnation_id)
        writer.count_refusal(7, "rate_limit_exceeded", datetime.now(UTC))
        writer.note_checkpoint(stranger.request_id, "{}")
        await until_stored(held_amounts, left)
        await until_stored(RefusalCount.objects.count, refusals)
        switch.failing.clear()
        await until_stored(counted_refusals, [1])

    assert len(switch.engines) == 1


async def test_checkpoints_and_refusals_are_written_with_the_heartbeat(
    world: World, switch: Switch, tmp_path: Path
) -> None:
    minute = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)
    async with running(switch.open, tmp_path) as writer:
        held = await place(writer, world)
        writer.note_checkpoint(held.request_id, '{"output": 1}')
        writer.note_checkpoint(held.request_id, '{"output": 2}')
        for seconds in (1, 59):
            writer.count_refusal(7, "rate_limit_exceeded", minute.replace(second=seconds))
        counts = RefusalCount.objects.values_list("api_key_id", "minute", "count")
        await until_stored(lambda: list(counts.all()), [(7, minute, 2)])
        await until_stored(checkpoints, ['{"output": 2}'])
        await writer.resolve(resolve_of(world, held))


async def test_a_checkpoint_that_could_not_be_written_is_written_with_a_later_heartbeat(
    world: World, switch: Switch, tmp_path: Path
) -> None:
    switch.failing.update(("checkpoint", "count_refusals"))
    async with running(switch.open, tmp_path, pace=Pace(duty=0.05)) as writer:
        held = await place(writer, world)
        writer.note_checkpoint(held.request_id, '{"output": 1}')
        await asyncio.sleep(0.5)  # some heartbeats
        during = await in_thread(checkpoints)()
        switch.failing.clear()
        await until_stored(checkpoints, ['{"output": 1}'])
        await writer.resolve(resolve_of(world, held))

    assert during == [None]


def checkpoints() -> list[str | None]:
    return list(Hold.objects.values_list("checkpoint", flat=True))


async def test_a_writer_that_stops_ends_its_lease(
    world: World, switch: Switch, tmp_path: Path
) -> None:
    async with running(switch.open, tmp_path, pace=PACE) as writer:
        during = await in_thread(Incarnation.objects.get)(pk=writer.incarnation_id)
    after = await in_thread(Incarnation.objects.get)(pk=writer.incarnation_id)

    assert during.ended_at is None
    assert after.ended_at is not None


async def test_a_writer_that_stops_counts_what_was_refused_last(
    world: World, switch: Switch, tmp_path: Path
) -> None:
    async with running(switch.open, tmp_path, pace=Pace(duty=60)) as writer:
        await writer.resolve(resolve_of(world, await place(writer, world)))
        writer.count_refusal(7, "rate_limit_exceeded", datetime.now(UTC))
    count = await in_thread(RefusalCount.objects.get)()

    assert (count.api_key_id, count.count) == (7, 1)
