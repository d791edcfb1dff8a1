"""What a batch does when the database refuses some of it."""

from __future__ import annotations

import logging
from collections.abc import Callable

import psycopg
import pytest

from apps.billing.flushing import Flusher, Quarantined, Trouble
from apps.billing.ledger.commands import Held, HoldRefused, Resolve, Resolved
from apps.billing.ledger.store import Engine, IncarnationEnded
from apps.billing.tests.writer_kit import (
    Switch,
    account,
    ends,
    hold_of,
    open_holds,
    resolve_of,
)
from tests.support.databases import Database
from tests.support.world import World, make_world

WALLET = 1_000_000


@pytest.fixture
def world(committed_db: Database) -> World:
    """A customer with 1,000,000 nanos."""
    return make_world(WALLET)


@pytest.fixture
def engine(ledger_connect: Callable[[], Engine]) -> Engine:
    """A connection of the ledger's own."""
    return ledger_connect()


@pytest.fixture
def kept() -> list[Resolve]:
    """What went to quarantine."""
    return []


@pytest.fixture
def flusher(world: World, engine: Engine, kept: list[Resolve]) -> Flusher:
    """A flusher with a lease."""
    return lease(Flusher(engine, keep=kept.append), engine)


def lease(flusher: Flusher, engine: Engine) -> Flusher:
    flusher.use_lease(
        engine.open_incarnation(kind="gateway", host="tests", pid=1, lease_seconds=30)
    )
    return flusher


def place(flusher: Flusher, world: World, count: int) -> list[Held]:
    _, answers = flusher.flush([], [hold_of(world) for _ in range(count)])
    held = [answer for answer in answers if isinstance(answer, Held)]
    assert len(held) == count
    return held


def test_one_poisonous_hold_of_many_is_refused(flusher: Flusher, world: World) -> None:
    holds = [hold_of(world) for _ in range(9)]
    object.__setattr__(holds[4], "customer_id", None)

    _, answers = flusher.flush([], holds)

    assert answers[4] == HoldRefused("broken")
    assert [type(answer) for answer in answers[:4] + answers[5:]] == [Held] * 8
    assert account(world.wallet_id) == (WALLET, 8_000)


@pytest.mark.parametrize("position", [0, 3, 8])
def test_one_poisonous_text_of_many_settlements_is_left_out(
    flusher: Flusher, world: World, kept: list[Resolve], position: int
) -> None:
    held = place(flusher, world, 9)
    resolves = [resolve_of(world, one, 1) for one in held]
    resolves[position] = resolve_of(world, held[position], 1, finish_reason=None)

    answers, _ = flusher.flush(resolves, [])

    assert answers == [Resolved(one.request_id, 1_000) for one in held]
    assert account(world.wallet_id) == (WALLET - 9_000, 0)
    assert (ends(), kept) == ([("completed", 1_000)] * 9, [])


def test_a_settlement_that_no_form_of_is_accepted_is_quarantined_once(
    flusher: Flusher, world: World, kept: list[Resolve], caplog: pytest.LogCaptureFixture
) -> None:
    held = place(flusher, world, 3)
    resolves = [resolve_of(world, one, 1) for one in held]
    resolves[1] = resolve_of(world, held[1], 1, user_name=None)

    first, _ = flusher.flush(resolves, [])
    second, _ = flusher.flush(resolves, [])

    critical = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert first[1] == second[1] == Quarantined(held[1].request_id)
    assert (first[0], second[0]) == (
        Resolved(held[0].request_id, 1_000),
        Resolved(held[0].request_id, 0, is_first=False),
    )
    assert kept == [resolves[1]]
    assert len(critical) == 1
    assert open_holds() == {held[1].request_id}
    assert account(world.wallet_id) == (WALLET - 2_000, 1_000)


def test_holds_are_placed_beside_a_settlement_that_is_poison(
    flusher: Flusher, world: World
) -> None:
    (held,) = place(flusher, world, 1)
    poison = resolve_of(world, held, 1, user_name=None)

    ended, placed = flusher.flush([poison], [hold_of(world)])

    assert ended == [Quarantined(held.request_id)]
    assert isinstance(placed[0], Held)


def test_no_row_is_logged(flusher: Flusher, world: World, caplog: pytest.LogCaptureFixture) -> None:
    (held,) = place(flusher, world, 1)

    flusher.flush(
        [resolve_of(world, held, 1, user_name=None, requested_model="a secret prompt")], []
    )

    assert "a secret prompt" not in caplog.text
    assert "user_name" in caplog.text


def test_a_passing_conflict_is_tried_again(world: World, engine: Engine) -> None:
    switch = Switch(lambda: engine)
    flusher = lease(Flusher(switch.open()), engine)
    switch.failures = [psycopg.errors.DeadlockDetected(), psycopg.errors.LockNotAvailable()]

    _, answers = flusher.flush([], [hold_of(world)])

    assert isinstance(answers[0], Held)
    assert not flusher.is_broken


def test_a_conflict_that_does_not_pass_ends_the_connection(world: World, engine: Engine) -> None:
    switch = Switch(lambda: engine)
    flusher = lease(Flusher(switch.open()), engine)
    switch.failures = [psycopg.errors.LockNotAvailable() for _ in range(4)]

    _, answers = flusher.flush([], [hold_of(world)])

    assert answers == [Trouble()]
    assert flusher.is_broken
    assert account(world.wallet_id) == (WALLET, 0)


def test_a_broken_connection_leaves_everything_to_be_tried_again(
    world: World, engine: Engine
) -> None:
    switch = Switch(lambda: engine)
    flusher = lease(Flusher(switch.open()), engine)
    (held,) = place(flusher, world, 1)
    switch.breaks_before_commit = 1

    ended, placed = flusher.flush([resolve_of(world, held, 1)], [hold_of(world)])

    assert (ended, placed) == ([Trouble()], [Trouble()])
    assert flusher.is_broken
    assert account(world.wallet_id) == (WALLET, 1_000)


def test_nothing_is_written_under_a_lease_that_others_ended(
    flusher: Flusher, world: World, engine: Engine
) -> None:
    (held,) = place(flusher, world, 1)
    engine.end(flusher._incarnation_id)

    with pytest.raises(IncarnationEnded):
        flusher.flush([resolve_of(world, held, 1)], [hold_of(world)])

    assert open_holds() == {held.request_id}
    assert account(world.wallet_id) == (WALLET, 1_000)
