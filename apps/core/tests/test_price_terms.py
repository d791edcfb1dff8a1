"""Terms as they are stored, and what is refused of them."""

from __future__ import annotations

from typing import Any

import pytest

from apps.core.price_terms import (
    ContextTier,
    ServiceTier,
    Terms,
    TermsInvalid,
    TimeWindow,
    check_terms,
    parse_terms,
    show_terms,
    tier_name,
)
from tests.support.cases import for_all

STORED: dict[str, Any] = {
    "context_tiers": [
        {"above_input_tokens": 200_000, "amounts": {"input": 4, "output": 9}},
        {"above_input_tokens": 500_000, "amounts": {"input": 5}},
    ],
    "service_tiers": [
        {"name": "flex", "multiplier_millionths": 500_000},
        {"name": "priority", "amounts": {"input": 7, "web_search": 3}},
        {"name": "scale"},
    ],
    "windows": [{"from_minute": 990, "to_minute": 30, "multiplier_millionths": 250_000}],
}
TERMS = Terms(
    (
        ContextTier(200_000, (("input", 4), ("output", 9))),
        ContextTier(500_000, (("input", 5),)),
    ),
    (
        ServiceTier("flex", 500_000),
        ServiceTier("priority", 1_000_000, (("input", 7), ("web_search", 3))),
        ServiceTier("scale"),
    ),
    (TimeWindow(990, 30, 250_000),),
)


def test_terms_are_stored_without_what_is_usual_and_read_back() -> None:
    assert parse_terms(STORED) == TERMS
    assert show_terms(TERMS) == STORED


@pytest.mark.parametrize("nothing", [None, {}, {"windows": []}])
def test_a_price_without_terms_has_none(nothing: object) -> None:
    assert parse_terms(nothing) is None
    assert show_terms(None) is None


@for_all(
    ("value", "message"),
    [
        ([], "terms must be an object."),
        ({"tiers": []}, "terms has unknown fields: tiers."),
        ({"windows": {}}, "windows must be a list of at most 8."),
        (
            {"service_tiers": [{"name": f"t{n}"} for n in range(9)]},
            "service_tiers must be a list of at most 8.",
        ),
        ({"context_tiers": [1]}, "A context tier must be an object."),
        ({"context_tiers": [{"above_input_tokens": 1}]}, "A context tier needs an amount."),
        (
            {"context_tiers": [{"above_input_tokens": 0, "amounts": {"input": 1}}]},
            "above_input_tokens must be a whole number from 1 to 10000000.",
        ),
        (
            {"context_tiers": [{"above_input_tokens": True, "amounts": {"input": 1}}]},
            "above_input_tokens must be a whole number from 1 to 10000000.",
        ),
        (
            {"context_tiers": [{"above_input_tokens": 5, "amounts": {"input": 1}}] * 2},
            "Context tiers must ascend.",
        ),
        (
            {"context_tiers": [{"above_input_tokens": 5, "amounts": {"inputs": 1}}]},
            "amounts has unknown fields: inputs.",
        ),
        (
            {"context_tiers": [{"above_input_tokens": 5, "amounts": {"input": 10**15 + 1}}]},
            "input must be a whole number from 0 to 1000000000000000.",
        ),
        (
            {"context_tiers": [{"above_input_tokens": 5, "amounts": {"input": 1.5}}]},
            "input must be a whole number from 0 to 1000000000000000.",
        ),
        (
            {"service_tiers": [{"name": "Flex"}]},
            "A service tier needs a name of lower-case letters and digits.",
        ),
        (
            {"service_tiers": [{"multiplier_millionths": 1}]},
            "A service tier needs a name of lower-case letters and digits.",
        ),
        (
            {"service_tiers": [{"name": "auto"}]},
            "auto is the usual service: its amounts are those of the price.",
        ),
        ({"service_tiers": [{"name": "flex"}] * 2}, "A service tier is named twice."),
        (
            {"service_tiers": [{"name": "flex", "multiplier_millionths": -1}]},
            "multiplier_millionths must be a whole number from 0 to 1000000000.",
        ),
        (
            {"windows": [{"from_minute": 0, "to_minute": 1440}]},
            "to_minute must be a whole number from 0 to 1439.",
        ),
        (
            {"windows": [{"from_minute": 5, "to_minute": 5}]},
            "A window must end at another minute than it begins.",
        ),
        (
            {
                "windows": [
                    {"from_minute": 1400, "to_minute": 11},
                    {"from_minute": 10, "to_minute": 20},
                ]
            },
            "Windows must not overlap.",
        ),
    ],
)
def test_what_is_no_terms_is_refused_with_its_reason(value: object, message: str) -> None:
    with pytest.raises(TermsInvalid) as refused:
        parse_terms(value)

    assert str(refused.value) == message


def test_a_window_over_midnight_holds_its_first_minute_and_not_its_last() -> None:
    window = TimeWindow(990, 30)

    found = [minute for minute in (0, 29, 30, 989, 990, 1439) if window.includes(minute)]

    assert found == [0, 29, 990, 1439]
    assert [m for m in (9, 10, 19, 20) if TimeWindow(10, 20).includes(m)] == [10, 19]


def test_a_context_tier_counts_above_its_tokens() -> None:
    first, second = TERMS.context_tiers

    assert TERMS.find_context(200_000) is None
    assert TERMS.find_context(200_001) == first
    assert TERMS.find_context(500_000) == first
    assert TERMS.find_context(500_001) == second


def test_the_usual_service_has_many_names() -> None:
    names = ("", "auto", "default", "standard", "on_demand", "flex")

    assert [tier_name(name) for name in names] == ["", "", "", "", "", "flex"]


def test_a_longer_request_that_costs_less_is_refused() -> None:
    check_terms({"input": 4, "output": 9}, TERMS)

    with pytest.raises(TermsInvalid, match="Above 200000 input tokens output costs less"):
        check_terms({"input": 4, "output": 10}, TERMS)


def test_a_class_that_follows_input_must_not_become_cheaper_in_any_tier() -> None:
    terms = Terms(
        (ContextTier(10, (("cache_read", 5),)),),
        (ServiceTier("priority", 1_000_000, (("input", 6),)),),
    )

    # In the usual tier cached input costs 5 above as below; in the other one 6 below and 5 above.
    with pytest.raises(TermsInvalid, match="Above 10 input tokens cache_read costs less"):
        check_terms({"input": 5, "output": 5}, terms)
