"""A writer that remembers its rows: one round trip, and never a decision on what others changed.

Over 400 lines because what a writer remembers is tried against all who can change it meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import cast

import psycopg
import pytest

from apps.audit.models import APIRequest, CallKey, StoredAnswer
from apps.billing.chains import (
    ADDED_FIELDS,
    REQUEST_FIELDS,
    entry_hash,
    request_hash,
    transaction_digest,
)
from apps.billing.ledger.commands import (
    AccountState,
    Cap,
    ChainState,
    Changes,
    Claim,
    CounterState,
    Held,
    HoldRefused,
    State,
    StoredRecord,
)
from apps.billing.ledger.memory import PAUSE_MAX, REMEMBERED_MAX, Memory
from apps.billing.ledger.pipeline import Pipeline, Statement
from apps.billing.ledger.postgres import PostgresEngine
from apps.billing.ledger.postgres_steps import Guess, Step, list_updates
from apps.billing.ledger.store import Engine, IncarnationEnded, flush
from apps.billing.models import Account, Entry, Hold, Incarnation, SpendCounter
from tests.support.races import race
from tests.support.soundness import is_sound
from tests.support.world import NOW, UNIT, Gateway, World, make_world

Connect = Callable[[], Engine]


# ---- what is remembered


def make_state(*account_ids: int, incarnation_id: int = 1) -> State:
    return State(
        accounts={key: AccountState("wallet", 5, 0, 1, b"", True) for key in account_ids},
        owing=set(),
        counters={9: CounterState("user", 3, 1, 2, is_changed=True)},
        counter_ids={("user", 3): 9},
        chain=ChainState(incarnation_id, 4, b"head"),
        claimed=set(),
        resolved={},
    )


def recall(memory: Memory, *account_ids: int, incarnation_id: int = 1) -> State | None:
    return memory.recall(
        account_ids=account_ids,
        scopes=[("user", 3)],
        counter_ids=(),
        incarnation_id=incarnation_id,
        hold_ids=(),
    )


def test_what_was_kept_is_recalled_as_unchanged() -> None:
    memory = Memory()
    memory.keep(make_state(1, 2))

    state = recall(memory, 1)

    assert state is not None
    assert state.accounts == {1: AccountState("wallet", 5, 0, 1, b"", False)}
    assert state.counters == {9: CounterState("user", 3, 1, 2, is_changed=False)}
    assert state.counter_ids == {("user", 3): 9}
    assert state.chain == ChainState(1, 4, b"head")


def test_what_is_not_known_whole_is_read() -> None:
    memory = Memory()
    assert recall(memory, 1) is None
    memory.keep(make_state(1))
    assert recall(memory, 1, 2) is None
    assert recall(memory, 1, incarnation_id=2) is None

    memory.forget()

    assert recall(memory, 1) is None


def test_after_each_wrong_guess_twice_as_many_batches_are_read() -> None:
    memory = Memory()
    memory.keep(make_state(1))
    pauses = []
    for _ in range(9):
        memory.note_guess(is_right=False)
        pause = 0
        while recall(memory, 1) is None:
            pause += 1
        pauses.append(pause)

    assert pauses == [1, 2, 4, 8, 16, 32, 64, PAUSE_MAX, PAUSE_MAX]

    for _ in range(7):
        memory.note_guess(is_right=True)
    memory.note_guess(is_right=False)

    assert recall(memory, 1) is None
    assert recall(memory, 1) is not None


def test_what_is_remembered_is_bounded() -> None:
    memory = Memory()
    memory.keep(make_state(*range(REMEMBERED_MAX)))

    memory.keep(make_state(REMEMBERED_MAX))

    assert recall(memory, 0) is None
    assert recall(memory, REMEMBERED_MAX) is not None


# ---- against a database


class Trips:
    """Counts the round trips of an engine, by what was sent in each."""

    def __init__(self, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        pipeline = cast(PostgresEngine, engine)._pipeline
        run = Pipeline.run

        def count(this: Pipeline, statements: list[Statement]) -> object:
            if this is pipeline:
                self.sizes.append(len(statements))
            return run(this, statements)

        monkeypatch.setattr(Pipeline, "run", count)

    def take(self) -> int:
        count = len(self.sizes)
        self.sizes.clear()
        return count


@pytest.mark.postgres
def test_a_batch_of_remembered_rows_is_one_round_trip(
    ledger_connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(100 * UNIT)
    gateway = Gateway(world, ledger_connect())
    trips = Trips(gateway.engine, monkeypatch)
    caps = (Cap("user", world.user.pk, 50 * UNIT),)

    counted = []
    for tokens in (3, 4, 0):
        held = gateway.hold(5 * UNIT, caps=caps)
        counted.append(trips.take())
        assert isinstance(held, Held)
        assert gateway.resolve(held, tokens).charged_nanos == tokens * UNIT
        counted.append(trips.take())

    # The first hold reads wallet and counter, the first settlement the account of the revenue.
    assert counted == [2, 2, 1, 1, 1, 1]
    assert Account.objects.get(pk=world.wallet_id).posted_nanos == 93 * UNIT
    assert is_sound()


@pytest.mark.postgres
def test_a_settlement_that_says_where_its_answer_lies_is_one_round_trip(
    ledger_connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(100 * UNIT)
    gateway = warm_up(world, ledger_connect)
    trips = Trips(gateway.engine, monkeypatch)
    stored = StoredRecord((b"\x01" * 32, b"\x02" * 32), 31, 5, 7, 9, NOW, NOW)

    sizes = []
    for place in (None, stored):
        held = gateway.hold(UNIT, caps=caps_of(world))
        assert isinstance(held, Held)
        command = gateway.resolution(held, 1)._replace(stored=place)
        trips.take()
        flush(
            gateway.engine,
            gateway.batch(resolves=(command,)),
            incarnation_id=gateway.incarnation_id,
        )
        sizes.append(trips.sizes.copy())

    # A single statement, with and without those rows.
    assert sizes == [[1], [1]]
    assert StoredAnswer.objects.count() == 2


def warm_up(world: World, connect: Connect) -> Gateway:
    """Return a gateway that remembers all that a call of its world needs."""
    gateway = Gateway(world, connect())
    for _ in range(2):
        held = gateway.hold(UNIT, caps=caps_of(world))
        assert isinstance(held, Held)
        gateway.resolve(held, 1)
    return gateway


def caps_of(world: World) -> tuple[Cap, ...]:
    return (Cap("user", world.user.pk, 50 * UNIT),)


def spend_elsewhere(world: World, connect: Connect, tokens: int) -> None:
    other = Gateway(world, connect())
    held = other.hold(tokens * UNIT, caps=caps_of(world))
    assert isinstance(held, Held)
    other.resolve(held, tokens)


@pytest.mark.postgres
def test_money_that_another_gateway_took_is_not_there(
    ledger_connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(10 * UNIT)
    gateway = warm_up(world, ledger_connect)
    trips = Trips(gateway.engine, monkeypatch)
    spend_elsewhere(world, ledger_connect, 5)
    trips.take()

    assert gateway.hold(4 * UNIT, caps=caps_of(world)) == HoldRefused("balance")
    # A guess that was wrong, and what reads. It refuses, and commits.
    assert trips.take() == 3
    held = gateway.hold(3 * UNIT, caps=caps_of(world))
    assert isinstance(held, Held)
    assert gateway.resolve(held, 3).charged_nanos == 3 * UNIT
    assert Account.objects.get(pk=world.wallet_id).posted_nanos == 0
    assert is_sound()


@pytest.mark.postgres
def test_what_others_took_of_one_of_many_is_not_there(ledger_connect: Connect) -> None:
    """More accounts than are moved one by one."""
    world = make_world(10 * UNIT)
    gateway = warm_up(world, ledger_connect)
    worlds = [make_world(10 * UNIT) for _ in range(4)]
    for _ in range(2):
        answers = hold_for_all(gateway, worlds, 4 * UNIT)
        assert all(isinstance(answer, Held) for answer in answers)
    spend_elsewhere(worlds[2], ledger_connect, 1)

    answers = hold_for_all(gateway, worlds, 2 * UNIT)

    assert [isinstance(answer, Held) for answer in answers] == [True, True, False, True]
    assert answers[2] == HoldRefused("balance")
    assert is_sound()


def hold_for_all(gateway: Gateway, worlds: list[World], nanos: int) -> list[Held | HoldRefused]:
    """Place a hold for the customer of each world, all in one batch."""
    incarnation_id = gateway.incarnation_id
    commands = [Gateway(world, gateway.engine, incarnation_id).placement(nanos) for world in worlds]
    batch = gateway.batch(holds=tuple(commands))
    return flush(gateway.engine, batch, incarnation_id=incarnation_id)[1]


@pytest.mark.postgres
def test_two_batches_in_one_transaction_commit_together(ledger_connect: Connect) -> None:
    world = make_world(10 * UNIT)
    gateway = warm_up(world, ledger_connect)

    with gateway.engine.transaction():
        first, second = gateway.hold(UNIT), gateway.hold(2 * UNIT)
        assert not Hold.objects.exists()

    assert isinstance(first, Held)
    assert isinstance(second, Held)
    assert Account.objects.get(pk=world.wallet_id).held_nanos == 3 * UNIT
    assert is_sound()


@pytest.mark.postgres
def test_what_goes_another_way_stands_in_the_same_transaction(ledger_connect: Connect) -> None:
    world = make_world(10 * UNIT)
    gateway = warm_up(world, ledger_connect)

    def hold_and_fail() -> None:
        with gateway.engine.transaction():
            gateway.hold(UNIT)
            gateway.engine.end(gateway.incarnation_id)
            raise KeyError

    with pytest.raises(KeyError):
        hold_and_fail()

    assert not Hold.objects.exists()
    assert Incarnation.objects.get(pk=gateway.incarnation_id).ended_at is None


@pytest.mark.postgres
def test_money_that_another_gateway_holds_is_not_free(ledger_connect: Connect) -> None:
    world = make_world(10 * UNIT)
    gateway = warm_up(world, ledger_connect)
    assert isinstance(Gateway(world, ledger_connect()).hold(8 * UNIT), Held)

    assert gateway.hold(UNIT, caps=caps_of(world)) == HoldRefused("balance")
    assert is_sound()


@pytest.mark.postgres
def test_a_cap_that_was_spent_elsewhere_is_spent(ledger_connect: Connect) -> None:
    world = make_world(100 * UNIT)
    gateway = warm_up(world, ledger_connect)
    SpendCounter.objects.update(spent_nanos=50 * UNIT)

    refused = gateway.hold(UNIT, caps=caps_of(world))

    assert refused == HoldRefused("cap", caps_of(world)[0], 0)


@pytest.mark.postgres
def test_who_owes_meanwhile_gets_no_hold(ledger_connect: Connect) -> None:
    world = make_world(10 * UNIT)
    gateway = warm_up(world, ledger_connect)
    Account.objects.filter(pk=world.receivable_id).update(posted_nanos=-1)

    assert gateway.hold(UNIT, caps=caps_of(world)) == HoldRefused("owing")


@pytest.mark.postgres
def test_a_lease_that_others_ended_is_noticed(ledger_connect: Connect) -> None:
    world = make_world(10 * UNIT)
    gateway = warm_up(world, ledger_connect)
    ledger_connect().end(gateway.incarnation_id)

    with pytest.raises(IncarnationEnded):
        gateway.hold(UNIT, caps=caps_of(world))

    assert not Hold.objects.exists()


@pytest.mark.postgres
def test_an_entry_is_chained_to_the_one_that_is_there(ledger_connect: Connect) -> None:
    """A database that was restored under a running gateway, and then charged the same elsewhere,
    has the numbers that it remembers, and another history.
    """
    world = make_world(10 * UNIT)
    gateway = warm_up(world, ledger_connect)
    Account.objects.filter(pk=world.wallet_id).update(head=b"\x07" * 32)

    held = gateway.hold(UNIT, caps=caps_of(world))
    assert isinstance(held, Held)
    gateway.resolve(held, 1)

    entry = Entry.objects.filter(account_id=world.wallet_id).latest("sequence")
    assert entry.sequence == 4
    assert bytes(entry.hash) == hash_after(b"\x07" * 32, entry)


@pytest.mark.postgres
def test_a_record_is_chained_to_the_one_that_is_there(ledger_connect: Connect) -> None:
    world = make_world(10 * UNIT)
    gateway = warm_up(world, ledger_connect)
    Incarnation.objects.filter(pk=gateway.incarnation_id).update(head=b"\x07" * 32)

    held = gateway.hold(UNIT, caps=caps_of(world))
    assert isinstance(held, Held)
    gateway.resolve(held, 1)

    record = APIRequest.objects.latest("sequence")
    assert record.sequence == 3
    row = {name: getattr(record, name) for name in (*REQUEST_FIELDS, *ADDED_FIELDS)}
    assert bytes(record.hash) == request_hash(b"\x07" * 32, row)


def hash_after(head: bytes, entry: Entry) -> bytes:
    """Return what an entry's hash has to be behind a head."""
    posted = entry.transaction
    return entry_hash(
        head,
        account_id=entry.account_id,
        sequence=entry.sequence,
        kind=entry.kind,
        amount_nanos=entry.amount_nanos,
        balance_after_nanos=entry.balance_after_nanos,
        request_id=entry.request_id,
        corrects_id=entry.corrects_id,
        digest=transaction_digest(
            transaction_id=posted.id,
            kind=posted.kind,
            idempotency_key=posted.idempotency_key,
            actor_id=posted.actor_id,
            actor_name=posted.actor_name,
            reason=posted.reason,
            created_at=posted.created_at,
        ),
    )


@pytest.mark.postgres
def test_a_hold_that_the_reaper_took_is_charged_late(ledger_connect: Connect) -> None:
    world = make_world(10 * UNIT)
    gateway = warm_up(world, ledger_connect)
    held = gateway.hold(4 * UNIT, caps=caps_of(world))
    assert isinstance(held, Held)
    reaped = Gateway(world, ledger_connect()).resolve(held, 1, state="interrupted")
    assert reaped.charged_nanos == UNIT

    late = gateway.resolve(held, 4)

    assert (late.charged_nanos, late.is_first) == (3 * UNIT, False)
    assert APIRequest.objects.filter(pk=held.request_id).count() == 1
    assert Account.objects.get(pk=world.wallet_id).posted_nanos == 4 * UNIT
    assert is_sound()


@pytest.mark.postgres
def test_a_key_that_is_taken_is_found(ledger_connect: Connect) -> None:
    world = make_world(10 * UNIT)
    gateway = warm_up(world, ledger_connect)
    claim = Claim(world.user.pk, b"d" * 32, b"f" * 32)
    first, second = (hold_with(gateway, claim) for _ in range(2))

    assert isinstance(first, Held)
    assert isinstance(second, HoldRefused)
    assert second.reason == "repeated"
    assert CallKey.objects.get().request_id == first.request_id


def hold_with(gateway: Gateway, claim: Claim) -> Held | HoldRefused:
    command = gateway.placement(UNIT, caps=caps_of(gateway.world))._replace(claim=claim)
    _, (answer,) = flush(
        gateway.engine,
        gateway.batch(holds=(command,), at=NOW + timedelta(seconds=1)),
        incarnation_id=gateway.incarnation_id,
    )
    return answer


@pytest.mark.postgres
def test_what_did_not_commit_is_not_remembered(
    ledger_connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = make_world(10 * UNIT)
    gateway = warm_up(world, ledger_connect)
    nobody = cast(int, None)
    command = gateway.placement(UNIT, caps=caps_of(world))._replace(customer_id=nobody)
    broken = gateway.batch(holds=(command,))

    with pytest.raises(psycopg.errors.NotNullViolation):
        flush(gateway.engine, broken, incarnation_id=gateway.incarnation_id)

    trips = Trips(gateway.engine, monkeypatch)
    assert isinstance(gateway.hold(UNIT, caps=caps_of(world)), Held)
    assert trips.take() == 2
    assert Account.objects.get(pk=world.wallet_id).held_nanos == UNIT
    assert is_sound()


@pytest.mark.postgres
def test_a_duty_that_fails_leaves_the_statements_of_batches_parsed(ledger_connect: Connect) -> None:
    world = make_world(10 * UNIT)
    gateway = warm_up(world, ledger_connect)
    for _ in range(8):  # more often than psycopg waits before it prepares a statement
        gateway.engine.renew(gateway.incarnation_id, 100)
    with pytest.raises(psycopg.DataError):
        gateway.engine.count_refusals([(1, "x" * 500, NOW, 1)])

    assert isinstance(gateway.hold(UNIT, caps=caps_of(world)), Held)


# ---- two that remember the same


def call_in_turns(world: World, connect: Connect, calls: int) -> list[int]:
    """Have two gateways call at once, each on what it remembers; return what each was granted."""
    gateways = [warm_up(world, connect) for _ in range(2)]

    def call(barrier: threading.Barrier, number: int) -> int:
        granted = 0
        for _ in range(calls):
            barrier.wait()
            held = gateways[number].hold(UNIT)
            if isinstance(held, Held):
                granted += gateways[number].resolve(held, 1).charged_nanos
        return granted

    return race(2, call)


@pytest.mark.postgres
def test_two_that_remember_one_wallet_never_spend_it_twice(ledger_connect: Connect) -> None:
    world = make_world(44 * UNIT)

    granted = call_in_turns(world, ledger_connect, 30)

    assert sum(granted) == 40 * UNIT
    wallet = Account.objects.get(pk=world.wallet_id)
    assert (wallet.posted_nanos, wallet.held_nanos) == (0, 0)
    assert is_sound()


@pytest.mark.postgres
def test_control_what_is_not_checked_gives_spent_money_back(
    ledger_connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    def list_moves(_: Guess, state: State, changes: Changes) -> Iterator[Step]:
        return list_updates(state, changes)

    monkeypatch.setattr(Guess, "list_moves", list_moves)
    world = make_world(10 * UNIT)
    gateway = warm_up(world, ledger_connect)
    spend_elsewhere(world, ledger_connect, 8)
    assert Account.objects.get(pk=world.wallet_id).posted_nanos == 0

    held = gateway.hold(UNIT, caps=caps_of(world))

    assert isinstance(held, Held)
    assert Account.objects.get(pk=world.wallet_id).posted_nanos == 8 * UNIT
    assert not is_sound()
