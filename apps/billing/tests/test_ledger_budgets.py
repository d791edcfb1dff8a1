"""Budgets of days and months are counted with the hold, each period by itself (I-16)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from apps.billing import reaper
from apps.billing.ledger.commands import Cap, Held, HoldRefused
from apps.billing.ledger.store import SWEPT_MAX, Engine, flush
from apps.billing.models import Account, Hold, SpendCounter
from apps.billing.periods import Budget, day_of
from apps.billing.tests.writer_kit import Switch, in_thread, running, until_stored
from apps.billing.verification import report
from tests.support.databases import Database
from tests.support.races import race
from tests.support.soundness import is_sound
from tests.support.tampering import Tamper
from tests.support.world import NOW, UNIT, Gateway, make_world

NOWHERE = Path("/nonexistent")
GROUP_ID = 7
DAY, MONTH = "2026-11-21", "2026-11"
PERIODS = (f"user:{DAY}", f"user:{MONTH}", f"user_group:{DAY}", f"user_group:{MONTH}")
MIDNIGHT = datetime(2026, 11, 22, tzinfo=UTC)
Connect = Callable[[], Engine]


def budgets_of(gateway: Gateway, *units: int, at: datetime = NOW) -> tuple[Cap, ...]:
    """Return the caps of a call: of its user's day and month, then of his group's."""
    day, month, group_day, group_month = (number * UNIT for number in units or (50,) * 4)
    return (
        *Budget("user", gateway.world.user.pk, day, month).caps_at(at),
        *Budget("user_group", GROUP_ID, group_day, group_month).caps_at(at),
    )


def counters() -> dict[str, tuple[int, int]]:
    """Return what each period has spent and holds, in units."""
    rows = SpendCounter.objects.values_list("scope", "spent_nanos", "held_nanos")
    return {scope: (spent // UNIT, held // UNIT) for scope, spent, held in rows}


def test_every_period_counts_a_call(gateway: Gateway) -> None:
    held = gateway.hold(6 * UNIT, caps=budgets_of(gateway))
    assert isinstance(held, Held)
    while_it_runs = counters()

    gateway.resolve(held, 4)

    assert while_it_runs == dict.fromkeys(PERIODS, (0, 6))
    assert counters() == dict.fromkeys(PERIODS, (4, 0))
    assert is_sound()


@pytest.mark.parametrize("narrow", range(4))
def test_a_refusal_by_one_budget_leaves_the_others_as_they_were(
    gateway: Gateway, narrow: int
) -> None:
    first = gateway.hold(6 * UNIT, caps=budgets_of(gateway))
    assert isinstance(first, Held)
    units = [9 if number == narrow else 50 for number in range(4)]
    caps = budgets_of(gateway, *units)

    answer = gateway.hold(4 * UNIT, caps=caps)

    wallet = Account.objects.get(pk=gateway.world.wallet_id)
    assert answer == HoldRefused("cap", caps[narrow])
    assert counters() == dict.fromkeys(PERIODS, (0, 6))
    assert (wallet.posted_nanos, wallet.held_nanos) == (100 * UNIT, 6 * UNIT)
    assert list(Hold.objects.values_list("pk", flat=True)) == [first.request_id]
    assert is_sound()


@pytest.mark.parametrize("narrow", range(4))
def test_a_hold_is_lowered_to_what_the_narrowest_budget_leaves(
    gateway: Gateway, narrow: int
) -> None:
    units = [5 if number == narrow else 50 for number in range(4)]

    answer = gateway.hold(20 * UNIT, minimum=3 * UNIT, caps=budgets_of(gateway, *units))

    assert isinstance(answer, Held)
    assert answer.amount_nanos == 5 * UNIT
    assert counters() == dict.fromkeys(PERIODS, (0, 5))


def test_a_day_begins_at_zero_and_its_month_goes_on(gateway: Gateway) -> None:
    today = budgets_of(gateway, 5, 12, 50, 50)
    tomorrow = budgets_of(gateway, 5, 12, 50, 50, at=NOW + timedelta(days=1))
    held = gateway.hold(5 * UNIT, caps=today)
    assert isinstance(held, Held)
    gateway.resolve(held, 5)

    refused = gateway.hold(UNIT, caps=today)
    next_day = gateway.hold(5 * UNIT, caps=tomorrow)
    in_month = gateway.hold(
        5 * UNIT, caps=budgets_of(gateway, 5, 12, 50, 50, at=NOW + timedelta(days=2))
    )

    assert refused == HoldRefused("cap", today[0])
    assert isinstance(next_day, Held)
    assert isinstance(in_month, HoldRefused)
    assert in_month.cap == Cap("user", gateway.world.user.pk, 12 * UNIT, MONTH)
    assert counters()[f"user:{DAY}"] == (5, 0)
    assert counters()["user:2026-11-22"] == (0, 5)
    assert counters()[f"user:{MONTH}"] == (5, 5)


def test_a_call_over_midnight_counts_in_the_day_in_which_it_began(gateway: Gateway) -> None:
    began_at = MIDNIGHT - timedelta(seconds=1)
    held = gateway.hold(6 * UNIT, caps=budgets_of(gateway, at=began_at), at=began_at)
    assert isinstance(held, Held)
    whole = gateway.hold(50 * UNIT, caps=budgets_of(gateway, 50, 99, 50, 99, at=MIDNIGHT))

    gateway.resolve(held, 4, at=MIDNIGHT + timedelta(hours=1), started_at=began_at)

    assert isinstance(whole, Held)
    shown = counters()
    assert (shown[f"user:{DAY}"], shown["user:2026-11-22"]) == ((4, 0), (0, 50))
    assert shown[f"user:{MONTH}"] == (4, 50)
    assert is_sound()


def test_a_charge_beyond_its_hold_counts_and_the_next_call_is_refused(gateway: Gateway) -> None:
    caps = budgets_of(gateway)
    held = gateway.hold(2 * UNIT, caps=caps)
    assert isinstance(held, Held)

    gateway.resolve(held, 60)

    assert counters() == dict.fromkeys(PERIODS, (60, 0))
    assert gateway.hold(0, caps=caps) == HoldRefused("cap", caps[0])
    assert is_sound()


def test_what_a_dead_owner_left_counts_in_its_period_and_what_comes_late_too(
    gateway: Gateway, ledger_connect: Connect
) -> None:
    held = gateway.hold(6 * UNIT, caps=budgets_of(gateway))
    assert isinstance(held, Held)
    gateway.engine.checkpoint([(held.request_id, '{"input":4}')])
    survivor = Gateway(gateway.world, ledger_connect())
    later = NOW + timedelta(days=40)
    ends = tuple(reaper.resolve_dead(survivor.engine, gateway.incarnation_id, now=later))
    batch = survivor.batch(resolves=ends, at=later)
    flush(survivor.engine, batch, incarnation_id=survivor.incarnation_id)
    reaped = counters()

    for _ in range(2):
        gateway.resolve(held, 5, at=later)

    assert reaped == dict.fromkeys(PERIODS, (4, 0))
    assert counters() == dict.fromkeys(PERIODS, (5, 0))
    assert is_sound()


# ---- counters of periods that are over


def sweep(gateway: Gateway, before: datetime) -> int:
    """Delete counters of periods that began before the day of a moment, whenever this runs."""
    return gateway.engine.sweep_counters(datetime.now(UTC) - before)


def test_counters_of_periods_that_are_over_are_deleted_when_they_hold_nothing(
    gateway: Gateway,
) -> None:
    old, older = NOW - timedelta(days=30), NOW - timedelta(days=60)
    cap = Cap("user", gateway.world.user.pk, 50 * UNIT)
    held = gateway.hold(UNIT, caps=(cap, *budgets_of(gateway)))
    assert isinstance(held, Held)
    gateway.resolve(held, 1)
    for at in (old, older):
        gateway.hold(0, caps=budgets_of(gateway, at=at))
    gateway.hold(UNIT, caps=Budget("user", gateway.world.user.pk, UNIT, None).caps_at(older))

    deleted = [sweep(gateway, datetime(2026, 10, 22, 12, tzinfo=UTC)) for _ in range(2)]

    assert deleted == [5, 0]
    assert set(counters()) == {
        "user",
        *PERIODS,
        "user:2026-10-22",
        "user_group:2026-10-22",
        "user:2026-09-22",
    }


def test_a_call_whose_counters_are_gone_is_charged_all_the_same(gateway: Gateway) -> None:
    held = gateway.hold(0, caps=budgets_of(gateway))
    assert isinstance(held, Held)
    sweep(gateway, datetime(2027, 3, 1, tzinfo=UTC))

    answer = gateway.resolve(held, 4)

    assert (answer.is_first, answer.charged_nanos) == (True, 4 * UNIT)
    assert Account.objects.get(pk=gateway.world.wallet_id).posted_nanos == 96 * UNIT
    assert counters() == {}
    assert is_sound()


async def test_the_writer_deletes_what_is_long_over_however_much_it_is(
    gateway: Gateway, ledger_connect: Connect, tmp_path: Path
) -> None:
    kept = {f"user:{period}" for period in (day_of(datetime.now(UTC)), "2020-01-02")}
    await in_thread(write_counters)(*kept, held_nanos=1)
    await in_thread(write_counters)(*["user:2020-01-01"] * (SWEPT_MAX + 1))

    async with running(Switch(ledger_connect).open, tmp_path):
        await until_stored(lambda: set(counters()), kept)


def write_counters(*scopes: str, held_nanos: int = 0) -> None:
    """Write a counter of each scope, each of another user."""
    SpendCounter.objects.bulk_create(
        SpendCounter(scope=scope, scope_id=number, held_nanos=held_nanos)
        for number, scope in enumerate(scopes, start=1)
    )


# ---- verification


@pytest.mark.parametrize("scope", PERIODS)
def test_a_period_that_says_more_than_was_charged_in_it_is_found(
    gateway: Gateway, committed_db: Database, scope: str
) -> None:
    held = gateway.hold(6 * UNIT, caps=budgets_of(gateway))
    assert isinstance(held, Held)
    gateway.resolve(held, 4)
    Tamper(committed_db).run(
        f"UPDATE billing_spendcounter SET spent_nanos = spent_nanos + 1 WHERE scope = '{scope}'"  # noqa: S608 (no input)
    )

    assert found_amounts() == [("I-15", "4000", "4001")]


@pytest.mark.parametrize(
    ("scope", "moved"),
    [
        (f"user:{DAY}", "user:2026-11-20"),
        (f"user:{MONTH}", "user:2026-10"),
        (f"user_group:{DAY}", "user_group:2026-11-22"),
        (f"user_group:{MONTH}", "user_group:2026-12"),
    ],
)
def test_what_was_charged_in_another_period_explains_nothing(
    gateway: Gateway, committed_db: Database, scope: str, moved: str
) -> None:
    held = gateway.hold(6 * UNIT, caps=budgets_of(gateway))
    assert isinstance(held, Held)
    gateway.resolve(held, 4)
    Tamper(committed_db).run(
        f"UPDATE billing_spendcounter SET scope = '{moved}' WHERE scope = '{scope}'"  # noqa: S608 (no input)
    )

    assert found_amounts() == [("I-15", "0", "4000")]


def found_amounts() -> list[tuple[str, str, str]]:
    """Return what a full verification finds: invariant, expected and found."""
    found = report(is_full=True, anchors_path=NOWHERE, now=datetime.now(UTC)).findings
    return [(finding.invariant, finding.expected, finding.found) for finding in found]


# ---- many at once


def test_32_at_midnight_against_a_group_s_day_for_ten_grant_ten_on_each_side(
    ledger_connect: Connect,
) -> None:
    gateways = [Gateway(make_world(10 * UNIT), ledger_connect()) for _ in range(32)]
    days = [
        Budget("user_group", GROUP_ID, 10 * UNIT, None).caps_at(at)
        for at in (MIDNIGHT - timedelta(seconds=1), MIDNIGHT)
    ]

    def hold(barrier: threading.Barrier, number: int) -> Held | HoldRefused:
        gateway = gateways[number]
        own = Budget("user", gateway.world.user.pk, 10 * UNIT, 10 * UNIT).caps_at(MIDNIGHT)
        caps = (*own, *days[number % 2])
        barrier.wait()
        return gateway.hold(UNIT, caps=caps[:: (-1) ** (number // 2)])

    answers = race(32, hold)

    for day, (cap,) in enumerate(days):
        mine = answers[day::2]
        assert sum(isinstance(answer, Held) for answer in mine) == 10
        assert mine.count(HoldRefused("cap", cap)) == 6
        assert SpendCounter.objects.get(scope=cap.key[0]).held_nanos == 10 * UNIT
    own = SpendCounter.objects.filter(scope__startswith="user:")
    assert sorted(own.values_list("held_nanos", flat=True)) == [0] * 24 + [UNIT] * 40
    assert is_sound()


def test_who_settles_and_holds_at_once_never_passes_a_day(ledger_connect: Connect) -> None:
    gateways = [Gateway(make_world(1_000 * UNIT), ledger_connect()) for _ in range(8)]
    caps = Budget("user_group", GROUP_ID, 40 * UNIT, 200 * UNIT).caps_at(NOW)

    def call(barrier: threading.Barrier, number: int) -> int:
        gateway, charged = gateways[number], 0
        barrier.wait()
        for _ in range(12):
            held = gateway.hold(5 * UNIT, caps=caps)
            if isinstance(held, Held):
                charged += gateway.resolve(held, 3).charged_nanos
        return charged

    charged = sum(race(8, call))
    in_race = SpendCounter.objects.get(scope=caps[0].key[0])
    # What the race left is filled up: twelve calls of three, and no thirteenth that holds five.
    while isinstance(held := gateways[0].hold(5 * UNIT, caps=caps), Held):
        charged += gateways[0].resolve(held, 3).charged_nanos

    assert (in_race.spent_nanos <= 40 * UNIT, in_race.held_nanos) == (True, 0)
    assert charged == 36 * UNIT
    day, month = (SpendCounter.objects.get(scope=cap.key[0]) for cap in caps)
    assert (day.spent_nanos, day.held_nanos) == (36 * UNIT, 0)
    assert (month.spent_nanos, month.held_nanos) == (36 * UNIT, 0)
    assert held == HoldRefused("cap", caps[0])
    assert is_sound()
