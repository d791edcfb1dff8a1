"""The ledger against a model of a few dicts, with crashes and commits of unknown outcome.

After every step each balance is compared; at the end of every run the whole ledger is verified.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from django.db import transaction
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    invariant,
    multiple,
    rule,
    run_state_machine_as_test,
)

from apps.billing.ledger.commands import Batch, Cap, Held, HoldRefused, Line, Resolve
from apps.billing.ledger.store import Engine, flush
from apps.billing.models import Account, Hold, SpendCounter
from apps.billing.periods import day_of, month_of
from apps.billing.verification import report
from tests.support.world import NOW, UNIT, Gateway, make_quota, make_world, post_lines, top_up

# The cap of each level and of budgets, and of a provider that may take over from the first one.
CAPS = {
    "api_key": 40 * UNIT,
    "user": 60 * UNIT,
    "user_group": 80 * UNIT,
    "day": 45 * UNIT,
    "month": 70 * UNIT,
    "provider": 50 * UNIT,
    "spare": 30 * UNIT,
}
LEVELS = ("api_key", "user", "user_group", "day", "month", "provider")
_ids = itertools.count(1_000_000)  # of groups and providers that need no rows
Connect = Callable[[], Engine]


class Crash(Exception):
    """The process ended before its transaction was committed."""


@dataclass(slots=True)
class ModelHold:
    """What the model knows of one call."""

    legs: list[tuple[str, int]]
    levels: frozenset[str]  # those that count it
    answered_by: str = ""  # the provider on record, once it has ended
    charged: int | None = None  # None while the hold is open
    is_late_posted: bool = False


@dataclass(slots=True)
class Model:
    """What the accounts must show."""

    posted: dict[str, int] = field(default_factory=lambda: {"wallet": 0, "quota": 0})
    held: dict[str, int] = field(default_factory=lambda: {"wallet": 0, "quota": 0})
    owed: int = 0
    revenue: int = 0
    spent: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CAPS, 0))
    counted: dict[str, int] = field(default_factory=lambda: dict.fromkeys(CAPS, 0))
    calls: dict[UUID, ModelHold] = field(default_factory=dict)

    def available(self, name: str) -> int:
        """Return what can be taken from an account."""
        return self.posted[name] - self.held[name]

    def top_up(self, nanos: int) -> None:
        """Repay the debt, then fill the wallet."""
        repaid = min(self.owed, nanos)
        self.owed -= repaid
        self.posted["wallet"] += nanos - repaid

    def left(self, level: str) -> int:
        """Return what can still be held under a level's cap."""
        return CAPS[level] - self.spent[level] - self.counted[level]

    def grant(self, nanos: int, minimum: int, levels: list[str]) -> list[tuple[str, int]] | str:
        """Return the legs that a hold must get, or why it must be refused."""
        if self.owed:
            return "owing"
        amount = min(nanos, self.available("quota") + self.available("wallet"))
        if amount < minimum:
            return "balance"
        for level in levels:
            amount = min(amount, self.left(level))
            if amount < minimum:
                return f"cap {level}"
        from_quota = min(amount, self.available("quota"))
        legs = [("quota", from_quota), ("wallet", amount - from_quota)]
        return [(name, part) for name, part in legs if part]

    def hold(
        self, request_id: UUID, legs: list[tuple[str, int]], levels: list[str], *, has_spare: bool
    ) -> None:
        """Take the legs, and count them on all levels; on the spare where it has enough left."""
        amount = sum(nanos for _, nanos in legs)
        counting = frozenset(levels)
        if has_spare and self.left("spare") >= amount:
            counting |= {"spare"}
        for name, nanos in legs:
            self.held[name] += nanos
        for level in counting:
            self.counted[level] += amount
        self.calls[request_id] = ModelHold(legs, counting)

    def resolve(self, request_id: UUID, charge: int, answered_by: str) -> int:
        """End a call and return what this charged."""
        call = self.calls[request_id]
        if call.charged is not None:
            return self._late(call, charge)
        call.charged = charge
        call.answered_by = answered_by
        left = charge
        for name, nanos in call.legs:
            self.held[name] -= nanos
            part = min(nanos, left)
            self.posted[name] -= part
            left -= part
        for level in call.levels:
            self.counted[level] -= sum(nanos for _, nanos in call.legs)
        self._count(call, charge)
        self._take_beyond(left)
        self.revenue += charge
        return charge

    def _late(self, call: ModelHold, charge: int) -> int:
        assert call.charged is not None
        difference = charge - call.charged
        if difference <= 0:
            return 0
        call.charged = charge
        call.is_late_posted = True
        self._count(call, difference)
        self._take_beyond(difference)
        self.revenue += difference
        return difference

    def _count(self, call: ModelHold, nanos: int) -> None:
        for level in call.levels:
            if level not in ("provider", "spare") or level == call.answered_by:
                self.spent[level] += nanos

    def _take_beyond(self, nanos: int) -> None:
        from_wallet = min(nanos, self.available("wallet"))
        self.posted["wallet"] -= from_wallet
        self.owed += nanos - from_wallet


class LedgerMachine(RuleBasedStateMachine):
    """Does the same to the ledger and to the model."""

    calls: Bundle[Held] = Bundle("calls")

    connect: Connect  # a subclass in a test knows the test's database

    def __init__(self) -> None:
        super().__init__()
        self.engine = self.connect()
        self.world = make_world(wallet_nanos=0)
        self.quota_id = make_quota(self.world, 0)
        self.ids = {"wallet": self.world.wallet_id, "quota": self.quota_id}
        self.names = {account_id: name for name, account_id in self.ids.items()}
        self.gateway = Gateway(self.world, self.engine)
        self.model = Model()
        self.spare_id = next(_ids)
        self.providers = {"provider": self.world.provider.pk, "spare": self.spare_id}
        group_id = next(_ids)
        self.caps: dict[str, Cap] = {
            "api_key": Cap("api_key", self.world.key.pk, CAPS["api_key"]),
            "user": Cap("user", self.world.user.pk, CAPS["user"]),
            "user_group": Cap("user_group", group_id, CAPS["user_group"]),
            "day": Cap("user", self.world.user.pk, CAPS["day"], day_of(NOW)),
            "month": Cap("user_group", group_id, CAPS["month"], month_of(NOW)),
            "provider": Cap("provider", self.world.provider.pk, CAPS["provider"]),
            "spare": Cap("provider", self.spare_id, CAPS["spare"]),
        }
        self.reaped: set[UUID] = set()  # calls that somebody else than their owner ended
        self.revenue_before = self._revenue()

    def _revenue(self) -> int:
        return Account.objects.get(pk=self.world.revenue_id).posted_nanos

    @rule(units=st.integers(1, 20))
    def top_up(self, units: int) -> None:
        top_up(self.world, units * UNIT)
        self.model.top_up(units * UNIT)

    @rule(units=st.integers(1, 10))
    def fill_quota(self, units: int) -> None:
        with transaction.atomic():
            post_lines(
                "quota",
                Line(self.quota_id, "credit", units * UNIT),
                Line(self.world.promotion_id, "debit", -units * UNIT),
            )
        self.model.posted["quota"] += units * UNIT

    @rule(
        target=calls,
        units=st.integers(0, 20),
        lowest=st.integers(0, 20),
        levels=st.lists(st.sampled_from(LEVELS), unique=True),
        has_spare=st.booleans(),
    )
    def hold(self, units: int, lowest: int, levels: list[str], has_spare: bool) -> Any:
        minimum = min(units, lowest) * UNIT
        expected = self.model.grant(units * UNIT, minimum, levels)

        answer = self.gateway.hold(
            units * UNIT,
            minimum=minimum,
            quotas=(self.quota_id,),
            caps=tuple(self.caps[level] for level in levels),
            spare_caps=(self.caps["spare"],) if has_spare else (),
        )

        if isinstance(answer, HoldRefused):
            blamed = [level for level, cap in self.caps.items() if cap == answer.cap]
            assert " ".join((answer.reason, *blamed)) == expected
            return multiple()
        legs = [(self.names[account_id], nanos) for account_id, nanos in answer.legs]
        assert legs == expected
        self.model.hold(answer.request_id, legs, levels, has_spare=has_spare)
        assert bool(answer.spares) == ("spare" in self.model.calls[answer.request_id].levels)
        return answer

    @rule(held=calls, units=st.integers(0, 30), answered_by=st.sampled_from(("provider", "spare")))
    def settle(self, held: Held, units: int, answered_by: str) -> None:
        charged = self.model.calls[held.request_id].charged
        # An owner who settles again says the same again, or less.
        settled = units if charged is None else min(units, charged // UNIT)
        provider_id = self.providers[answered_by]
        self._resolve(self.gateway.resolution(held, settled, provider_id=provider_id))

    @rule(held=calls, units=st.integers(0, 10))
    def reap(self, held: Held, units: int) -> None:
        if self.model.calls[held.request_id].charged is None:
            # A checkpoint costs at most the hold.
            cut = min(units, held.amount_nanos // UNIT)
            source = "checkpoint" if cut else "none"
            command = self.gateway.resolution(held, cut, state="interrupted", usage_source=source)
            self._resolve(command)
            self.reaped.add(held.request_id)

    @rule(held=calls, units=st.integers(1, 30))
    def settle_late(self, held: Held, units: int) -> None:
        call = self.model.calls[held.request_id]
        if held.request_id in self.reaped and not call.is_late_posted:
            self._resolve(self.gateway.resolution(held, units))

    @rule(held=calls, units=st.integers(0, 30))
    def settle_without_knowing_whether_it_was_committed(self, held: Held, units: int) -> None:
        if self.model.calls[held.request_id].charged is None:
            command = self.gateway.resolution(held, units)
            self._resolve(command)
            self._restart()
            self._resolve(command)

    @rule(held=calls, units=st.integers(0, 30))
    def crash_before_the_commit(self, held: Held, units: int) -> None:
        if self.model.calls[held.request_id].is_late_posted:
            return  # What comes late comes once.
        batch = self.gateway.batch(resolves=(self.gateway.resolution(held, units),))

        with contextlib.suppress(Crash):
            self._flush_and_crash(batch)

        self._restart()

    @rule()
    def crash_while_idle(self) -> None:
        self._restart()

    @invariant()
    def every_balance_is_the_model_s(self) -> None:
        for name, account_id in self.ids.items():
            account = Account.objects.get(pk=account_id)
            shown = (account.posted_nanos, account.held_nanos)
            assert shown == (self.model.posted[name], self.model.held[name]), name
        receivable = Account.objects.get(pk=self.world.receivable_id)
        assert -receivable.posted_nanos == self.model.owed
        assert self._revenue() - self.revenue_before == self.model.revenue
        counters = {
            (row.scope, row.scope_id): (row.spent_nanos, row.held_nanos)
            for row in SpendCounter.objects.all()
        }
        for level, cap in self.caps.items():
            shown = counters.get(cap.key, (0, 0))
            assert shown == (self.model.spent[level], self.model.counted[level]), level
        open_calls = {key for key, call in self.model.calls.items() if call.charged is None}
        held = Hold.objects.filter(customer_id=self.world.customer.pk)
        assert set(held.values_list("request_id", flat=True)) == open_calls

    def teardown(self) -> None:
        self.engine.close()

    def _resolve(self, command: Resolve) -> None:
        batch = self.gateway.batch(resolves=(command,))
        (answer,), _ = flush(self.engine, batch, incarnation_id=self.gateway.incarnation_id)
        answered_by = "spare" if command.row["provider_id"] == self.spare_id else "provider"
        charged = self.model.resolve(command.request_id, command.charge_nanos, answered_by)
        assert answer.charged_nanos == charged

    def _flush_and_crash(self, batch: Batch) -> None:
        with self.engine.transaction():
            flush(self.engine, batch, incarnation_id=self.gateway.incarnation_id)
            raise Crash

    def _restart(self) -> None:
        self.engine.close()
        self.engine = self.connect()
        self.gateway.engine = self.engine


def run_machine(connect: Connect, *, examples: int, steps: int) -> None:
    """Run the machine, then verify everything that all its runs have written."""

    class ConnectedMachine(LedgerMachine):
        def __init__(self) -> None:
            self.connect = connect
            super().__init__()

    run_state_machine_as_test(
        ConnectedMachine,
        settings=settings(max_examples=examples, stateful_step_count=steps, deadline=None),
    )
    found = report(is_full=True, anchors_path=Path("/nonexistent"), now=datetime.now(UTC))
    assert found.findings == ()


def test_the_ledger_does_what_the_model_does(ledger_connect: Connect) -> None:
    run_machine(ledger_connect, examples=20, steps=25)


@pytest.mark.long
def test_the_ledger_does_what_the_model_does_ten_thousand_times(ledger_connect: Connect) -> None:
    run_machine(ledger_connect, examples=250, steps=50)
