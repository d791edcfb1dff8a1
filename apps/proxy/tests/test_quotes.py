"""Quotes: what is asked, what they add up to, and what is likely."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.billing.pricing import Price, charge_nanos
from apps.core.errors import GatewayError
from apps.core.price_terms import ContextTier, ServiceTier, Terms, TimeWindow
from apps.core.usage import Usage
from apps.proxy.admission import Plan, plan_call
from apps.proxy.dialects.openai_request import parse_request
from apps.proxy.quotes import (
    Habits,
    dearest_usage,
    describe_quote,
    expect_usage,
    parse_quote,
)
from apps.proxy.snapshot import PriceHistory
from apps.proxy.tests.values import EARLIER, NOW, make_caller, make_snapshot

BODY: dict[str, Any] = {"model": "gpt", "messages": [{"role": "user", "content": "Hi"}]}
NANOS = st.integers(0, 10**12)


def _plan(body: dict[str, Any], price: Price | None = None) -> Plan:
    changes = {} if price is None else {"prices": PriceHistory((EARLIER,), (price,))}
    request = parse_request("chat/completions", {**BODY, **body})
    return plan_call(make_snapshot(b"digest", model=changes), make_caller(), request, NOW)


@pytest.mark.parametrize(
    ("body", "seconds"),
    [
        ({}, 0),
        ({"hold": False, "hold_seconds": 9}, 0),
        ({"hold": True}, 60),
        ({"hold": True, "hold_seconds": 300}, 300),
    ],
)
def test_a_quote_is_held_only_where_that_is_asked_for(body: dict[str, Any], seconds: int) -> None:
    asked = parse_quote({"request": BODY, **body})

    assert (asked.hold_seconds, asked.request.endpoint) == (seconds, "chat/completions")


@pytest.mark.parametrize(
    ("body", "row", "param"),
    [
        ({}, "E13", "request"),
        ({"request": []}, "E13", "request"),
        ({"request": {"model": "gpt"}}, "E13", "messages"),
        ({"request": BODY, "endpoint": "chat"}, "E13", "endpoint"),
        ({"request": BODY, "endpoint": ["embeddings"]}, "E13", "endpoint"),
        ({"request": BODY, "hold": 1}, "E13", "hold"),
        ({"request": BODY, "hold": True, "hold_seconds": 0}, "E13", "hold_seconds"),
        ({"request": BODY, "hold": True, "hold_seconds": 301}, "E13", "hold_seconds"),
        ({"request": BODY, "hold": True, "hold_seconds": True}, "E13", "hold_seconds"),
        ({"request": BODY, "model": "gpt"}, "E14", "model"),
    ],
)
def test_what_is_no_request_for_a_quote_is_refused(
    body: dict[str, Any], row: str, param: str
) -> None:
    with pytest.raises(GatewayError) as raised:
        parse_quote(body)

    assert (raised.value.row, raised.value.param) == (row, param)


@st.composite
def prices(draw: st.DrawFn) -> Price:
    """Prices with and without terms; a longer request never costs less."""
    amounts = {
        name: draw(st.none() | NANOS)
        for name in ("cache_read", "cache_write_5m", "reasoning", "audio_in", "image_out")
    }
    terms = None
    if draw(st.booleans()):
        dearer = (("input", 2 * 10**12), ("output", 3 * 10**12))
        terms = Terms(
            context_tiers=(ContextTier(draw(st.integers(1, 900)), dearer),),
            service_tiers=(ServiceTier("flex", draw(st.integers(0, 3_000_000))),),
            windows=(TimeWindow(700, 800, draw(st.integers(0, 2_000_000))),),
        )
    return Price(
        id=1,
        input=draw(NANOS),
        output=draw(NANOS),
        web_search=draw(NANOS),
        request_nanos=draw(st.integers(0, 10**6)),
        minimum_nanos=draw(st.integers(0, 10**6)),
        terms=terms,
        **amounts,
    )


@given(
    price=prices(),
    n=st.integers(1, 3),
    cap=st.none() | st.integers(1, 500),
    searches=st.booleans(),
    image=st.booleans(),
    flex=st.booleans(),
)
def test_at_most_is_what_the_hold_would_be_and_its_lines_add_up(
    price: Price, n: int, cap: int | None, searches: bool, image: bool, flex: bool
) -> None:
    content: Any = "Hi"
    if image:
        content = [{"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}]
    body: dict[str, Any] = {"n": n, "messages": [{"role": "user", "content": content}]}
    if cap is not None:
        body["max_tokens"] = cap
    if searches:
        body["web_search_options"] = {}
    if flex and price.terms is not None:
        body["service_tier"] = "flex"
    plan = _plan(body, price)

    usage, conditions = dearest_usage(plan)
    quote = describe_quote(plan, expect_usage(plan, Habits(), read=Usage(input=3)), quote_id="q")

    charged = charge_nanos(usage, price, plan.access.multiplier_millionths, conditions)
    assert charged == plan.wanted_nanos
    assert Decimal(quote["at_most"]["amount"]) * 10**9 == plan.wanted_nanos
    for cost in (quote["at_most"], quote["likely"]):
        assert sum(Decimal(line["amount"]) for line in cost["lines"]) == Decimal(cost["amount"])


def test_the_lines_of_a_quote() -> None:
    plan = _plan({"max_tokens": 100})

    quote = describe_quote(plan, expect_usage(plan, Habits(), read=Usage(input=9)), quote_id="q")

    most = plan.input_bound * 2_500
    assert quote["at_most"] == {
        "amount": f"0.{most + 1_000_000:09d}".rstrip("0"),
        "input_tokens": plan.input_bound,
        "output_tokens": 100,
        "service_tier": "default",
        "lines": [
            {
                "item": "input",
                "count": plan.input_bound,
                "price": "2.5",
                "per": 1_000_000,
                "terms_multiplier": "1",
                "amount": f"0.{most:09d}".rstrip("0"),
            },
            {
                "item": "output",
                "count": 100,
                "price": "10",
                "per": 1_000_000,
                "terms_multiplier": "1",
                "amount": "0.001",
            },
        ],
    }
    assert quote["likely"]["amount"] == "0.0010225"
    assert (quote["multiplier"], quote["price_version"], quote["hold"]) == ("1", 1, None)


def test_what_is_likely_follows_what_the_model_wrote_lately() -> None:
    plan, habits = _plan({}), Habits()
    unseen = expect_usage(plan, habits, read=Usage(input=9))
    habits.note(plan.model.id, 100)
    first = expect_usage(plan, habits, read=Usage(input=9))
    habits.note(plan.model.id, 300)
    habits.note(plan.model.id + 1, 9_000)

    later = expect_usage(plan, habits, read=Usage(input=9))

    assert (unseen.usage.output, unseen.basis) == (500, "assumed")
    assert (first.usage.output, first.basis) == (100, "recent_calls")
    assert later.usage.output == 110


def test_what_is_likely_is_inside_the_bounds_of_the_call() -> None:
    plan, habits = _plan({"max_tokens": 20, "n": 2}), Habits()
    habits.note(plan.model.id, 5_000)

    likely = expect_usage(plan, habits, read=Usage(input=10**9, image_in=7))

    assert (likely.usage.input, likely.usage.output) == (plan.input_bound, 40)
    assert likely.usage.image_in == 0


def test_what_is_likely_to_be_read_costs_what_its_classes_cost() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    price = Price(id=1, input=2 * 10**9, output=8 * 10**9, image_in=5 * 10**9)
    plan = _plan({"messages": [{"role": "user", "content": [image]}], "max_tokens": 10}, price)
    read = Usage(input=8, image_in=100, source="estimated")

    quote = describe_quote(plan, expect_usage(plan, Habits(), read=read), quote_id="q")

    lines = {line["item"]: (line["count"], line["amount"]) for line in quote["likely"]["lines"]}
    assert lines == {
        "input": (8, "0.000016"),
        "image_in": (100, "0.0005"),
        "output": (10, "0.00008"),
    }
    assert quote["likely"]["input_tokens"] == 108
