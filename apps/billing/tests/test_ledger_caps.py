"""Caps on every level are counted together: all of them or none (I-16)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from apps.billing import reaper
from apps.billing.ledger.commands import Cap, CapScope, Held, HoldRefused
from apps.billing.ledger.store import Engine, flush
from apps.billing.models import Account, Hold, SpendCounter
from apps.billing.verification import report
from apps.core.ids import new_uuid7
from tests.support.databases import Database
from tests.support.soundness import is_sound
from tests.support.tampering import Tamper
from tests.support.world import NOW, UNIT, Gateway

GROUP_ID = 7
OTHER_PROVIDER_ID = 1_000_000
LEVELS: tuple[CapScope, ...] = ("api_key", "user", "user_group", "provider")
Connect = Callable[[], Engine]


def caps_of(gateway: Gateway, **units: int) -> tuple[Cap, ...]:
    """Return a cap on every level: 50 units where none are given."""
    world = gateway.world
    ids: Mapping[CapScope, int] = {
        "api_key": world.key.pk,
        "user": world.user.pk,
        "user_group": GROUP_ID,
        "provider": world.provider.pk,
    }
    return tuple(Cap(level, ids[level], units.get(level, 50) * UNIT) for level in LEVELS)


def on_all(*, spent: int = 0, held: int = 0) -> dict[str, tuple[int, int]]:
    """Return what `counters` shows where all levels have counted the same."""
    names: tuple[str, ...] = LEVELS
    return dict.fromkeys(names, (spent, held))


def counters() -> dict[str, tuple[int, int]]:
    """Return what each level has spent and holds, in units."""
    rows = SpendCounter.objects.values_list("scope", "scope_id", "spent_nanos", "held_nanos")
    shown = {}
    for scope, scope_id, spent, held in rows:
        name = "spare" if scope_id == OTHER_PROVIDER_ID else scope
        shown[name] = (spent // UNIT, held // UNIT)
    return shown


def test_every_level_counts_a_call(gateway: Gateway) -> None:
    held = gateway.hold(6 * UNIT, caps=caps_of(gateway))
    assert isinstance(held, Held)
    while_it_runs = counters()

    gateway.resolve(held, 4)

    assert while_it_runs == on_all(held=6)
    assert counters() == on_all(spent=4)
    assert is_sound()


@pytest.mark.parametrize("level", LEVELS)
def test_a_refusal_at_one_level_leaves_the_others_as_they_were(
    gateway: Gateway, level: CapScope
) -> None:
    first = gateway.hold(6 * UNIT, caps=caps_of(gateway))
    assert isinstance(first, Held)
    caps = caps_of(gateway, **{level: 9})

    answer = gateway.hold(4 * UNIT, caps=caps)

    wallet = Account.objects.get(pk=gateway.world.wallet_id)
    assert answer == HoldRefused("cap", caps[LEVELS.index(level)])
    assert counters() == on_all(held=6)
    assert (wallet.posted_nanos, wallet.held_nanos) == (100 * UNIT, 6 * UNIT)
    assert list(Hold.objects.values_list("pk", flat=True)) == [first.request_id]
    assert is_sound()


@pytest.mark.parametrize("level", LEVELS)
def test_a_hold_is_lowered_to_what_the_narrowest_level_leaves(
    gateway: Gateway, level: CapScope
) -> None:
    answer = gateway.hold(20 * UNIT, minimum=3 * UNIT, caps=caps_of(gateway, **{level: 5}))

    assert isinstance(answer, Held)
    assert answer.amount_nanos == 5 * UNIT
    assert counters() == on_all(held=5)


def test_a_provider_s_budget_covers_the_whole_where_another_may(gateway: Gateway) -> None:
    caps = caps_of(gateway, user=8, provider=5)
    command = gateway.placement(20 * UNIT, minimum=3 * UNIT, caps=caps)

    answers = [
        flush(
            gateway.engine,
            gateway.batch(holds=(command._replace(request_id=new_uuid7(), **changes),)),
            incarnation_id=gateway.incarnation_id,
        )[1][0]
        for changes in (
            {"is_whole_at_provider": True},
            {"is_whole_at_provider": True, "amount_nanos": 5 * UNIT},
        )
    ]

    assert answers[0] == HoldRefused("cap", caps[3])
    assert isinstance(answers[0], HoldRefused)
    assert answers[0].left_nanos == 5 * UNIT
    assert isinstance(answers[1], Held)
    assert counters() == on_all(held=5)


def test_too_little_money_counts_nowhere(gateway: Gateway) -> None:
    answer = gateway.hold(101 * UNIT, caps=caps_of(gateway))

    assert answer == HoldRefused("balance")
    assert counters() == on_all()


def test_holds_of_one_batch_see_each_other(gateway: Gateway, ledger_connect: Connect) -> None:
    caps = caps_of(gateway, user_group=10)
    commands = tuple(gateway.placement(4 * UNIT, caps=caps) for _ in range(3))

    _, answers = flush(
        gateway.engine, gateway.batch(holds=commands), incarnation_id=gateway.incarnation_id
    )

    assert [isinstance(answer, Held) for answer in answers] == [True, True, False]
    assert answers[2] == HoldRefused("cap", caps[2])
    assert counters() == on_all(held=8)


def test_what_is_charged_beyond_the_hold_counts_everywhere(gateway: Gateway) -> None:
    held = gateway.hold(2 * UNIT, caps=caps_of(gateway))
    assert isinstance(held, Held)

    gateway.resolve(held, 60)

    assert counters() == on_all(spent=60)
    assert is_sound()


@pytest.mark.parametrize(("answers", "spent"), [("provider", (4, 0)), ("spare", (0, 4))])
def test_the_provider_that_answers_counts_the_charge(
    gateway: Gateway, answers: str, spent: tuple[int, int]
) -> None:
    spare = Cap("provider", OTHER_PROVIDER_ID, 50 * UNIT)
    held = gateway.hold(6 * UNIT, caps=caps_of(gateway), spare_caps=(spare,))
    assert isinstance(held, Held)
    while_it_runs = counters()
    row: dict[str, Any] = {"provider_id": OTHER_PROVIDER_ID} if answers == "spare" else {}

    gateway.resolve(held, 4, **row)

    assert held.spares == (spare,)
    assert while_it_runs["provider"] == while_it_runs["spare"] == (0, 6)
    assert counters() == {
        **on_all(spent=4),
        "provider": (spent[0], 0),
        "spare": (spent[1], 0),
    }
    assert is_sound()


def test_a_spare_provider_that_does_not_cover_the_hold_is_left_out(gateway: Gateway) -> None:
    spare = Cap("provider", OTHER_PROVIDER_ID, 5 * UNIT)

    held = gateway.hold(6 * UNIT, minimum=UNIT, caps=caps_of(gateway), spare_caps=(spare,))

    assert isinstance(held, Held)
    assert (held.amount_nanos, held.spares) == (6 * UNIT, ())
    assert counters() == {**on_all(held=6), "spare": (0, 0)}


def test_a_dead_owner_s_call_is_given_back_at_every_level(
    gateway: Gateway, ledger_connect: Connect
) -> None:
    spare = Cap("provider", OTHER_PROVIDER_ID, 50 * UNIT)
    holds = [gateway.hold(6 * UNIT, caps=caps_of(gateway), spare_caps=(spare,)) for _ in range(2)]
    assert isinstance(holds[1], Held)
    gateway.engine.checkpoint([(holds[1].request_id, '{"input":4}')])
    survivor = Gateway(gateway.world, ledger_connect())

    ends = tuple(reaper.resolve_dead(survivor.engine, gateway.incarnation_id, now=NOW))
    flush(survivor.engine, survivor.batch(resolves=ends), incarnation_id=survivor.incarnation_id)

    assert counters() == {**on_all(spent=4), "spare": (0, 0)}
    assert is_sound()


def test_what_comes_late_counts_once_and_for_the_provider_on_record(
    gateway: Gateway, ledger_connect: Connect
) -> None:
    spare = Cap("provider", OTHER_PROVIDER_ID, 50 * UNIT)
    held = gateway.hold(6 * UNIT, caps=caps_of(gateway), spare_caps=(spare,))
    assert isinstance(held, Held)
    survivor = Gateway(gateway.world, ledger_connect())
    ends = tuple(reaper.resolve_dead(survivor.engine, gateway.incarnation_id, now=NOW))
    flush(survivor.engine, survivor.batch(resolves=ends), incarnation_id=survivor.incarnation_id)

    for _ in range(2):
        gateway.resolve(held, 5, provider_id=OTHER_PROVIDER_ID)

    assert counters() == {**on_all(spent=5), "spare": (0, 0)}
    assert is_sound()


def test_a_cap_that_is_lowered_below_what_is_spent_refuses(gateway: Gateway) -> None:
    held = gateway.hold(6 * UNIT, caps=caps_of(gateway))
    assert isinstance(held, Held)
    gateway.resolve(held, 6)
    caps = caps_of(gateway, user=2)

    answer = gateway.hold(0, caps=caps)

    assert answer == HoldRefused("cap", caps[1])


def test_calls_without_a_cap_have_no_counter(gateway: Gateway) -> None:
    held = gateway.hold(6 * UNIT)
    assert isinstance(held, Held)

    gateway.resolve(held, 4)

    assert counters() == {}


@pytest.mark.parametrize("level", LEVELS)
def test_a_counter_that_says_more_than_was_charged_is_found(
    gateway: Gateway, committed_db: Database, level: CapScope
) -> None:
    held = gateway.hold(6 * UNIT, caps=caps_of(gateway))
    assert isinstance(held, Held)
    gateway.resolve(held, 4)
    Tamper(committed_db).run(
        f"UPDATE billing_spendcounter SET spent_nanos = spent_nanos + 1 WHERE scope = '{level}'"  # noqa: S608 (no input)
    )

    found = report(is_full=True, anchors_path=Path("/nonexistent"), now=datetime.now(UTC)).findings

    assert [(finding.invariant, finding.expected, finding.found) for finding in found] == [
        ("I-15", "4000", "4001")
    ]
