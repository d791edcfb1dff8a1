"""What a batch does when the database refuses some of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast

import psycopg
import pytest

from apps.billing.flushing import Flusher, Locked, Quarantined, Trouble
from apps.billing.ledger.commands import Cap, Held, HoldRefused, Resolve, Resolved
from apps.billing.ledger.postgres import PostgresEngine
from apps.billing.ledger.store import Engine, IncarnationEnded
from apps.billing.reaper import resolve_all
from apps.billing.tests.writer_kit import (
    NO_CUSTOMER,
    Switch,
    account,
    ends,
    hold_of,
    open_holds,
    resolve_of,
)
from apps.billing.verification import report
from tests.support.databases import Database
from tests.support.world import World, make_quota, make_world

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


@pytest.mark.parametrize("count", [1, 15, 16, 17, 33])
def test_every_row_of_a_batch_is_written_however_many(
    flusher: Flusher, world: World, count: int
) -> None:
    held = place(flusher, world, count)
    assert open_holds() == {one.request_id for one in held}

    ended, more = flusher.flush(
        [resolve_of(world, one, tokens=1) for one in held], [hold_of(world) for _ in held]
    )

    assert ended == [Resolved(one.request_id, 1_000) for one in held]
    assert open_holds() == {one.request_id for one in more if isinstance(one, Held)}
    assert len(open_holds()) == count
    assert ends() == [("completed", 1_000)] * count
    assert account(world.wallet_id) == (WALLET - 1_000 * count, 1_000 * count)
    found = report(is_full=True, anchors_path=Path("/nonexistent"), now=datetime.now(UTC))
    assert (found.is_clean, found.requests) == (True, count)


def test_one_poisonous_hold_of_many_is_refused(flusher: Flusher, world: World) -> None:
    holds = [hold_of(world) for _ in range(9)]
    holds[4] = holds[4]._replace(**NO_CUSTOMER)

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
    switch.failures = [psycopg.errors.DeadlockDetected(), psycopg.errors.SerializationFailure()]

    _, answers = flusher.flush([], [hold_of(world)])

    assert isinstance(answers[0], Held)
    assert not flusher.is_broken


def test_a_conflict_that_does_not_pass_ends_the_connection(world: World, engine: Engine) -> None:
    switch = Switch(lambda: engine)
    flusher = lease(Flusher(switch.open()), engine)
    switch.failures = [psycopg.errors.DeadlockDetected() for _ in range(4)]

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


def lock_account(somebody: Any, account_id: int) -> None:
    somebody.execute("SELECT id FROM billing_account WHERE id = %s FOR UPDATE", (account_id,))


@pytest.mark.postgres
def test_a_customer_whose_wallet_is_locked_does_not_keep_the_others_waiting(
    committed_db: Database, flusher: Flusher, world: World, engine: Engine
) -> None:
    other = make_world(WALLET)
    (mine,) = place(flusher, world, 1)
    (theirs,) = place(flusher, other, 1)
    somebody = committed_db.connect()
    somebody.execute("BEGIN")
    lock_account(somebody, world.wallet_id)

    ended, held = flusher.flush(
        [resolve_of(world, mine, 1), resolve_of(other, theirs, 1)],
        [hold_of(world), hold_of(other)],
    )
    again, _ = flusher.flush([resolve_of(world, mine, 1)], [])

    somebody.execute("ROLLBACK")
    somebody.close()
    assert [type(outcome) for outcome in ended + held] == [Locked, Resolved, Locked, Held]
    assert [type(outcome) for outcome in again] == [Locked]
    assert not flusher.is_broken
    later = lease(Flusher(engine), engine)
    assert [type(o) for o in later.flush([resolve_of(world, mine, 1)], [])[0]] == [Resolved]
    assert account(world.wallet_id) == (WALLET - 1_000, 0)
    assert account(other.wallet_id) == (WALLET - 1_000, 1_000)


@pytest.mark.postgres
def test_a_counter_that_is_locked_does_not_keep_others_waiting(
    committed_db: Database, flusher: Flusher, world: World
) -> None:
    other = make_world(WALLET)
    group = Cap("user_group", 7, WALLET)
    _, (mine,) = flusher.flush([], [hold_of(world)._replace(caps=(group,))])
    (theirs,) = place(flusher, other, 1)
    assert isinstance(mine, Held)
    somebody = committed_db.connect()
    somebody.execute("BEGIN")
    somebody.execute("SELECT * FROM billing_spendcounter FOR UPDATE")

    ended, held = flusher.flush(
        [resolve_of(world, mine, 1), resolve_of(other, theirs, 1)],
        [hold_of(other)._replace(caps=(group,)), hold_of(other)],
    )

    somebody.execute("ROLLBACK")
    somebody.close()
    assert [type(outcome) for outcome in ended + held] == [Locked, Resolved, Locked, Held]
    assert not flusher.is_broken


@pytest.mark.postgres
def test_a_locked_revenue_account_is_passed_over(
    committed_db: Database, flusher: Flusher, world: World
) -> None:
    (held,) = place(flusher, world, 1)
    somebody = committed_db.connect()
    somebody.execute("BEGIN")
    lock_account(somebody, flusher._revenue_id)

    ended, _ = flusher.flush([resolve_of(world, held, 1)], [])

    somebody.execute("ROLLBACK")
    somebody.close()
    assert [type(outcome) for outcome in ended] == [Resolved]
    assert account(world.wallet_id) == (WALLET - 1_000, 0)


@pytest.mark.postgres
def test_a_database_that_turned_read_only_quarantines_nothing(
    flusher: Flusher, world: World, engine: Engine, kept: list[Resolve]
) -> None:
    (held,) = place(flusher, world, 1)
    assert isinstance(engine, PostgresEngine)
    engine._query("SET default_transaction_read_only = on")

    ended, _ = flusher.flush([resolve_of(world, held, 1)], [])

    assert [type(outcome) for outcome in ended] == [Trouble]
    assert flusher.is_broken
    assert kept == []


class Meanwhile:
    """A real engine, beside which something happens once, right after the next commit."""

    def __init__(self, engine: Engine, happen: Callable[[], None]) -> None:
        self._engine = engine
        self._waiting = [happen]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Open a transaction of the real engine."""
        with self._engine.transaction():
            yield
        if self._waiting:
            self._waiting.pop()()


def test_what_was_committed_before_a_lease_was_found_ended_is_not_placed_again(
    world: World, ledger_connect: Callable[[], Engine]
) -> None:
    reaping = ledger_connect()
    other = lease(Flusher(reaping), reaping)

    def reap() -> None:
        reaping.end(ours.lease_id)
        resolve_all(reaping, other, [ours.lease_id], now=datetime.now(UTC))

    engine = cast(Engine, Meanwhile(ledger_connect(), reap))
    ours = lease(Flusher(engine), engine)
    good, bad = hold_of(world), hold_of(world)._replace(**NO_CUSTOMER)

    # The bad one has the two written one after the other; between them the lease ends.
    _, (placed, waiting) = ours.flush([], [good, bad])

    assert isinstance(placed, Held)
    assert (waiting, ours.is_broken) == (Trouble(), False)
    assert open_holds() == set()
    lease(ours, engine)
    assert ours.flush([], [bad])[1] == [HoldRefused("broken")]
    assert ours.flush([resolve_of(world, placed, tokens=1)], []) == (
        [Resolved(good.request_id, 1_000, is_first=False)],
        [],
    )
    assert account(world.wallet_id) == (WALLET - 1_000, 0)
    assert (
        report(is_full=True, anchors_path=Path("/nonexistent"), now=datetime.now(UTC)).findings
        == ()
    )


@pytest.mark.postgres
def test_a_late_charge_on_a_wallet_that_is_locked_does_not_keep_the_others_waiting(
    committed_db: Database, flusher: Flusher, world: World, engine: Engine
) -> None:
    """It falls on the wallet, although its hold was on a quota alone."""
    other, quota = make_world(WALLET), make_quota(world, 5_000)
    _, (held,) = flusher.flush([], [hold_of(world)._replace(buckets=(quota, world.wallet_id))])
    assert isinstance(held, Held)
    assert [account_id for account_id, _ in held.legs] == [quota]
    flusher.flush([resolve_of(world, held, tokens=0)], [])
    late = resolve_of(world, held, tokens=1)
    somebody = committed_db.connect()
    somebody.execute("BEGIN")
    lock_account(somebody, world.wallet_id)

    ended, (placed,) = flusher.flush([late], [hold_of(other)])

    assert (ended, flusher.is_broken) == ([Locked()], False)
    assert isinstance(placed, Held)
    somebody.execute("ROLLBACK")
    somebody.close()
    fresh = lease(Flusher(engine), engine)
    assert fresh.flush([late], []) == ([Resolved(held.request_id, 1_000, is_first=False)], [])
