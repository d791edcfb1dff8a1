"""Efforts as budgets, and back."""

import pytest

from apps.core.errors import GatewayError
from apps.proxy.dialects.neutral import Effort, Reasoning
from apps.proxy.dialects.parameters import Parameters
from apps.proxy.dialects.reasoning import (
    EFFORTS,
    bounded_budget,
    budget_of_effort,
    effort_of_budget,
    read_thinking,
)


@pytest.mark.parametrize(
    ("budget", "effort"),
    [
        (1024, "low"),
        (4096, "low"),
        (4097, "medium"),
        (16384, "medium"),
        (16385, "high"),
        (10**6, "high"),
    ],
)
def test_a_budget_becomes_the_lowest_common_effort_that_may_use_as_much(
    budget: int, effort: str
) -> None:
    assert effort_of_budget(budget) == effort


@pytest.mark.parametrize(
    ("effort", "limit", "budget"),
    [
        ("minimal", 100_000, 1_024),
        ("medium", 100_000, 16_384),
        ("max", 100_000, 65_536),
        ("max", 10_000, 8_000),
        ("low", 2_000, 1_600),
        ("low", 1_200, 1_024),
        ("low", 1_025, 1_024),
        ("low", 1_024, None),
        ("low", 1, None),
    ],
)
def test_an_effort_leaves_a_fifth_for_the_answer(
    effort: Effort, limit: int, budget: int | None
) -> None:
    assert budget_of_effort(effort, limit) == budget


def test_a_budget_is_below_the_limit_and_at_least_what_anthropic_asks_for() -> None:
    for limit in range(1, 5_000, 7):
        for asked in (1_024, 2_000, 10**6):
            budget = bounded_budget(asked, limit)

            if limit <= 1_024:
                assert budget is None
            else:
                assert budget is not None
                assert 1_024 <= budget < limit
                assert budget <= asked


def test_efforts_rise() -> None:
    budgets = [budget_of_effort(effort, 10**6) for effort in EFFORTS]

    assert budgets == [1_024, 4_096, 16_384, 32_768, 49_152, 65_536]


@pytest.mark.parametrize(
    ("given", "asked"),
    [
        ({"type": "disabled"}, Reasoning(is_on=False)),
        ({"type": "disabled", "budget_tokens": 2000}, Reasoning(is_on=False)),
        ({"type": "between_tools"}, Reasoning(is_on=False)),
        ({"type": "adaptive"}, Reasoning(is_on=True, is_optional=True)),
        ({"type": "adaptive", "display": "summarized"}, Reasoning(is_on=True, is_optional=True)),
        (
            {"type": "adaptive", "display": "omitted"},
            Reasoning(is_on=True, is_hidden=True, is_optional=True),
        ),
        ({"type": "enabled", "budget_tokens": 2000}, Reasoning(is_on=True, budget_tokens=2000)),
        ({"type": "enabled"}, Reasoning(is_on=True)),
    ],
)
def test_thinking_is_read(given: dict[str, object], asked: Reasoning) -> None:
    assert read_thinking(Parameters(given, "thinking")) == asked


@pytest.mark.parametrize(
    ("given", "row", "param"),
    [
        ({}, "E13", "thinking.type"),
        ({"type": "deep"}, "E13", "thinking.type"),
        ({"type": "enabled", "budget_tokens": 1023}, "E13", "thinking.budget_tokens"),
        ({"type": "enabled", "budget_tokens": True}, "E13", "thinking.budget_tokens"),
        ({"type": "adaptive", "display": "loud"}, "E13", "thinking.display"),
        ({"type": "adaptive", "depth": 3}, "E14", "thinking.depth"),
    ],
)
def test_thinking_that_cannot_be_is_refused(given: dict[str, object], row: str, param: str) -> None:
    with pytest.raises(GatewayError) as refusal:
        read_thinking(Parameters(given, "thinking"))

    assert (refusal.value.row, refusal.value.param) == (row, param)
