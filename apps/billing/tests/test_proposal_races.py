"""Administrators who move money at once, each with a connection of his own.

Each race has a control: the same crowd without the lock, which must go wrong.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from django.db import connection
from pytest_django import Settings

from apps.audit.models import AdminEvent
from apps.billing.adjustments import adjust_balance
from apps.billing.customers import adjust_user_balance
from apps.billing.models import Entry, ProposedAdjustment, Transaction
from apps.billing.proposals import (
    ProposalDecided,
    approve_adjustment,
    sum_alone,
    withdraw_adjustment,
)
from apps.users.models import User
from tests.support.databases import Database
from tests.support.people import balance_of, make_admin, make_user
from tests.support.races import race
from tests.support.soundness import is_sound

USD = 10**9
Act = Callable[[int], str]


@pytest.fixture(autouse=True)
def limit(settings: Settings) -> None:
    """Let one administrator move 100 dollars alone."""
    settings.ADJUSTMENT_NANOS_ALONE = 100 * USD


def _at_once(count: int, act: Act) -> list[str]:
    """Do something as often at once, and return what came of it, sorted."""

    def run(barrier: threading.Barrier, number: int) -> str:
        try:
            connection.ensure_connection()
            barrier.wait()
            return act(number)
        except ProposalDecided:
            return "too late"
        finally:
            connection.close()

    return sorted(race(count, run))


def _propose(user: User, actor: User) -> ProposedAdjustment:
    made = adjust_user_balance(user=user, amount_nanos=101 * USD, reason="x", actor=actor)
    assert isinstance(made, ProposedAdjustment)
    return made


def test_eight_adjustments_at_once_do_not_pass_the_limit_together(committed_db: Database) -> None:
    root = make_admin()
    users = [make_user() for _ in range(8)]

    def adjust(number: int) -> str:
        made = adjust_user_balance(
            user=users[number], amount_nanos=40 * USD, reason="x", actor=root
        )
        return type(made).__name__

    outcomes = _at_once(8, adjust)

    assert outcomes == ["ProposedAdjustment"] * 6 + ["Transaction"] * 2
    assert sum_alone(actor_id=root.pk, now=datetime.now(UTC)) == 80 * USD
    assert sum(balance_of(user) for user in users) == 80 * USD
    assert is_sound()


def test_control_two_that_look_before_they_move_both_pass(committed_db: Database) -> None:
    root, users = make_admin(), [make_user(), make_user()]
    looked = threading.Barrier(2, timeout=30)

    def adjust(number: int) -> str:
        moved = sum_alone(actor_id=root.pk, now=datetime.now(UTC))
        looked.wait()
        if moved + 60 * USD > 100 * USD:
            return "waits"
        adjust_balance(
            customer_id=users[number].customer_id, amount_nanos=60 * USD, actor=root, reason="x"
        )
        return "moved"

    assert _at_once(2, adjust) == ["moved", "moved"]
    assert sum_alone(actor_id=root.pk, now=datetime.now(UTC)) == 120 * USD


def test_one_key_at_once_is_one_proposal(committed_db: Database) -> None:
    root, user = make_admin(), make_user()

    def adjust(number: int) -> str:
        made = adjust_user_balance(
            user=user, amount_nanos=101 * USD, reason="x", actor=root, idempotency_key="k1"
        )
        return str(made.pk)

    outcomes = _at_once(8, adjust)

    assert len(set(outcomes)) == ProposedAdjustment.objects.count() == 1
    assert AdminEvent.objects.filter(action="proposed_adjustment.created").count() == 1


def test_of_eight_approvals_at_once_one_moves_money(committed_db: Database) -> None:
    user = make_user()
    made = _propose(user, make_admin())
    seconds = [make_admin() for _ in range(4)]

    def approve(number: int) -> str:
        return approve_adjustment(proposal=made, actor=seconds[number % 4]).status

    outcomes = _at_once(8, approve)

    assert outcomes == ["approved"] + ["too late"] * 7
    assert balance_of(user) == 101 * USD
    assert (Transaction.objects.count(), Entry.objects.count()) == (1, 2)
    assert AdminEvent.objects.filter(action="user.balance_adjusted").count() == 1
    assert is_sound()


def test_control_two_that_look_before_they_approve_both_move_money(
    committed_db: Database,
) -> None:
    user, root = make_user(), make_admin()
    made = _propose(user, root)
    looked = threading.Barrier(2, timeout=30)

    def approve(number: int) -> str:
        row = ProposedAdjustment.objects.get(pk=made.pk)
        looked.wait()
        if row.status == "pending":
            adjust_balance(
                customer_id=user.customer_id, amount_nanos=101 * USD, actor=root, reason="x"
            )
        return row.status

    assert _at_once(2, approve) == ["pending", "pending"]
    assert balance_of(user) == 202 * USD


def test_of_an_approval_and_a_withdrawal_at_once_one_counts(committed_db: Database) -> None:
    root, second = make_admin(), make_admin()
    for _ in range(5):
        user = make_user()
        made = _propose(user, root)

        def decide(number: int, made: ProposedAdjustment = made) -> str:
            if number:
                return withdraw_adjustment(proposal=made, actor=root).status
            return approve_adjustment(proposal=made, actor=second).status

        outcomes = _at_once(2, decide)

        made.refresh_from_db()
        assert outcomes in (["approved", "too late"], ["too late", "withdrawn"])
        assert made.status in outcomes
        assert balance_of(user) == (101 * USD if made.status == "approved" else 0)
