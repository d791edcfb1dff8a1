"""Who is dead, who decides it, and what becomes of the money that the dead held (I-12 to I-14)."""

from __future__ import annotations

import ast
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from apps.audit.models import APIRequest
from apps.billing import reaper
from apps.billing.ledger import postgres
from apps.billing.ledger.commands import Held
from apps.billing.ledger.store import Engine, IncarnationEnded, flush
from apps.billing.models import Account, Hold, Incarnation
from tests.support.world import NOW, UNIT, Gateway, make_world

Connect = Callable[[], Engine]


@pytest.fixture
def gateway(ledger_connect: Connect) -> Gateway:
    """A gateway with two open holds of 6 units; the second has a checkpoint of 4."""
    gateway = Gateway(make_world(20 * UNIT), ledger_connect())
    holds = [gateway.hold(6 * UNIT) for _ in range(2)]
    assert isinstance(holds[1], Held)
    gateway.engine.checkpoint([(holds[1].request_id, '{"input":4}')])
    return gateway


@pytest.fixture
def survivor(gateway: Gateway, ledger_connect: Connect) -> Gateway:
    """Another gateway of the same customer."""
    return Gateway(gateway.world, ledger_connect())


def let_the_lease_run_out(gateway: Gateway, seconds: int) -> None:
    lease = Incarnation.objects.get(pk=gateway.incarnation_id)
    past = lease.renewed_at - timedelta(seconds=seconds)
    Incarnation.objects.filter(pk=gateway.incarnation_id).update(expires_at=past)


def reap(survivor: Gateway, *, all_others: bool) -> list[int]:
    """Do what a living gateway does with the dead ones, and return who they were."""
    engine = survivor.engine
    dead = reaper.list_dead(engine, own_id=survivor.incarnation_id, all_others=all_others)
    for incarnation_id in dead:
        ends = tuple(reaper.resolve_dead(engine, incarnation_id, now=NOW))
        flush(engine, survivor.batch(resolves=ends), incarnation_id=survivor.incarnation_id)
    return dead


def test_a_dead_owner_s_calls_cost_their_checkpoint_or_nothing(
    gateway: Gateway, survivor: Gateway
) -> None:
    dead = reap(survivor, all_others=True)

    wallet = Account.objects.get(pk=gateway.world.wallet_id)
    rows = APIRequest.objects.order_by("id").values_list("state", "usage_source", "charge_nanos")
    assert dead == [gateway.incarnation_id]
    assert list(rows) == [
        ("interrupted", "none", 0),
        ("interrupted", "checkpoint", 4 * UNIT),
    ]
    assert (wallet.posted_nanos, wallet.held_nanos) == (16 * UNIT, 0)
    assert Hold.objects.count() == 0


def test_a_checkpoint_above_the_hold_costs_the_hold(gateway: Gateway, survivor: Gateway) -> None:
    request_id = Hold.objects.exclude(checkpoint=None).get().pk
    gateway.engine.checkpoint([(request_id, '{"input":9}')])

    reap(survivor, all_others=True)

    assert APIRequest.objects.get(pk=request_id).charge_nanos == 6 * UNIT


def test_reaping_twice_changes_nothing_more(gateway: Gateway, survivor: Gateway) -> None:
    reap(survivor, all_others=True)

    again = reap(survivor, all_others=True)

    assert again == []
    assert APIRequest.objects.count() == 2


def test_the_holds_of_a_living_owner_are_left_alone(gateway: Gateway, survivor: Gateway) -> None:
    let_the_lease_run_out(gateway, seconds=-30)

    dead = reap(survivor, all_others=False)

    assert dead == []
    assert Hold.objects.count() == 2


@pytest.mark.postgres
def test_a_lease_that_ran_out_ends(gateway: Gateway, survivor: Gateway) -> None:
    let_the_lease_run_out(gateway, seconds=1)

    dead = reap(survivor, all_others=False)

    assert dead == [gateway.incarnation_id]
    assert Hold.objects.count() == 0


def test_an_owner_that_was_taken_for_dead_notices_and_holds_nothing(
    gateway: Gateway, survivor: Gateway
) -> None:
    reap(survivor, all_others=True)

    with pytest.raises(IncarnationEnded):
        gateway.hold(UNIT)

    assert gateway.engine.renew(gateway.incarnation_id, 30) is False
    assert Hold.objects.count() == 0
    assert Account.objects.get(pk=gateway.world.wallet_id).held_nanos == 0


def test_an_owner_that_wakes_up_late_adds_only_the_difference(
    gateway: Gateway, survivor: Gateway, ledger_connect: Connect
) -> None:
    held = list(gateway.holds.values())
    reap(survivor, all_others=True)
    woken = Gateway(gateway.world, ledger_connect())

    charged = [woken.resolve(hold, 5).charged_nanos for hold in held]

    assert charged == [5 * UNIT, 1 * UNIT]
    assert Account.objects.get(pk=gateway.world.wallet_id).posted_nanos == 10 * UNIT


def test_a_lease_lasts_as_long_as_it_was_asked_for(ledger_connect: Connect) -> None:
    engine = ledger_connect()
    lease_id = engine.open_incarnation(kind="gateway", host="a", pid=1, lease_seconds=30)
    opened = Incarnation.objects.get(pk=lease_id)

    engine.renew(lease_id, 45)

    renewed = Incarnation.objects.get(pk=lease_id)
    assert round((opened.expires_at - opened.renewed_at).total_seconds()) == 30
    assert round((renewed.expires_at - renewed.renewed_at).total_seconds()) == 45
    assert renewed.expires_at > opened.expires_at


@pytest.mark.parametrize("module", [postgres, reaper], ids=["statements", "reaper"])
def test_on_postgresql_no_host_s_clock_decides_who_is_dead(module: object) -> None:
    path = getattr(module, "__file__", "")
    tree = ast.parse(Path(path).read_text())
    asked = {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and node.attr in ("now", "utcnow", "time", "today")
    }

    assert asked == set()


def test_a_hold_is_as_old_as_it_is_however_the_host_s_clock_was_set(
    gateway: Gateway, survivor: Gateway
) -> None:
    now = datetime.now(UTC)
    placed = [survivor.hold(UNIT, at=now + timedelta(days=days)) for days in (-1, 1)]

    old = survivor.engine.own_holds(survivor.incarnation_id, 3_600)
    all_of_them = survivor.engine.own_holds(survivor.incarnation_id, 0)

    assert old == []
    assert {row["request_id"] for row in all_of_them} == {
        hold.request_id for hold in placed if isinstance(hold, Held)
    }
    assert len(all_of_them) == 2
