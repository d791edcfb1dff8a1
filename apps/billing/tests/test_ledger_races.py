"""Many at once, released from a barrier, each with a connection of its own.

Each race has a control: the same crowd without the guard, which must go wrong, else the race proves
nothing.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from typing import Any

import psycopg
import pytest

from apps.audit.models import APIRequest
from apps.billing.ledger.commands import Cap, Held, HoldRefused, Resolved
from apps.billing.ledger.store import Engine, flush
from apps.billing.models import Account, Entry, Hold, SpendCounter
from tests.support.databases import Database
from tests.support.races import race
from tests.support.soundness import is_sound
from tests.support.world import UNIT, Gateway, World, make_quota, make_world

AMPLE = 1_000_000_000 * UNIT
SHARED = 4  # user groups and providers that all gateways use
PROVIDERS = 1_000_000  # the first of their ids
Connect = Callable[[], Engine]


@contextmanager
def plain_transaction(database: Database) -> Iterator[Any]:
    """Yield a connection in a transaction as most code opens one: it locks nothing by itself.

    On SQLite statements commit one by one: a transaction that read first could not write any more.
    """
    with closing(database.connect()) as connection:
        if database.server is not None:
            connection.execute("BEGIN")
        yield connection
        if database.server is not None:
            connection.execute("COMMIT")


def test_64_holds_against_a_wallet_for_ten_grant_ten(ledger_connect: Connect) -> None:
    world = make_world(10 * UNIT)
    gateways = [Gateway(world, ledger_connect()) for _ in range(64)]

    def hold(barrier: threading.Barrier, number: int) -> Held | HoldRefused:
        barrier.wait()
        return gateways[number].hold(UNIT)

    answers = race(64, hold)

    wallet = Account.objects.get(pk=world.wallet_id)
    assert sum(isinstance(answer, Held) for answer in answers) == 10
    assert answers.count(HoldRefused("balance")) == 54
    assert (wallet.posted_nanos, wallet.held_nanos) == (10 * UNIT, 10 * UNIT)
    assert Hold.objects.count() == 10
    assert is_sound()


def test_control_64_that_read_check_and_write_are_all_granted(committed_db: Database) -> None:
    world = make_world(10)
    row = f"WHERE id = {world.wallet_id}"

    def hold(barrier: threading.Barrier, number: int) -> bool:
        with plain_transaction(committed_db) as connection:
            posted, held = connection.execute(
                f"SELECT posted_nanos, held_nanos FROM billing_account {row}"  # noqa: S608 (no input)
            ).fetchone()
            barrier.wait()
            if posted - held < 1:
                return False
            connection.execute(f"UPDATE billing_account SET held_nanos = {held + 1} {row}")  # noqa: S608 (no input)
            return True

    granted = race(64, hold)

    assert granted.count(True) == 64
    assert Account.objects.get(pk=world.wallet_id).held_nanos == 1


def test_32_ends_of_one_hold_charge_once(ledger_connect: Connect) -> None:
    world = make_world(10 * UNIT)
    gateways = [Gateway(world, ledger_connect()) for _ in range(32)]
    held = gateways[0].hold(6 * UNIT)
    assert isinstance(held, Held)

    def settle(barrier: threading.Barrier, number: int) -> Resolved:
        barrier.wait()
        return gateways[number].resolve(held, 4)

    answers = race(32, settle)

    wallet = Account.objects.get(pk=world.wallet_id)
    assert [answer.charged_nanos for answer in answers if answer.is_first] == [4 * UNIT]
    assert [answer.charged_nanos for answer in answers if not answer.is_first] == [0] * 31
    assert (wallet.posted_nanos, wallet.held_nanos) == (6 * UNIT, 0)
    assert APIRequest.objects.count() == 1
    assert Entry.objects.filter(request_id=held.request_id).count() == 1
    assert is_sound()


def test_control_32_that_look_for_the_hold_first_all_charge(
    committed_db: Database, ledger_connect: Connect
) -> None:
    world = make_world(100)
    held = Gateway(world, ledger_connect()).hold(1)
    assert isinstance(held, Held)

    def settle(barrier: threading.Barrier, number: int) -> bool:
        with plain_transaction(committed_db) as connection:
            (count,) = connection.execute("SELECT COUNT(*) FROM billing_hold").fetchone()
            barrier.wait()
            if count == 0:
                return False
            connection.execute(
                "UPDATE billing_account SET posted_nanos = posted_nanos - 1 "  # noqa: S608 (no input)
                f"WHERE id = {world.wallet_id}"
            )
            connection.execute("DELETE FROM billing_hold")
            return True

    charged = race(32, settle)

    assert charged.count(True) == 32
    assert Account.objects.get(pk=world.wallet_id).posted_nanos == 100 - 32


def test_owner_and_reaper_at_once_charge_the_owner_s_amount_in_all(ledger_connect: Connect) -> None:
    world = make_world(100 * UNIT)
    gateways = [Gateway(world, ledger_connect()) for _ in range(2)]
    held = [gateways[0].hold(2 * UNIT) for _ in range(20)]

    def end(barrier: threading.Barrier, number: int) -> int:
        charged = 0
        for hold in held:
            assert isinstance(hold, Held)
            barrier.wait()
            if number == 0:
                charged += gateways[0].resolve(hold, 2).charged_nanos
            else:
                late = gateways[1].resolve(hold, 0, state="interrupted")
                charged += late.charged_nanos
        return charged

    assert race(2, end) == [40 * UNIT, 0]
    wallet = Account.objects.get(pk=world.wallet_id)
    assert (wallet.posted_nanos, wallet.held_nanos) == (60 * UNIT, 0)
    assert APIRequest.objects.count() == 20
    assert is_sound()


def test_gateways_that_take_accounts_in_opposite_orders_do_not_deadlock(
    ledger_connect: Connect,
) -> None:
    world = make_world(1_000 * UNIT)
    quotas = [make_quota(world, 1_000 * UNIT) for _ in range(3)]
    gateways = [Gateway(world, ledger_connect()) for _ in range(4)]

    def call(barrier: threading.Barrier, number: int) -> int:
        order = tuple(quotas if number % 2 else reversed(quotas))
        barrier.wait()
        charged = 0
        for _ in range(15):
            held = gateways[number].hold(5 * UNIT, quotas=order)
            assert isinstance(held, Held)
            charged += gateways[number].resolve(held, 3).charged_nanos
        return charged

    assert race(4, call) == [45 * UNIT] * 4
    assert is_sound()


def make_levels(world: World, number: int) -> tuple[Cap, ...]:
    """Return caps that are never reached, on all levels; groups and providers are shared."""
    return (
        Cap("api_key", world.key.pk, AMPLE),
        Cap("user", world.user.pk, AMPLE),
        Cap("user_group", number % SHARED, AMPLE),
        Cap("provider", PROVIDERS + number % SHARED, AMPLE),
    )


def call_in_opposite_orders(
    connect: Connect, *, rounds: int, calls: int, shares_accounts: bool
) -> list[World]:
    """Have four gateways hold and settle for customers, each in an order of its own.

    Without shared accounts they meet at the counters alone. Whoever is in a deadlock gets the
    database's error: nothing here tries again.
    """
    revenue_ids = Account.objects.filter(kind="revenue").order_by("pk").values_list("pk", flat=True)
    worlds = [replace(make_world(AMPLE), revenue_id=revenue_ids[n]) for n in range(4)]
    engines = [connect() for _ in worlds]

    def call(barrier: threading.Barrier, number: int) -> None:
        owner = Gateway(worlds[number], engines[number])
        step = (-1) ** number
        spenders = [
            Gateway(world, owner.engine, owner.incarnation_id)
            for world in (worlds[::step] if shares_accounts else [owner.world])
        ]
        held: list[tuple[Gateway, Held]] = []
        barrier.wait()
        for turn in range(rounds + 1):
            busy = [spenders[n % len(spenders)] for n in range(calls)] if turn < rounds else []
            batch = owner.batch(
                resolves=tuple(spender.resolution(hold, 3) for spender, hold in held),
                holds=tuple(
                    spender.placement(5 * UNIT, caps=make_levels(spender.world, step * n)[::step])
                    for n, spender in enumerate(busy)
                ),
            )
            _, answers = flush(owner.engine, batch, incarnation_id=owner.incarnation_id)
            held = [
                (spender, answer)
                for spender, answer in zip(busy, answers, strict=True)
                if isinstance(answer, Held)
            ]
            assert len(held) == len(busy)

    race(len(worlds), call)
    return worlds


def check_levels(worlds: list[World], *, calls: int) -> None:
    """Check that each level has counted its calls of 3 units, and that nothing is held."""
    found = {
        (row.scope, row.scope_id): (row.spent_nanos, row.held_nanos)
        for row in SpendCounter.objects.all()
    }
    each = (3 * UNIT * calls // len(worlds), 0)
    expected = {("user_group", number): each for number in range(SHARED)}
    # The providers that answered are others.
    expected |= {("provider", PROVIDERS + number): (0, 0) for number in range(SHARED)}
    for world in worlds:
        expected["api_key", world.key.pk] = expected["user", world.user.pk] = each
    assert found == expected
    assert Hold.objects.count() == 0
    assert is_sound()


@pytest.mark.parametrize("shares_accounts", [True, False])
def test_holds_on_all_levels_in_opposite_orders_never_deadlock(
    ledger_connect: Connect, shares_accounts: bool
) -> None:
    worlds = call_in_opposite_orders(
        ledger_connect, rounds=8, calls=8, shares_accounts=shares_accounts
    )

    check_levels(worlds, calls=4 * 8 * 8)


@pytest.mark.long
@pytest.mark.parametrize("shares_accounts", [True, False])
def test_a_hundred_thousand_holds_on_all_levels_never_deadlock(
    ledger_connect: Connect, shares_accounts: bool
) -> None:
    worlds = call_in_opposite_orders(
        ledger_connect, rounds=625, calls=40, shares_accounts=shares_accounts
    )

    check_levels(worlds, calls=100_000)


@pytest.mark.postgres
def test_control_counters_that_are_locked_as_they_come_deadlock(
    committed_db: Database, ledger_connect: Connect
) -> None:
    world = make_world()
    Gateway(world, ledger_connect()).hold(UNIT, caps=make_levels(world, 0))
    counter_ids = list(SpendCounter.objects.order_by("pk").values_list("pk", flat=True)[:2])

    def lock(barrier: threading.Barrier, number: int) -> bool:
        with closing(committed_db.connect()) as connection:
            connection.execute("BEGIN")
            for counter_id in counter_ids[:: (-1) ** number]:
                try:
                    connection.execute(
                        f"UPDATE billing_spendcounter SET spent_nanos = 1 WHERE id = {counter_id}"  # noqa: S608 (no input)
                    )
                except psycopg.errors.DeadlockDetected:
                    return True
                if counter_id == counter_ids[:: (-1) ** number][0]:
                    barrier.wait()
            connection.execute("COMMIT")
        return False

    assert sorted(race(2, lock)) == [False, True]


def test_32_holds_of_different_users_against_a_group_s_cap_for_ten_grant_ten(
    ledger_connect: Connect,
) -> None:
    gateways = [Gateway(make_world(10 * UNIT), ledger_connect()) for _ in range(32)]
    group = Cap("user_group", 7, 10 * UNIT)

    def hold(barrier: threading.Barrier, number: int) -> Held | HoldRefused:
        gateway = gateways[number]
        caps = (Cap("api_key", gateway.world.key.pk, AMPLE), group)
        barrier.wait()
        return gateway.hold(UNIT, caps=caps[:: (-1) ** number])

    answers = race(32, hold)

    counters = SpendCounter.objects.exclude(scope="user_group")
    assert sum(isinstance(answer, Held) for answer in answers) == 10
    assert answers.count(HoldRefused("cap", group)) == 22
    assert SpendCounter.objects.get(scope="user_group").held_nanos == 10 * UNIT
    assert sorted(counters.values_list("held_nanos", flat=True)) == [0] * 22 + [UNIT] * 10
    assert is_sound()


def test_control_32_that_look_at_a_counter_first_all_pass_the_cap(
    committed_db: Database, ledger_connect: Connect
) -> None:
    world = make_world()
    group = Cap("user_group", 7, 10)
    Gateway(world, ledger_connect()).hold(0, caps=(group,))
    row = "WHERE scope = 'user_group' AND scope_id = 7"

    def hold(barrier: threading.Barrier, number: int) -> bool:
        with plain_transaction(committed_db) as connection:
            (held,) = connection.execute(
                f"SELECT held_nanos FROM billing_spendcounter {row}"  # noqa: S608 (no input)
            ).fetchone()
            barrier.wait()
            if held + 1 > group.cap_nanos:
                return False
            connection.execute(
                f"UPDATE billing_spendcounter SET held_nanos = held_nanos + 1 {row}"  # noqa: S608 (no input)
            )
            return True

    granted = race(32, hold)

    assert granted.count(True) == 32
    assert SpendCounter.objects.get().held_nanos == 32
