"""A fifth of the running calls, or three, may be in further attempts."""

from __future__ import annotations

import pytest

from apps.proxy.retries import RetryBudget


def _take_all(budget: RetryBudget, calls: int) -> int:
    """Take as much as there is and return how much that was."""
    count = 0
    while budget.take(calls):
        count += 1
    return count


@pytest.mark.parametrize(
    ("calls", "granted"), [(1, 3), (18, 3), (24, 4), (60, 10), (600, 100), (6_000, 1_000)]
)
def test_what_is_granted_is_a_fifth_of_the_calls_beside_it(calls: int, granted: int) -> None:
    assert _take_all(RetryBudget(), calls) == granted


def test_what_is_given_back_can_be_taken_again() -> None:
    budget = RetryBudget()
    _take_all(budget, 1)

    budget.give_back(2)

    assert (budget.running, _take_all(budget, 1)) == (1, 2)
