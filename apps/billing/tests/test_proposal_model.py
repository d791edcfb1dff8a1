"""Whatever two administrators do, their adjustments do what a model of twenty lines does."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import Settings

from apps.billing.accounts import find_standing
from apps.billing.adjustments import InsufficientBalance
from apps.billing.customers import adjust_user_balance
from apps.billing.models import ProposedAdjustment
from apps.billing.proposals import (
    NotRequester,
    ProposalDecided,
    SecondNeeded,
    approve_adjustment,
    reject_adjustment,
    sum_alone,
    withdraw_adjustment,
)
from apps.users.models import User
from tests.support.people import make_admin, make_user

USD: Final = 10**9
LIMIT: Final = 100
Step = tuple[str, int, int, int]  # what, by which of the two, dollars, which of what waited

STEPS: Final = st.lists(
    st.tuples(
        st.sampled_from(("adjust", "adjust", "approve", "reject", "withdraw")),
        st.integers(0, 1),
        st.integers(-70, 120).filter(bool),
        st.integers(0, 4),
    ),
    min_size=1,
    max_size=15,
)


@dataclass
class Model:
    """What there has to be, in dollars."""

    balance: int = 0
    alone: list[int] = field(default_factory=lambda: [0, 0])
    proposed: list[list[object]] = field(default_factory=list)  # by whom, dollars, status

    def expect(self, step: Step) -> str:
        """Do a step and return what comes of it."""
        what, who, dollars, which = step
        if what == "adjust":
            if self.alone[who] + abs(dollars) > LIMIT:
                self.proposed.append([who, dollars, "pending"])
                return "pending"
            if self.balance + dollars < 0:
                return "InsufficientBalance"
            self.alone[who] += abs(dollars)
            self.balance += dollars
            return "posted"
        if which >= len(self.proposed):
            return "nothing"
        one = self.proposed[which]
        by, dollars = one[0], int(str(one[1]))
        if one[2] != "pending":
            return "ProposalDecided"
        if what == "withdraw" and by != who:
            return "NotRequester"
        if what != "withdraw" and by == who:
            return "SecondNeeded"
        if what == "approve":
            if self.balance + dollars < 0:
                return "InsufficientBalance"
            self.balance += dollars
        one[2] = {"approve": "approved", "reject": "rejected", "withdraw": "withdrawn"}[what]
        return str(one[2])


def _act(step: Step, user: User, admins: list[User]) -> str:
    """Do a step for real and return what came of it."""
    what, who, dollars, which = step
    actor = admins[who]
    try:
        if what == "adjust":
            made = adjust_user_balance(
                user=user, amount_nanos=dollars * USD, reason="x", actor=actor
            )
            return made.status if isinstance(made, ProposedAdjustment) else "posted"
        rows = list(ProposedAdjustment.objects.filter(user=user).order_by("id"))
        if which >= len(rows):
            return "nothing"
        if what == "reject":
            return reject_adjustment(proposal=rows[which], actor=actor, reason="no").status
        decide = approve_adjustment if what == "approve" else withdraw_adjustment
        return decide(proposal=rows[which], actor=actor).status
    except (InsufficientBalance, NotRequester, ProposalDecided, SecondNeeded) as error:
        return type(error).__name__


@pytest.mark.django_db
def test_two_administrators_do_what_the_model_does(settings: Settings) -> None:
    settings.ADJUSTMENT_NANOS_ALONE = LIMIT * USD

    @given(STEPS)
    def run(steps: list[Step]) -> None:
        user, admins, model = make_user(), [make_admin(), make_admin()], Model()
        for step in steps:
            expected = model.expect(step)
            assert _act(step, user, admins) == expected, step
            now = datetime.now(UTC)
            moved = [sum_alone(actor_id=admin.pk, now=now) // USD for admin in admins]
            assert moved == model.alone
            assert max(moved) <= LIMIT
            assert find_standing(user.customer_id).balance_nanos == model.balance * USD

    run()
