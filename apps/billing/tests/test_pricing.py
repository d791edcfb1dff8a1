import dataclasses
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.billing.pricing import (
    OUTPUT_TOKENS_MAX,
    ChargeLine,
    Price,
    PriceIncomplete,
    affordable_output_tokens,
    charge_nanos,
    explain,
    worst_case_nanos,
)
from apps.core.usage import TOKEN_CLASSES, Usage

ONE = 1_000_000  # millionths
# $2.50 input, $0.25 cached, $10 output per million tokens.
PRICE = Price(id=1, input=2_500_000_000, cache_read=250_000_000, output=10_000_000_000)

amounts = st.integers(0, 1_000_000_000_000)
optional_amounts = st.none() | amounts
prices = st.builds(
    Price,
    id=st.integers(1, 9),
    request_nanos=st.integers(0, 10**9),
    **{
        name: amounts if name in ("input", "output") else optional_amounts for name in TOKEN_CLASSES
    },
)
counts = st.integers(0, 10_000_000)
usages = st.builds(Usage, **dict.fromkeys(TOKEN_CLASSES, counts))
multipliers = st.integers(0, 10_000_000)


def test_a_charge_is_tokens_times_price() -> None:
    usage = Usage(input=1_000, cache_read=500, output=200)

    # 1000 x 2500 + 500 x 250 + 200 x 10000 nanos
    assert charge_nanos(usage, PRICE, ONE) == 2_500_000 + 125_000 + 2_000_000


def test_the_multiplier_applies_to_the_whole_charge() -> None:
    price = dataclasses.replace(PRICE, request_nanos=1_000)

    assert charge_nanos(Usage(output=1), price, 1_500_000) == 16_500
    assert charge_nanos(Usage(output=1), price, 0) == 0


@pytest.mark.parametrize(
    ("name", "nanos"),
    [
        ("input", 3),
        ("cache_read", 3),
        ("cache_write_5m", 3),
        ("cache_write_1h", 3),
        ("audio_in", 3),
        ("image_in", 3),
        ("output", 7),
        ("reasoning", 7),
        ("audio_out", 7),
        ("image_out", 7),
    ],
)
def test_a_class_without_a_price_costs_what_its_direction_costs(name: str, nanos: int) -> None:
    price = Price(id=1, input=3_000_000, output=7_000_000)

    assert charge_nanos(Usage.from_dict({name: 1}), price, ONE) == nanos


@pytest.mark.parametrize("name", TOKEN_CLASSES)
def test_a_class_with_a_price_costs_that_even_if_it_is_zero(name: str) -> None:
    everything: dict[str, Any] = dict.fromkeys(TOKEN_CLASSES, 5000000)
    price = Price(id=1, **(everything | {name: 0}))

    assert charge_nanos(Usage.from_dict({name: 1_000}), price, ONE) == 0
    assert charge_nanos(Usage.from_dict(dict.fromkeys(TOKEN_CLASSES, 1)), price, ONE) == 45


@pytest.mark.parametrize("missing", ["input", "output"])
def test_a_price_without_input_or_output_charges_nobody(missing: str) -> None:
    price = Price(id=1, input=1) if missing == "output" else Price(id=1, output=1)

    for attempt in (
        lambda: charge_nanos(Usage(), price, ONE),
        lambda: worst_case_nanos(1, 1, price, ONE),
        lambda: affordable_output_tokens(1, 1, price, ONE, 1),
        lambda: explain(Usage(), price, ONE),
    ):
        with pytest.raises(PriceIncomplete):
            attempt()


def test_a_negative_price_charges_nobody() -> None:
    for price in (
        dataclasses.replace(PRICE, cache_read=-1),
        dataclasses.replace(PRICE, request_nanos=-1),
    ):
        with pytest.raises(PriceIncomplete):
            charge_nanos(Usage(input=1), price, ONE)


def test_a_million_one_token_calls_at_15_cents_per_million_are_exact() -> None:
    price = Price(id=1, input=150_000_000, output=0)

    one = charge_nanos(Usage(input=1), price, ONE)

    assert one == 150
    assert one * 1_000_000 == 150_000_000


def test_the_smallest_price_still_costs_one_nano() -> None:
    assert charge_nanos(Usage(input=1), Price(id=1, input=1, output=0), 1) == 1


def test_a_charge_beyond_what_a_float_can_hold_is_exact() -> None:
    price = Price(id=1, input=999_999_999_999, output=0)

    charge = charge_nanos(Usage(input=9_999_999), price, 9_999_999)

    assert charge == 99_999_979_999_902
    assert charge != math.ceil(9_999_999 * 999_999_999_999 * 9_999_999 / 10**12)


@given(usages, prices, multipliers)
def test_rounding_adds_less_than_one_nano_and_never_takes_any(
    usage: Usage, price: Price, multiplier: int
) -> None:
    exact = price.request_nanos * 10**6
    for name in TOKEN_CLASSES:
        own = getattr(price, name)
        fallback = price.output if name in _OUT else price.input
        exact += getattr(usage, name) * (fallback if own is None else own)
    exact *= multiplier

    charge = charge_nanos(usage, price, multiplier)

    assert 0 <= charge * 10**12 - exact < 10**12


_OUT = ("output", "reasoning", "audio_out", "image_out")


@given(usages, prices, st.integers(1, 10_000_000))
def test_priced_usage_is_never_free(usage: Usage, price: Price, multiplier: int) -> None:
    cheapest = min(
        value for value in (getattr(price, name) for name in TOKEN_CLASSES) if value is not None
    )

    if usage.total_tokens and cheapest:
        assert charge_nanos(usage, price, multiplier) >= 1


@given(usages, usages, prices, multipliers)
def test_splitting_a_request_never_makes_it_cheaper(
    first: Usage, second: Usage, price: Price, multiplier: int
) -> None:
    together = Usage(
        **{name: getattr(first, name) + getattr(second, name) for name in TOKEN_CLASSES}
    )

    apart = charge_nanos(first, price, multiplier) + charge_nanos(second, price, multiplier)

    assert charge_nanos(together, price, multiplier) <= apart


@given(usages, prices, multipliers, st.integers(0, 1000), st.integers(0, 1000))
def test_no_usage_inside_the_bounds_costs_more_than_the_worst_case(
    usage: Usage, price: Price, multiplier: int, spare_input: int, spare_output: int
) -> None:
    worst = worst_case_nanos(
        usage.input_tokens + spare_input, usage.output_tokens + spare_output, price, multiplier
    )

    assert charge_nanos(usage, price, multiplier) <= worst


@given(usages, prices, multipliers)
def test_no_text_inside_the_bounds_costs_more_than_the_worst_case_of_text(
    usage: Usage, price: Price, multiplier: int
) -> None:
    text = usage._replace(audio_in=0, audio_out=0, image_in=0, image_out=0)

    worst = worst_case_nanos(
        text.input_tokens, text.output_tokens, price, multiplier, is_text_only=True
    )

    assert charge_nanos(text, price, multiplier) <= worst


@given(
    st.integers(0, 10**13),
    st.integers(0, 10**6),
    prices,
    multipliers,
    st.integers(1, 128),
    st.booleans(),
)
def test_the_affordable_cap_is_the_largest_one_the_budget_covers(
    budget: int, bound: int, price: Price, multiplier: int, choices: int, is_text_only: bool
) -> None:
    cap = affordable_output_tokens(
        budget, bound, price, multiplier, choices, is_text_only=is_text_only
    )

    def worst(tokens: int) -> int:
        return worst_case_nanos(
            bound, tokens * choices, price, multiplier, is_text_only=is_text_only
        )

    assert 0 <= cap <= OUTPUT_TOKENS_MAX
    if cap:
        assert worst(cap) <= budget
    if cap < OUTPUT_TOKENS_MAX:
        assert worst(cap + 1) > budget


def test_a_dollar_buys_a_hundred_thousand_tokens_at_ten_dollars_per_million() -> None:
    assert affordable_output_tokens(10**9, 0, PRICE, ONE, 1) == 100_000
    assert affordable_output_tokens(10**9, 0, PRICE, ONE, 4) == 25_000
    assert affordable_output_tokens(10**9, 400_000, PRICE, ONE, 1) == 0
    assert affordable_output_tokens(10**9 - 1, 400_000, PRICE, ONE, 1) == 0
    assert affordable_output_tokens(-1, 0, PRICE, 0, 1) == 0


def test_free_output_is_affordable_up_to_the_bound() -> None:
    price = Price(id=1, input=1, output=0)

    assert affordable_output_tokens(1, 5, price, ONE, 1) == 10_000_000


def test_an_explanation_lists_what_was_used() -> None:
    price = dataclasses.replace(PRICE, request_nanos=7)

    assert explain(Usage(input=3, output=2), price, ONE) == [
        ChargeLine("input", 3, 2_500_000_000, 7_500),
        ChargeLine("output", 2, 10_000_000_000, 20_000),
        ChargeLine("request", 1, 7, 7),
    ]


def test_the_nanos_of_rounding_go_to_the_largest_remainders() -> None:
    price = Price(id=1, input=400_000, cache_read=700_000, output=500_000)
    usage = Usage(input=1, cache_read=1, output=1)

    # 0.4 + 0.7 + 0.5 = 1.6 nanos, rounded up to 2
    assert [line.amount_nanos for line in explain(usage, price, ONE)] == [0, 1, 1]


@given(usages, prices, multipliers)
def test_the_lines_of_an_explanation_sum_to_the_charge(
    usage: Usage, price: Price, multiplier: int
) -> None:
    lines = explain(usage, price, multiplier)

    assert sum(line.amount_nanos for line in lines) == charge_nanos(usage, price, multiplier)
    assert all(line.amount_nanos >= 0 for line in lines)
