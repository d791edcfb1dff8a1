"""Prices with terms and counts: what they charge, and what holds of every one of them.

Over 400 lines because stories and properties of one engine share their prices.
"""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from apps.billing.pricing import (
    OUTPUT_TOKENS_MAX,
    ChargeLine,
    Conditions,
    Price,
    PriceIncomplete,
    affordable_output_tokens,
    charge_nanos,
    charged_tier,
    conditions_of,
    explain,
    price_of_columns,
    worst_case_nanos,
)
from apps.core.price_terms import (
    ContextTier,
    ServiceTier,
    Terms,
    TermsInvalid,
    TimeWindow,
    check_terms,
    parse_terms,
    show_terms,
)
from apps.core.usage import COUNTS, TOKEN_CLASSES, Usage

ONE = 1_000_000  # millionths
USD = 10**9  # nanos
# $2.50 input, $10 output per million tokens.
PLAIN = Price(id=1, input=2_500_000_000, output=10_000_000_000)
FLEX = Conditions("flex")

amounts = st.integers(0, 10**9)
multipliers = st.integers(0, 3_000_000)
term_multipliers = st.sampled_from([0, 1, 333_333, 500_000, ONE, 1_750_000])
some_amounts = st.dictionaries(
    st.sampled_from([*TOKEN_CLASSES, *COUNTS, "request"]), amounts, max_size=4
)
windows = st.lists(st.integers(0, 1439), unique=True, max_size=4).map(
    lambda minutes: [
        (minutes[place], minutes[place + 1]) for place in range(0, len(minutes) - 1, 2)
    ]
)


@st.composite
def stored_terms(draw: st.DrawFn) -> dict[str, Any]:
    """Draw terms as they are stored; not all are valid."""
    lengths = sorted(draw(st.lists(st.integers(1, 5_000), unique=True, max_size=2)))
    names = draw(st.lists(st.sampled_from(["flex", "priority", "batch"]), unique=True))

    def change() -> dict[str, Any]:
        return {
            "multiplier_millionths": draw(term_multipliers),
            "amounts": draw(some_amounts),
        }

    return {
        "context_tiers": [
            {"above_input_tokens": length, "amounts": {"input": 1, **draw(some_amounts)}}
            for length in lengths
        ],
        "service_tiers": [{"name": name} | change() for name in names],
        "windows": [
            {"from_minute": begin, "to_minute": end} | change() for begin, end in draw(windows)
        ],
    }


@st.composite
def priced(draw: st.DrawFn) -> Price:
    """Draw a price that could be set; context tiers that would be cheaper are made dearer."""
    own = {
        name: draw(amounts if name in ("input", "output") else st.none() | amounts)
        for name in (*TOKEN_CLASSES, *COUNTS)
    }
    request = draw(amounts)
    stored = draw(stored_terms())
    dearest = max(
        [nanos for nanos in own.values() if nanos is not None]
        + [request]
        + [nanos for tier in stored["context_tiers"] for nanos in tier["amounts"].values()]
    )
    for rank, tier in enumerate(stored["context_tiers"]):
        tier["amounts"] = dict.fromkeys((*TOKEN_CLASSES, *COUNTS, "request"), dearest + rank)
    try:
        terms = parse_terms(stored)
        if terms is not None:
            check_terms(_base(own, request), terms)
    except TermsInvalid:
        assume(False)
    return Price(
        id=draw(st.integers(1, 9)),
        request_nanos=request,
        minimum_nanos=draw(st.just(0) | amounts),
        terms=terms,
        **own,
    )


def _base(own: dict[str, int | None], request: int) -> dict[str, int]:
    return {name: nanos for name, nanos in own.items() if nanos is not None} | {"request": request}


usages = st.builds(
    Usage,
    **dict.fromkeys(TOKEN_CLASSES, st.integers(0, 3_000)),
    **dict.fromkeys(COUNTS, st.integers(0, 50)),
)
conditions = st.builds(
    Conditions, st.sampled_from(["", "flex", "priority", "batch"]), st.integers(0, 1439)
)


def _counts(usage: Usage) -> dict[str, int]:
    return {name: getattr(usage, name) for name in COUNTS}


def _plus(first: Usage, second: Usage) -> Usage:
    return Usage(
        **{name: getattr(first, name) + getattr(second, name) for name in (*TOKEN_CLASSES, *COUNTS)}
    )


# ---- counts


@pytest.mark.parametrize(
    ("name", "count", "nanos"),
    [
        ("image", 3, 120_000_000),  # at $0.04
        ("second", 90, 9_000_000),  # at $0.0001
        ("web_search", 2, 20_000_000),  # at $0.01
        ("tool_call", 4, 10_000_000),  # at $0.0025
        ("character", 1_500, 22_500_000),  # at $15 per million
    ],
)
def test_what_is_counted_costs_its_price_by_the_piece(name: str, count: int, nanos: int) -> None:
    price = dataclasses.replace(
        PLAIN,
        image=40_000_000,
        second=100_000,
        web_search=10_000_000,
        tool_call=2_500_000,
        character=15 * USD,
    )

    assert charge_nanos(Usage.from_dict({name: count}), price, ONE) == nanos
    assert charge_nanos(Usage.from_dict({name: count}), price, 500_000) == nanos // 2


def test_what_has_no_amount_by_the_piece_costs_nothing_and_has_no_line() -> None:
    usage = Usage(output=1, web_search=5)

    assert charge_nanos(usage, PLAIN, ONE) == 10_000
    assert explain(usage, PLAIN, ONE) == [ChargeLine("output", 1, 10 * USD, 10_000)]


# ---- context tiers

LONG = dataclasses.replace(
    PLAIN,
    cache_read=250_000_000,
    terms=Terms((ContextTier(200_000, (("input", 5 * USD), ("output", 15 * USD))),)),
)


def test_above_its_tokens_a_context_tier_counts_for_the_whole_request() -> None:
    below, above = Usage(input=200_000, output=10), Usage(input=200_001, output=10)

    assert charge_nanos(below, LONG, ONE) == 200_000 * 2_500 + 10 * 10_000
    assert charge_nanos(above, LONG, ONE) == 200_001 * 5_000 + 10 * 15_000


def test_a_context_tier_is_chosen_by_all_that_was_read_and_leaves_other_classes() -> None:
    usage = Usage(input=1, cache_read=200_000, reasoning=2)

    # Reasoning costs what output costs in the tier; cached input has an amount of its own.
    assert charge_nanos(usage, LONG, ONE) == 5_000 + 200_000 * 250 + 2 * 15_000


def test_the_hold_of_a_long_request_covers_the_context_tier() -> None:
    assert worst_case_nanos(200_000, 10, LONG, ONE) == 200_000 * 2_500 + 10 * 10_000
    assert worst_case_nanos(200_001, 10, LONG, ONE) == 200_001 * 5_000 + 10 * 15_000


# ---- service tiers

TIERED = dataclasses.replace(
    PLAIN,
    web_search=10_000_000,
    terms=Terms(
        service_tiers=(
            ServiceTier("flex", 500_000),
            ServiceTier("priority", 2_000_000, (("output", 30 * USD),)),
        )
    ),
)
AT = datetime(2026, 11, 29, 10, 56, tzinfo=UTC)


def test_the_multiplier_of_a_service_tier_leaves_what_it_names_and_what_is_no_token() -> None:
    usage = Usage(input=100, output=10, web_search=1)

    assert charge_nanos(usage, TIERED, ONE) == 250_000 + 100_000 + 10_000_000
    assert charge_nanos(usage, TIERED, ONE, FLEX) == 125_000 + 50_000 + 10_000_000
    of_priority = charge_nanos(usage, TIERED, ONE, Conditions("priority"))
    assert of_priority == 500_000 + 300_000 + 10_000_000


def test_a_hold_covers_the_dearer_of_the_tier_asked_for_and_the_usual_one() -> None:
    def worst(tier: str) -> int:
        return worst_case_nanos(1_000, 10, TIERED, ONE, conditions=Conditions(tier))

    assert worst("") == worst("flex") == 1_000 * 2_500 + 10 * 10_000
    assert worst("priority") == 1_000 * 5_000 + 10 * 30_000


@pytest.mark.parametrize(
    ("asked", "served", "charged"),
    [
        ("", None, ""),
        ("", "default", ""),
        ("flex", "flex", "flex"),
        ("flex", None, "flex"),
        ("flex", "default", ""),  # the hold covers that
        ("priority", "standard", ""),
        ("priority", "flex", "flex"),
        ("", "flex", "flex"),
        ("", "priority", ""),  # nobody asked for it
        ("flex", "priority", "flex"),
        ("flex", "scale", "flex"),  # has no price
    ],
)
def test_a_call_is_charged_at_the_tier_that_was_served(
    asked: str, served: str | None, charged: str
) -> None:
    usage = Usage(input=100, output=10)

    assert charged_tier(usage, TIERED, asked=asked, served=served, started_at=AT) == charged


def test_without_terms_the_tier_is_the_usual_one_whatever_is_served() -> None:
    assert charged_tier(Usage(input=1), PLAIN, asked="", served="priority", started_at=AT) == ""


# ---- windows

OFF_PEAK = dataclasses.replace(PLAIN, terms=Terms(windows=(TimeWindow(990, 30, 500_000),)))


@pytest.mark.parametrize(
    ("hour", "minute", "nanos"),
    [(16, 29, 25_000), (16, 30, 12_500), (23, 59, 12_500), (0, 29, 12_500), (0, 30, 25_000)],
)
def test_a_window_counts_by_the_minute_at_which_the_call_began(
    hour: int, minute: int, nanos: int
) -> None:
    began = datetime(2026, 11, 29, hour, minute, 59, tzinfo=UTC)

    charge = charge_nanos(Usage(input=10), OFF_PEAK, ONE, conditions_of("", began))

    assert charge == nanos


def test_the_minute_is_that_of_utc_wherever_the_clock_stands() -> None:
    elsewhere = datetime(2026, 11, 30, 1, 30, tzinfo=timezone(timedelta(hours=9)))

    assert conditions_of("flex", elsewhere) == Conditions("flex", 990)


def test_a_window_multiplies_what_the_service_tier_gives_without_rounding() -> None:
    price = Price(
        id=1,
        input=7,
        output=7,
        terms=Terms((), (ServiceTier("flex", 333_333),), (TimeWindow(0, 60, 333_333),)),
    )

    # 7 x 0.333333 x 0.333333 = 0.777776222223 nanos per million tokens.
    charge = charge_nanos(Usage(input=10**9), price, ONE, FLEX)
    assert charge == 778
    assert explain(Usage(input=10**9), price, ONE, FLEX) == [
        ChargeLine("input", 10**9, 7, 778, factor=111_110_888_889)
    ]


# ---- the minimum


def test_a_minimum_is_charged_where_the_call_costs_less() -> None:
    price = dataclasses.replace(PLAIN, minimum_nanos=50_000)

    assert charge_nanos(Usage(output=4), price, ONE) == 50_000
    assert charge_nanos(Usage(output=5), price, ONE) == 50_000
    assert charge_nanos(Usage(output=6), price, ONE) == 60_000


def test_a_minimum_is_multiplied_like_all_else() -> None:
    price = dataclasses.replace(PLAIN, minimum_nanos=50_000)

    assert charge_nanos(Usage(output=4), price, 500_000) == 25_000
    assert charge_nanos(Usage(output=4), price, 0) == 0


def test_what_a_minimum_adds_is_a_line_of_its_own() -> None:
    price = dataclasses.replace(PLAIN, minimum_nanos=50_000)

    assert explain(Usage(output=4), price, ONE) == [
        ChargeLine("output", 4, 10 * USD, 40_000),
        ChargeLine("minimum", 1, 50_000, 10_000),
    ]


def test_a_budget_below_the_minimum_buys_nothing() -> None:
    price = dataclasses.replace(PLAIN, minimum_nanos=50_000)

    assert affordable_output_tokens(49_999, 0, price, ONE, 1) == 0
    assert affordable_output_tokens(50_000, 0, price, ONE, 1) == 5


# ---- rows


def test_a_price_is_read_from_its_row_with_terms_as_text_or_not() -> None:
    terms = show_terms(TIERED.terms)
    row = {f"{name}_nanos": getattr(TIERED, name) for name in (*TOKEN_CLASSES, *COUNTS)}
    row |= {"id": 1, "request_nanos": 0, "minimum_nanos": 0}
    text = '{"service_tiers":[{"name":"flex","multiplier_millionths":500000},'
    text += '{"name":"priority","multiplier_millionths":2000000,"amounts":{"output":30000000000}}]}'

    assert price_of_columns(row | {"terms": terms}) == TIERED
    assert price_of_columns(row | {"terms": text}) == TIERED
    assert price_of_columns(row | {"terms": None}) == dataclasses.replace(TIERED, terms=None)


@pytest.mark.parametrize("terms", ["{", "[]", {"windows": 1}])
def test_a_price_with_terms_that_cannot_be_read_charges_nobody(terms: object) -> None:
    row = dict.fromkeys([f"{name}_nanos" for name in (*TOKEN_CLASSES, *COUNTS)], 1)
    row |= {"id": 1, "request_nanos": 0, "minimum_nanos": 0}

    with pytest.raises(PriceIncomplete):
        price_of_columns(row | {"terms": terms})


# ---- what holds of every price

# A price takes some forty choices.
some = settings(max_examples=min(40, settings().max_examples))


@some
@given(usages, priced(), multipliers, conditions, st.integers(0, 900), st.integers(0, 900))
def test_no_usage_inside_the_bounds_costs_more_than_the_worst_case(
    usage: Usage, price: Price, multiplier: int, asked: Conditions, more_in: int, more_out: int
) -> None:
    worst = worst_case_nanos(
        usage.input_tokens + more_in,
        usage.output_tokens + more_out,
        price,
        multiplier,
        conditions=asked,
        count_bounds=_counts(usage),
    )

    for tier in (asked.service_tier, ""):
        assert charge_nanos(usage, price, multiplier, asked._replace(service_tier=tier)) <= worst


@some
@given(usages, priced(), multipliers, conditions)
def test_no_text_inside_the_bounds_costs_more_than_the_worst_case_of_text(
    usage: Usage, price: Price, multiplier: int, asked: Conditions
) -> None:
    text = usage._replace(audio_in=0, audio_out=0, image_in=0, image_out=0)

    worst = worst_case_nanos(
        text.input_tokens,
        text.output_tokens,
        price,
        multiplier,
        is_text_only=True,
        conditions=asked,
        count_bounds=_counts(text),
    )

    assert charge_nanos(text, price, multiplier, asked) <= worst


@some
@given(
    usages,
    priced(),
    multipliers,
    conditions,
    st.sampled_from([None, "default", "flex", "priority"]),
)
def test_whatever_tier_is_served_costs_at_most_the_worst_case(
    usage: Usage, price: Price, multiplier: int, asked: Conditions, served: str | None
) -> None:
    began = datetime(2026, 1, 1, tzinfo=UTC) + timedelta(minutes=asked.minute)
    tier = charged_tier(usage, price, asked=asked.service_tier, served=served, started_at=began)
    worst = worst_case_nanos(
        usage.input_tokens,
        usage.output_tokens,
        price,
        multiplier,
        conditions=asked,
        count_bounds=_counts(usage),
    )

    assert charge_nanos(usage, price, multiplier, conditions_of(tier, began)) <= worst


@some
@given(usages, usages, priced(), multipliers, conditions)
def test_more_usage_never_costs_less(
    usage: Usage, more: Usage, price: Price, multiplier: int, asked: Conditions
) -> None:
    longer = charge_nanos(_plus(usage, more), price, multiplier, asked)

    assert charge_nanos(usage, price, multiplier, asked) <= longer


@some
@given(usages, usages, priced(), multipliers, conditions)
def test_splitting_a_request_inside_its_context_tier_never_makes_it_cheaper(
    first: Usage, second: Usage, price: Price, multiplier: int, asked: Conditions
) -> None:
    terms = price.terms or Terms()
    together = _plus(first, second)
    tier = terms.find_context(together.input_tokens)
    if not all(terms.find_context(part.input_tokens) == tier for part in (first, second)):
        price = dataclasses.replace(
            price,
            terms=None if price.terms is None else dataclasses.replace(terms, context_tiers=()),
        )

    apart = charge_nanos(first, price, multiplier, asked)
    apart += charge_nanos(second, price, multiplier, asked)

    assert charge_nanos(together, price, multiplier, asked) <= apart


@some
@given(
    st.integers(0, 10**10),
    st.integers(0, 10**4),
    priced(),
    multipliers,
    st.integers(1, 4),
    st.booleans(),
    conditions,
    st.integers(0, 5),
)
def test_the_affordable_cap_is_the_largest_one_the_budget_covers(
    budget: int,
    bound: int,
    price: Price,
    multiplier: int,
    choices: int,
    is_text_only: bool,
    asked: Conditions,
    searches: int,
) -> None:
    more: dict[str, Any] = {
        "is_text_only": is_text_only,
        "conditions": asked,
        "count_bounds": {"web_search": searches},
    }
    cap = affordable_output_tokens(budget, bound, price, multiplier, choices, **more)

    def worst(tokens: int) -> int:
        return worst_case_nanos(bound, tokens * choices, price, multiplier, **more)

    assert 0 <= cap <= OUTPUT_TOKENS_MAX
    if cap:
        assert worst(cap) <= budget
    if cap < OUTPUT_TOKENS_MAX:
        assert worst(cap + 1) > budget


@some
@given(usages, priced(), multipliers, conditions)
def test_the_lines_of_an_explanation_sum_to_the_charge(
    usage: Usage, price: Price, multiplier: int, asked: Conditions
) -> None:
    lines = explain(usage, price, multiplier, asked)

    total = charge_nanos(usage, price, multiplier, asked)
    assert sum(line.amount_nanos for line in lines) == total
    assert all(line.amount_nanos >= 0 for line in lines)


@some
@given(usages, priced(), st.integers(1, 3_000_000), conditions)
def test_each_line_is_what_its_listed_price_gives_to_the_nano(
    usage: Usage, price: Price, multiplier: int, asked: Conditions
) -> None:
    for line in explain(usage, price, multiplier, asked):
        if line.item != "minimum":
            million = 1 if line.item in ("request", *COUNTS) and line.item != "character" else ONE
            exact = line.count * line.price_nanos * line.factor * multiplier
            off = line.amount_nanos * million * 10**12 * ONE - exact
            assert abs(off) < million * 10**12 * ONE
