"""What becomes of the holds of processes that died."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import orjson
import psycopg
import pytest
from django.db import connection

from apps.ai_models.models import PriceVersion
from apps.audit.models import APIRequest
from apps.billing import reaper
from apps.billing.flushing import Flusher, Outcome
from apps.billing.ledger.commands import Held, Resolved
from apps.billing.ledger.store import Engine
from apps.billing.models import Entry
from apps.billing.tasks import GRACE_SECONDS, reap
from apps.billing.tests.writer_kit import account, ends, hold_of, open_holds, resolve_of
from tests.support.databases import Database
from tests.support.soundness import is_sound
from tests.support.world import NOW, World, make_world

WALLET = 1_000_000
Connect = Callable[[], Engine]


@pytest.fixture
def world(committed_db: Database) -> World:
    """A customer with 1,000,000 nanos; input costs 1000 nanos a token, output 4000."""
    return make_world(WALLET)


class Process:
    """A gateway with a lease, as the ledger sees it."""

    def __init__(self, connect: Connect, lease_seconds: int = 30) -> None:
        self.engine = connect()
        self.id = self.engine.open_incarnation(
            kind="gateway", host="tests", pid=1, lease_seconds=lease_seconds
        )
        self.flusher = Flusher(self.engine)
        self.flusher.use_lease(self.id)

    def place(self, world: World, nanos: int = 10_000, **detail: object) -> Held:
        _, (held,) = self.flusher.flush([], [hold_of(world, nanos, **detail)])
        assert isinstance(held, Held)
        return held

    def reap(self) -> list[Outcome]:
        """Do once what the ledger thread does again and again."""
        outcomes: list[Outcome] = []
        dead = reaper.list_dead(self.engine, own_id=self.id, all_others=False)
        for incarnation_id in dead:
            ends = reaper.resolve_dead(self.engine, incarnation_id, now=datetime.now(UTC))
            outcomes += self.flusher.flush(ends, [])[0]
        return outcomes

    def die(self) -> None:
        self.engine.end(self.id)


def test_without_a_checkpoint_the_call_of_a_dead_process_costs_nothing(
    world: World, ledger_connect: Connect
) -> None:
    dead, living = Process(ledger_connect), Process(ledger_connect)
    dead.place(world)
    dead.die()

    living.reap()

    row = APIRequest.objects.get()
    assert (row.state, row.error_code, row.usage_source) == (
        "interrupted",
        "gateway_crashed",
        "none",
    )
    assert account(world.wallet_id) == (WALLET, 0)
    assert is_sound()


def test_what_a_provider_bills_for_a_call_of_a_dead_process_is_not_known(
    world: World, ledger_connect: Connect
) -> None:
    dead, living = Process(ledger_connect), Process(ledger_connect)
    dead.place(world)
    held = dead.place(world)
    dead.engine.checkpoint([(held.request_id, '{"input": 1}')])
    dead.die()

    living.reap()

    rows = APIRequest.objects.order_by("id").values_list("usage_source", "cost_nanos")
    assert list(rows) == [("none", None), ("checkpoint", None)]


def test_nothing_was_sent_under_the_hold_of_a_quote_of_a_dead_process(
    world: World, ledger_connect: Connect
) -> None:
    dead, living = Process(ledger_connect), Process(ledger_connect)
    dead.place(world, quote_seconds=60)
    dead.die()

    living.reap()

    row = APIRequest.objects.get()
    assert (row.state, row.charge_nanos, row.cost_nanos) == ("interrupted", 0, 0)


def test_with_a_checkpoint_it_costs_what_had_been_delivered(
    world: World, ledger_connect: Connect
) -> None:
    dead, living = Process(ledger_connect), Process(ledger_connect)
    held = dead.place(world)
    text = orjson.dumps({"input": 1, "output": 2}).decode()
    dead.engine.checkpoint([(held.request_id, text)])
    dead.die()

    living.reap()

    row = APIRequest.objects.get()
    assert (row.charge_nanos, row.input_tokens, row.output_tokens) == (9_000, 1, 2)
    assert row.usage_source == "checkpoint"
    assert account(world.wallet_id) == (WALLET - 9_000, 0)
    assert is_sound()


def test_a_price_that_cannot_be_read_keeps_nobody_elses_hold(
    world: World, ledger_connect: Connect
) -> None:
    unreadable = PriceVersion.objects.create(
        model=world.model, effective_at=NOW, input_nanos=1, output_nanos=1, terms={"moons": []}
    )
    dead, living = Process(ledger_connect), Process(ledger_connect)
    text = orjson.dumps({"input": 1, "output": 2}).decode()
    for detail in ({"price_version_id": unreadable.pk}, {}):
        dead.engine.checkpoint([(dead.place(world, **detail).request_id, text)])
    dead.die()

    living.reap()

    assert sorted(ends()) == [("interrupted", 0), ("interrupted", 9_000)]
    assert account(world.wallet_id) == (WALLET - 9_000, 0)


def test_a_checkpoint_is_charged_at_the_tier_that_was_asked_for(
    world: World, ledger_connect: Connect
) -> None:
    price = PriceVersion.objects.create(
        model=world.model,
        effective_at=NOW,
        input_nanos=1_000_000_000,
        output_nanos=4_000_000_000,
        web_search_nanos=100,
        terms={"service_tiers": [{"name": "flex", "multiplier_millionths": 500_000}]},
    )
    dead, living = Process(ledger_connect), Process(ledger_connect)
    held = dead.place(world, service_tier="flex", price_version_id=price.pk)
    text = orjson.dumps({"input": 1, "output": 2, "web_search": 3}).decode()
    dead.engine.checkpoint([(held.request_id, text)])
    dead.die()

    living.reap()

    row = APIRequest.objects.get()
    # (1,000 + 2 x 4,000) / 2 + 3 x 100
    assert (row.charge_nanos, row.service_tier, row.counts) == (4_800, "flex", '{"web_search":3}')
    assert is_sound()


def test_a_checkpoint_is_never_charged_above_the_hold(
    world: World, ledger_connect: Connect
) -> None:
    dead, living = Process(ledger_connect), Process(ledger_connect)
    held = dead.place(world, 5_000)
    dead.engine.checkpoint([(held.request_id, '{"input": 1, "output": 900}')])
    dead.die()

    living.reap()

    assert ends() == [("interrupted", 5_000)]
    assert account(world.wallet_id) == (WALLET - 5_000, 0)
    assert is_sound()


def test_the_holds_of_living_processes_are_untouched(world: World, ledger_connect: Connect) -> None:
    living, other = Process(ledger_connect), Process(ledger_connect)
    held = living.place(world)

    outcomes = other.reap()

    assert outcomes == []
    assert open_holds() == {held.request_id}


@pytest.mark.postgres
def test_a_lease_that_ran_out_is_ended_by_the_database_clock(
    world: World, ledger_connect: Connect
) -> None:
    frozen, other = Process(ledger_connect, lease_seconds=-1), Process(ledger_connect)
    frozen.place(world)

    other.reap()

    assert ends() == [("interrupted", 0)]
    assert not frozen.engine.renew(frozen.id, 30)


def test_two_reapers_at_once_resolve_each_hold_once(world: World, ledger_connect: Connect) -> None:
    dead = Process(ledger_connect)
    for _ in range(20):
        held = dead.place(world)
        dead.engine.checkpoint([(held.request_id, '{"input": 1}')])
    dead.die()
    reapers = [Process(ledger_connect) for _ in range(4)]
    barrier = threading.Barrier(4, timeout=20)

    def reap_at_once(process: Process) -> list[Outcome]:
        barrier.wait()
        return process.reap()

    with ThreadPoolExecutor(4) as threads:
        outcomes = [one for found in threads.map(reap_at_once, reapers) for one in found]

    assert sum(isinstance(one, Resolved) and one.is_first for one in outcomes) == 20
    assert ends() == [("interrupted", 1_000)] * 20
    assert account(world.wallet_id) == (WALLET - 20_000, 0)
    assert is_sound()


def test_an_owner_that_settles_late_adds_the_difference_once(
    world: World, ledger_connect: Connect
) -> None:
    frozen, other = Process(ledger_connect), Process(ledger_connect)
    held = frozen.place(world)
    frozen.engine.checkpoint([(held.request_id, '{"input": 2}')])
    frozen.die()
    other.reap()

    settlement = resolve_of(world, held, 7)
    woken = Process(ledger_connect)
    answers = [woken.flusher.flush([settlement], [])[0][0] for _ in range(3)]

    late = Entry.objects.filter(request_id=held.request_id, kind="late")
    assert answers == [
        Resolved(held.request_id, 5_000, is_first=False),
        Resolved(held.request_id, 0, is_first=False),
        Resolved(held.request_id, 0, is_first=False),
    ]
    assert [entry.amount_nanos for entry in late] == [-5_000]
    assert ends() == [("interrupted", 2_000)]
    assert account(world.wallet_id) == (WALLET - 7_000, 0)
    assert is_sound()


def test_an_owner_that_settles_late_for_less_gives_nothing_back(
    world: World, ledger_connect: Connect
) -> None:
    frozen, other = Process(ledger_connect), Process(ledger_connect)
    held = frozen.place(world)
    frozen.engine.checkpoint([(held.request_id, '{"input": 5}')])
    frozen.die()
    other.reap()

    (answer,), _ = other.flusher.flush([resolve_of(world, held, 3)], [])

    assert answer == Resolved(held.request_id, 0, is_first=False)
    assert account(world.wallet_id) == (WALLET - 5_000, 0)


@pytest.mark.postgres
def test_a_worker_gives_gateways_time_to_renew_after_the_database_was_away(
    world: World, ledger_connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    living, dead = (Process(ledger_connect, lease_seconds=-3_600) for _ in range(2))
    held = living.place(world)
    lost = dead.place(world)
    waited: list[float] = []

    def pass_time(seconds: float) -> None:
        waited.append(seconds)
        if sum(waited) == GRACE_SECONDS:
            # Even where that is as old again when the worker looks the next time.
            living.engine.renew(living.id, -1)

    monkeypatch.setattr(time, "sleep", pass_time)

    resolved = reap()

    assert (resolved, sum(waited)) == (1, 15)
    assert [row.pk for row in APIRequest.objects.all()] == [lost.request_id]
    assert open_holds() == {held.request_id}
    assert living.engine.renew(living.id, 30)


@pytest.mark.postgres
def test_a_worker_ends_no_lease_where_the_database_goes_away_again(
    world: World, ledger_connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    living = Process(ledger_connect, lease_seconds=-3_600)
    living.place(world)

    def lose_the_connection(_: float) -> None:
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'ledger_writer' AND datname = current_database()"
            )

    monkeypatch.setattr(time, "sleep", lose_the_connection)

    with pytest.raises(psycopg.OperationalError):
        reap()

    assert ends() == []
    assert Process(ledger_connect).engine.renew(living.id, 30)


@pytest.mark.postgres
def test_a_worker_reaps_where_no_gateway_lives_and_ends_on_a_poisonous_hold(
    world: World, ledger_connect: Connect
) -> None:
    dead = Process(ledger_connect)
    good = dead.place(world)
    poison = dead.place(world, user_name=None)
    dead.die()

    resolved = reap()

    assert resolved == 1
    assert open_holds() == {poison.request_id}
    assert [row.pk for row in APIRequest.objects.all()] == [good.request_id]
