"""The ledger, told as statements of account. One unit is 1000 nanos: the price of one input token.

A step is a verb, a name, an amount and options, then what the accounts show after it: the wallet's
posted and held, what is owed, and where a story has a quota, the quota's posted and held.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest

from apps.billing.ledger.commands import Cap, Held, HoldRefused, PlaceHold
from apps.billing.ledger.store import Engine, flush
from apps.billing.models import Account, SpendCounter
from apps.billing.verification import report
from tests.support.world import UNIT, Gateway, World, make_quota, make_world, top_up

STORIES = {
    "a call takes what it cost and gives the rest back": """
                                    -> posted held owed
        top_up  cash     10         ->   10     0    0
        hold    r         6         ->   10     6    0
        settle  r         4         ->    6     0    0
    """,
    "a call that was never sent costs nothing": """
                                    -> posted held owed
        top_up  cash     10         ->   10     0    0
        hold    r         6         ->   10     6    0
        void    r                   ->   10     0    0
    """,
    "a hold that is not covered is refused and holds nothing": """
                                    -> posted held owed
        top_up  cash     10         ->   10     0    0
        hold    r         6         ->   10     6    0
        hold    s         5         -> refused balance
        settle  r         6         ->    4     0    0
    """,
    "a hold is lowered to what is there, not below its minimum": """
                                    -> posted held owed
        top_up  cash     10         ->   10     0    0
        hold    r         7         ->   10     7    0
        hold    s         7  min 4  -> refused balance
        hold    t         7  min 3  ->   10    10    0
        settle  t         2         ->    8     7    0
        settle  r         7         ->    1     0    0
    """,
    "usage above the hold is charged in full and owed, never taken below zero": """
                                    -> posted held owed
        top_up  cash     10         ->   10     0    0
        hold    r        10         ->   10    10    0
        settle  r        25         ->    0     0   15
        hold    next      1         -> refused owing
        top_up  cash     20         ->    5     0    0
        hold    next      1         ->    5     1    0
    """,
    "usage above the hold takes what is free in the wallet first": """
                                    -> posted held owed
        top_up  cash     10         ->   10     0    0
        hold    r         2         ->   10     2    0
        settle  r         5         ->    5     0    0
    """,
    "usage above the hold never takes what others hold": """
                                    -> posted held owed
        top_up  cash     10         ->   10     0    0
        hold    r         2         ->   10     2    0
        hold    s         7         ->   10     9    0
        settle  r         5         ->    7     7    2
        settle  s         7         ->    0     0    2
    """,
    "a top-up that does not cover the debt leaves the rest owed": """
                                    -> posted held owed
        top_up  cash      2         ->    2     0    0
        hold    r         2         ->    2     2    0
        settle  r        10         ->    0     0    8
        top_up  cash      3         ->    0     0    5
        hold    next      1         -> refused owing
        top_up  cash      5         ->    0     0    0
        hold    next      1         -> refused balance
    """,
    "a quota is taken before the wallet": """
                                    -> posted held owed quota kept
        top_up  cash     10         ->   10     0    0     0    0
        quota   gift      4         ->   10     0    0     4    0
        hold    r         3         ->   10     0    0     4    3
        settle  r         2         ->   10     0    0     2    0
    """,
    "a hold spans quota and wallet and settles in the order in which it took them": """
                                    -> posted held owed quota kept
        top_up  cash     10         ->   10     0    0     0    0
        quota   gift      4         ->   10     0    0     4    0
        hold    r         9         ->   10     5    0     4    4
        settle  r         6         ->    8     0    0     0    0
    """,
    "a spanning hold that used little gives the wallet's part back": """
                                    -> posted held owed quota kept
        top_up  cash     10         ->   10     0    0     0    0
        quota   gift      4         ->   10     0    0     4    0
        hold    r         9         ->   10     5    0     4    4
        settle  r         1         ->   10     0    0     3    0
    """,
    "what exceeds a hold never touches a quota": """
                                    -> posted held owed quota kept
        top_up  cash      3         ->    3     0    0     0    0
        quota   gift      9         ->    3     0    0     9    0
        hold    r         2         ->    3     0    0     9    2
        settle  r         7         ->    0     0    2     7    0
    """,
    "a hold is lowered across quota and wallet": """
                                    -> posted held owed quota kept
        top_up  cash      3         ->    3     0    0     0    0
        quota   gift      2         ->    3     0    0     2    0
        hold    r         9  min 5  ->    3     3    0     2    2
        settle  r         5         ->    0     0    0     0    0
    """,
    "a cap is exact: what is spent and what is held count": """
                                    -> posted held owed
        top_up  cash    100         ->  100     0    0
        hold    r         6  cap 10 ->  100     6    0
        hold    s         5  cap 10 -> refused cap
        hold    s         4  cap 10 ->  100    10    0
        settle  r         2         ->   98     4    0
        hold    t         5  cap 10 -> refused cap
        hold    t         4  cap 10 ->   98     8    0
        settle  s         4         ->   94     4    0
        settle  t         4         ->   90     0    0
        hold    u         1  cap 10 -> refused cap
    """,
    "a hold is lowered to its cap": """
                                    -> posted held owed
        top_up  cash    100         ->  100     0    0
        hold    r        40  min 3  cap 10 ->  100    10    0
        settle  r         4         ->   96     0    0
        hold    s        40  min 7  cap 10 -> refused cap
        hold    s        40  min 6  cap 10 ->   96     6    0
        void    s                   ->   96     0    0
    """,
    "settling twice charges once": """
                                    -> posted held owed
        top_up  cash     10         ->   10     0    0
        hold    r         6         ->   10     6    0
        settle  r         4         ->    6     0    0
        settle  r         4         ->    6     0    0
        void    r                   ->    6     0    0
    """,
    "an owner who comes after the reaper posts the difference once": """
                                    -> posted held owed
        top_up  cash     10         ->   10     0    0
        hold    r         6         ->   10     6    0
        reap    r                   ->   10     0    0
        late    r         4         ->    6     0    0
        late    r         4         ->    6     0    0
    """,
    "an owner who comes after a checkpoint was charged posts what is missing": """
                                    -> posted held owed
        top_up  cash     10         ->   10     0    0
        hold    r         6         ->   10     6    0
        reap    r         3         ->    7     0    0
        late    r         5         ->    5     0    0
        late    r         5         ->    5     0    0
    """,
    "a late settlement of less than was charged gives nothing back": """
                                    -> posted held owed
        top_up  cash     10         ->   10     0    0
        hold    r         6         ->   10     6    0
        reap    r         3         ->    7     0    0
        late    r         2         ->    7     0    0
    """,
    "a late settlement takes what is free and owes the rest": """
                                    -> posted held owed
        top_up  cash      6         ->    6     0    0
        hold    r         6         ->    6     6    0
        reap    r                   ->    6     0    0
        hold    s         4         ->    6     4    0
        late    r         5         ->    4     4    3
        settle  s         4         ->    0     0    3
    """,
}


@dataclass(slots=True)
class Teller:
    """Does what a story says, and reads the accounts after each step."""

    world: World
    gateway: Gateway
    quotas: list[int] = field(default_factory=list)
    holds: dict[str, Held] = field(default_factory=dict)

    def do(self, verb: str, name: str, amount: int, options: dict[str, int]) -> str:
        """Do one step and return the reason of a refusal, or nothing."""
        if verb == "top_up":
            top_up(self.world, amount * UNIT)
        elif verb == "quota":
            self.quotas.append(make_quota(self.world, amount * UNIT))
        elif verb == "hold":
            return self._hold(name, amount, options)
        elif verb == "reap":
            source = "checkpoint" if amount else "none"
            self.gateway.resolve(self.holds[name], amount, state="interrupted", usage_source=source)
        else:
            assert verb in ("settle", "void", "late")
            self.gateway.resolve(self.holds[name], amount)
        return ""

    def balances(self) -> list[int]:
        """Return posted, held, owed, and of all quotas together posted and held, in units."""
        wallet = Account.objects.get(pk=self.world.wallet_id)
        receivable = Account.objects.get(pk=self.world.receivable_id)
        quotas = list(Account.objects.filter(pk__in=self.quotas))
        nanos = (
            wallet.posted_nanos,
            wallet.held_nanos,
            -receivable.posted_nanos,
            sum(quota.posted_nanos for quota in quotas),
            sum(quota.held_nanos for quota in quotas),
        )
        assert all(amount % UNIT == 0 for amount in nanos)
        return [amount // UNIT for amount in nanos]

    def _hold(self, name: str, amount: int, options: dict[str, int]) -> str:
        caps: tuple[Cap, ...] = ()
        if "cap" in options:
            caps = (Cap("api_key", self.world.key.pk, options["cap"] * UNIT),)
        answer = self.gateway.hold(
            amount * UNIT,
            minimum=options["min"] * UNIT if "min" in options else None,
            quotas=tuple(self.quotas),
            caps=caps,
        )
        if isinstance(answer, HoldRefused):
            return f"refused {answer.reason}"
        self.holds[name] = answer
        return ""


def steps(story: str) -> list[tuple[str, str, int, dict[str, int], str]]:
    """Return verb, name, amount, options and the expected end of each line but the heading."""
    parsed = []
    for line in story.strip().splitlines()[1:]:
        step, _, expected = line.partition("->")
        verb, name, *rest = step.split()
        amount = int(rest.pop(0)) if rest else 0
        options = dict(zip(rest[::2], map(int, rest[1::2]), strict=True))
        parsed.append((verb, name, amount, options, " ".join(expected.split())))
    return parsed


@pytest.mark.parametrize("title", STORIES)
def test_story(title: str, ledger_connect: Callable[[], Engine]) -> None:
    world = make_world(wallet_nanos=0)
    teller = Teller(world, Gateway(world, ledger_connect()))

    for verb, name, amount, options, expected in steps(STORIES[title]):
        before = teller.balances()
        refusal = teller.do(verb, name, amount, options)
        after = teller.balances()

        columns = len(expected.split()) if not expected.startswith("refused") else 0
        shown = refusal or " ".join(map(str, after[:columns]))
        assert shown == expected, f"{verb} {name} {amount}"
        if refusal:
            assert after == before
    found = report(is_full=True, anchors_path=Path("/nonexistent"), now=datetime.now(UTC))
    assert found.findings == ()


def test_a_counter_ends_at_what_was_charged(ledger_connect: Callable[[], Engine]) -> None:
    world = make_world()
    gateway = Gateway(world, ledger_connect())
    held = gateway.hold(6 * UNIT, caps=(Cap("api_key", world.key.pk, 10 * UNIT),))
    assert isinstance(held, Held)

    gateway.resolve(held, 4)

    counter = SpendCounter.objects.get()
    assert (counter.spent_nanos, counter.held_nanos) == (4 * UNIT, 0)


def test_a_debt_made_by_a_batch_blocks_the_holds_of_the_same_batch(
    ledger_connect: Callable[[], Engine],
) -> None:
    world = make_world(2 * UNIT)
    quota_id = make_quota(world, 9 * UNIT)
    gateway = Gateway(world, ledger_connect())
    held = gateway.hold(2 * UNIT)
    assert isinstance(held, Held)
    hold = PlaceHold(
        request_id=UUID(int=1),
        customer_id=world.customer.pk,
        buckets=(quota_id, world.wallet_id),
        receivable_id=world.receivable_id,
        amount_nanos=UNIT,
        amount_nanos_min=UNIT,
        detail={},
    )

    batch = gateway.batch(resolves=(gateway.resolution(held, 5),), holds=(hold,))
    _, answers = flush(gateway.engine, batch, incarnation_id=gateway.incarnation_id)

    assert answers == [HoldRefused("owing")]


def test_a_quota_that_was_deleted_meanwhile_counts_as_empty(
    ledger_connect: Callable[[], Engine],
) -> None:
    world = make_world(10 * UNIT)
    gateway = Gateway(world, ledger_connect())
    first, gone, last = make_quota(world, UNIT), make_quota(world, 0), make_quota(world, 2 * UNIT)
    Account.objects.get(pk=gone).delete()

    held = gateway.hold(6 * UNIT, quotas=(first, gone, last))

    assert isinstance(held, Held)
    assert held.legs == ((first, UNIT), (last, 2 * UNIT), (world.wallet_id, 3 * UNIT))
    assert gateway.hold(8 * UNIT, quotas=(gone,)) == HoldRefused("balance")
    gateway.resolve(held, 4)
    wallet = Account.objects.get(pk=world.wallet_id)
    assert (wallet.posted_nanos, wallet.held_nanos) == (9 * UNIT, 0)


@pytest.mark.parametrize("nanos", [0, UNIT])
def test_a_customer_without_any_account_is_granted_nothing(
    ledger_connect: Callable[[], Engine], nanos: int
) -> None:
    world = make_world(0)
    gateway = Gateway(world, ledger_connect())
    Account.objects.filter(pk=world.wallet_id).delete()

    assert gateway.hold(nanos) == HoldRefused("balance")


def test_two_ends_of_one_call_in_one_batch_charge_the_larger_once(
    ledger_connect: Callable[[], Engine],
) -> None:
    world = make_world(10 * UNIT)
    gateway = Gateway(world, ledger_connect())
    held = gateway.hold(6 * UNIT)
    assert isinstance(held, Held)
    reaped = gateway.resolution(held, 0, state="interrupted")
    settled = gateway.resolution(held, 4)

    flush(
        gateway.engine,
        gateway.batch(resolves=(reaped, settled)),
        incarnation_id=gateway.incarnation_id,
    )

    wallet = Account.objects.get(pk=world.wallet_id)
    assert (wallet.posted_nanos, wallet.held_nanos) == (6 * UNIT, 0)
