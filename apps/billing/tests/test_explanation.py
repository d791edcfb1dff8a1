"""Tests that every charge is explained by lines that sum to it, to the nano (I-21, I-26).

Over 400 lines because each way in which a charge comes about is one short test here.
"""

from __future__ import annotations

from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pytest_django import DjangoAssertNumQueries
from rest_framework.test import APIClient

from apps.ai_models.models import PriceVersion
from apps.audit.models import Attempt
from apps.billing.explanation import Explanation, explain_charge
from apps.billing.ledger.commands import Held
from apps.billing.models import Entry
from apps.billing.pricing import Price, charge_nanos
from apps.core.usage import TOKEN_CLASSES, Usage
from apps.users.models import Role
from tests.support.calls import make_call, record_call
from tests.support.people import make_user, rest_client
from tests.support.world import DOLLAR, NOW, Gateway, World, django_engine, make_world

LIST = "/api/admin/requests/"
COUNTS = st.integers(0, 10**7)
PRICES = st.integers(0, 10**12)


@pytest.fixture
def world(db: None) -> World:
    """Return a world with ten dollars; a million input tokens cost one."""
    return make_world()


@pytest.fixture
def gateway(world: World) -> Gateway:
    """Return a gateway on the test's own connection."""
    return Gateway(world, django_engine())


def _held(gateway: Gateway, nanos: int) -> Held:
    held = gateway.hold(nanos)
    assert isinstance(held, Held)
    return held


def _charge(client: APIClient, request_id: UUID) -> dict[str, Any]:
    shown: dict[str, Any] = client.get(f"{LIST}{request_id}/").json()
    charge: dict[str, Any] = shown["explained_charge"]
    parts = [*charge["lines"], *charge["adjustments"]]
    assert sum(Decimal(part["amount"]) for part in parts) == Decimal(charge["total"])
    taken = -sum(Entry.objects.filter(request_id=request_id).values_list("amount_nanos", flat=True))
    assert Decimal(charge["total"]) == Decimal(taken) / DOLLAR
    assert sum(Decimal(entry["amount"]) for entry in shown["entries"]) == -Decimal(charge["total"])
    return charge


def _adjusted(charge: dict[str, Any]) -> list[tuple[str, str]]:
    return [(part["kind"], part["amount"]) for part in charge["adjustments"]]


def test_a_charge_is_tokens_times_price_times_multiplier(
    gateway: Gateway, client: APIClient
) -> None:
    held = _held(gateway, DOLLAR)
    gateway.resolve(held, 1_500)

    charge = _charge(client, held.request_id)

    assert charge == {
        "lines": [
            {
                "item": "input",
                "count": 1_500,
                "price_per_million": "1",
                "price_per_request": None,
                "price_per_piece": None,
                "terms_multiplier": "1",
                "multiplier": "1",
                "amount": "0.0015",
            }
        ],
        "adjustments": [],
        "total": "0.0015",
        "note": "",
        "terms": [],
    }


def test_a_charge_under_terms_says_which_and_how_they_multiply(
    world: World, gateway: Gateway, client: APIClient
) -> None:
    price = PriceVersion.objects.create(
        model=world.model,
        effective_at=NOW,
        input_nanos=1_000_000,
        output_nanos=4_000_000,
        web_search_nanos=50,
        minimum_nanos=500,
        terms={
            "context_tiers": [{"above_input_tokens": 10, "amounts": {"input": 2_000_000}}],
            "service_tiers": [{"name": "flex", "multiplier_millionths": 500_000}],
            "windows": [{"from_minute": 0, "to_minute": 720, "multiplier_millionths": 750_000}],
        },
    )
    row = record_call(
        price_version_id=price.pk,
        charge_nanos=250,
        input_tokens=100,
        service_tier="flex",
        counts='{"web_search":2}',
        started_at=NOW.replace(hour=11, minute=59),
    )

    charge = client.get(f"{LIST}{row.pk}/").json()["explained_charge"]

    assert charge["terms"] == [
        "more than 10 input tokens",
        "service tier flex",
        "from 00:00 to 12:00 UTC",
    ]
    shown = [
        (
            line["item"],
            line["count"],
            line["price_per_million"] or line["price_per_piece"] or line["price_per_request"],
            line["terms_multiplier"],
            line["amount"],
        )
        for line in charge["lines"]
    ]
    # (100 x 2 x 0.375 + 2 x 50) = 175 nanos, at least 500; half of that by the multiplier.
    assert shown == [
        ("input", 100, "0.002", "0.375", "0.000000038"),
        ("web_search", 2, "0.00000005", "1", "0.00000005"),
        ("minimum", 1, "0.0000005", "1", "0.000000162"),
    ]


def test_a_voided_call_has_no_lines_and_says_why(
    world: World, gateway: Gateway, client: APIClient
) -> None:
    price = PriceVersion.objects.create(
        model=world.model, effective_at=NOW, input_nanos=1, output_nanos=1, request_nanos=5
    )
    held = _held(gateway, DOLLAR)
    gateway.resolve(held, 0, price_version_id=price.pk)

    charge = _charge(client, held.request_id)

    assert (charge["lines"], charge["adjustments"], charge["total"]) == ([], [], "0")
    assert charge["note"].startswith("Nothing was produced")


def test_a_call_that_was_lost_early_is_not_said_to_have_produced_nothing(
    world: World, client: APIClient
) -> None:
    row = record_call(
        state="interrupted", status_code=499, usage_source="none", charge_nanos=0, hold_nanos=DOLLAR
    )

    charge = _charge(client, row.pk)

    assert (charge["lines"], charge["total"]) == ([], "0")
    assert charge["note"] == (
        "The gateway was lost before it had noted what this call produced: the hold was given "
        "back whole."
    )


def test_a_price_per_request_has_a_line_of_its_own(
    world: World, gateway: Gateway, client: APIClient
) -> None:
    price = PriceVersion.objects.create(
        model=world.model, effective_at=NOW, input_nanos=0, output_nanos=0, request_nanos=1_000
    )
    row = record_call(price_version_id=price.pk, charge_nanos=500, input_tokens=7)

    shown = client.get(f"{LIST}{row.pk}/").json()["explained_charge"]["lines"]

    assert [tuple(line.values()) for line in shown] == [
        ("input", 7, "0", None, None, "1", "0.5", "0"),
        ("request", 1, None, "0.000001", None, "1", "0.5", "0.0000005"),
    ]


def test_usage_above_the_hold_is_charged_in_full_and_owed(
    world: World, gateway: Gateway, client: APIClient
) -> None:
    held = _held(gateway, DOLLAR)
    gateway.resolve(held, 12_000_000)

    shown = client.get(f"{LIST}{held.request_id}/").json()
    charge = _charge(client, held.request_id)

    assert (charge["total"], charge["adjustments"]) == ("12", [])
    assert [(e["account_kind"], e["kind"], e["amount"]) for e in shown["entries"]] == [
        ("wallet", "charge", "-1"),
        ("wallet", "excess", "-9"),
        ("receivable", "excess", "-2"),
    ]
    assert {entry["transaction_kind"] for entry in shown["entries"]} == {"settlement"}


@pytest.mark.parametrize(
    "row",
    [
        {"usage_source": "estimated"},
        {"usage_source": "checkpoint", "state": "interrupted"},
        {"usage_source": "reported", "is_usage_suspect": True},
    ],
)
def test_what_was_not_charged_above_the_hold_is_an_adjustment(
    gateway: Gateway, client: APIClient, row: dict[str, Any]
) -> None:
    held = _held(gateway, DOLLAR)
    gateway.resolve(held, 1_000_000, output_tokens=500_000, **row)

    charge = _charge(client, held.request_id)

    assert [(line["item"], line["amount"]) for line in charge["lines"]] == [
        ("input", "1"),
        ("output", "2"),
    ]
    assert _adjusted(charge) == [("limited_to_hold", "-2")]
    assert charge["note"] != ""


def test_a_usage_that_was_told_and_cannot_be_true_is_not_said_to_be_missing(
    gateway: Gateway, client: APIClient
) -> None:
    held, other = _held(gateway, DOLLAR), _held(gateway, DOLLAR)
    gateway.resolve(held, 1_000, usage_source="estimated", is_usage_suspect=True)
    gateway.resolve(other, 1_000, usage_source="estimated")

    notes = [_charge(client, found.request_id)["note"] for found in (held, other)]

    assert notes == [
        "What the provider reported cannot be true: the gateway estimated the usage from what went "
        "through.",
        "The provider reported no usage: the gateway estimated it from what went through.",
    ]


def test_a_late_settlement_is_explained_by_what_it_tells(
    world: World, gateway: Gateway, client: APIClient
) -> None:
    cost = PriceVersion.objects.create(
        route=world.route, effective_at=NOW, input_nanos=DOLLAR // 2, output_nanos=0
    )
    held = _held(gateway, DOLLAR)
    gateway.resolve(held, 200_000, usage_source="checkpoint", state="interrupted")
    gateway.resolve(held, 700_000, cost_version_id=cost.pk, cost_nanos=350_000_000)

    shown = client.get(f"{LIST}{held.request_id}/").json()
    charge = _charge(client, held.request_id)

    assert [(line["count"], line["amount"]) for line in charge["lines"]] == [(700_000, "0.7")]
    assert (charge["adjustments"], charge["total"]) == ([], "0.7")
    assert charge["note"].startswith("The gateway that had lost this call told its usage later")
    assert (shown["charge"], shown["input_tokens"], shown["cost"]) == ("0.2", 200_000, None)
    assert (shown["explained_cost"]["total"], shown["explained_cost"]["adjustments"]) == (
        "0.35",
        [],
    )


def test_a_late_settlement_is_cut_at_the_hold_as_any_other(
    gateway: Gateway, client: APIClient
) -> None:
    held = _held(gateway, DOLLAR)
    gateway.resolve(held, 0, state="interrupted")
    gateway.resolve(held, 1_000_000, output_tokens=500_000, usage_source="estimated")

    charge = _charge(client, held.request_id)

    assert [line["amount"] for line in charge["lines"]] == ["1", "2"]
    assert (_adjusted(charge), charge["total"]) == ([("limited_to_hold", "-2")], "1")


def test_a_late_settlement_that_tells_nothing_adds_its_difference(
    gateway: Gateway, client: APIClient
) -> None:
    held = _held(gateway, DOLLAR)
    gateway.resolve(held, 200_000, usage_source="checkpoint", state="interrupted")
    gateway.resolve(held, 700_000, service_tier="x" * 500)

    charge = _charge(client, held.request_id)

    assert [line["amount"] for line in charge["lines"]] == ["0.2"]
    assert _adjusted(charge) == [("late", "0.5")]
    assert charge["total"] == "0.7"


def test_a_record_that_does_not_fit_its_price_says_so(gateway: Gateway, client: APIClient) -> None:
    held = _held(gateway, DOLLAR)
    gateway.resolve(held, 1_000_000, output_tokens=1)

    assert _adjusted(_charge(client, held.request_id)) == [("unexplained", "-0.000004")]


def test_a_record_without_entries_or_price_says_so(client: APIClient) -> None:
    row = record_call(charge_nanos=5, price_version_id=999_999)

    charge = _charge(client, row.pk)

    assert charge["lines"] == []
    assert _adjusted(charge) == [("price_unknown", "0.000000005"), ("not_posted", "-0.000000005")]


@given(
    counts=st.lists(COUNTS, min_size=10, max_size=10),
    prices=st.lists(PRICES, min_size=10, max_size=10),
    request_nanos=st.integers(0, 10**12),
    multiplier=st.integers(0, 10**9),
    limit=st.none() | st.integers(0, 10**18),
)
def test_lines_and_adjustments_always_sum_to_what_the_ledger_took(
    counts: list[int],
    prices: list[int],
    request_nanos: int,
    multiplier: int,
    limit: int | None,
) -> None:
    by_class: dict[str, Any] = dict(zip(TOKEN_CLASSES, counts, strict=True))
    usage = Usage(**by_class, source="estimated")
    by_price: dict[str, Any] = dict(zip(TOKEN_CLASSES, prices, strict=True))
    price = Price(id=1, request_nanos=request_nanos, **by_price)
    full = charge_nanos(usage, price, multiplier)
    charged = full if limit is None else min(full, limit)
    row = make_call(
        charge_nanos=charged,
        hold_nanos=full if limit is None else limit,
        multiplier_millionths=multiplier,
        usage_source="estimated",
        **{f"{name}_tokens": count for name, count in by_class.items()},
    )

    found = explain_charge(row, price, [Entry(kind="charge", amount_nanos=-charged)])

    assert _sum(found) == found.total_nanos == charged
    assert {adjustment.kind for adjustment in found.adjustments} <= {"limited_to_hold"}


def _sum(found: Explanation) -> int:
    lines = sum(line.amount_nanos for line in found.lines)
    return lines + sum(adjustment.amount_nanos for adjustment in found.adjustments)


def test_one_call_has_its_attempts_its_timing_and_its_cost(
    world: World, gateway: Gateway, client: APIClient
) -> None:
    cost = PriceVersion.objects.create(
        route=world.route, effective_at=NOW, input_nanos=DOLLAR // 2, output_nanos=0
    )
    held = _held(gateway, DOLLAR)
    gateway.resolve(
        held, 100, output_tokens=0, reasoning_tokens=0, cost_version_id=cost.pk,
        cost_nanos=50_000, is_stream=True, ttft_ms=500, duration_ms=2_500,
    )  # fmt: skip
    for number, text in ((2, ""), (1, "overloaded")):
        Attempt.objects.create(
            request_id=held.request_id, number=number, route_id=1, provider_id=2,
            provider_name="somewhere", provider_key_id=3, upstream_model="big", started_at=NOW,
            duration_ms=7, status_code=529 if text else 200, outcome="failed" if text else "done",
            error_text=text,
        )  # fmt: skip

    shown = client.get(f"{LIST}{held.request_id}/").json()

    assert [(a["number"], a["status_code"], a["error_text"]) for a in shown["attempts"]] == [
        (1, 529, "overloaded"),
        (2, 200, ""),
    ]
    assert (shown["explained_cost"]["total"], shown["explained_cost"]["adjustments"]) == (
        "0.00005",
        [],
    )
    assert shown["timing"]["first_byte_ms"] == 500
    assert shown["timing"]["started_at"] == "2026-11-21T12:00:00.123456Z"
    assert shown["timing"]["ended_at"] == "2026-11-21T12:00:02.623456Z"
    assert shown["timing"]["output_tokens_per_second"] is None
    listed = client.get(LIST).json()["results"][0]
    assert {name: shown[name] for name in listed} == listed


def test_the_rate_counts_from_the_first_byte_of_a_stream(client: APIClient) -> None:
    values = {"ttft_ms": 500, "duration_ms": 2_500, "output_tokens": 100, "reasoning_tokens": 50}
    stream, whole = (record_call(is_stream=is_stream, **values) for is_stream in (True, False))

    rates = [
        client.get(f"{LIST}{row.pk}/").json()["timing"]["output_tokens_per_second"]
        for row in (stream, whole)
    ]

    assert rates == [75.0, 60.0]


def test_viewers_see_neither_money_nor_entries_nor_texts_of_errors(
    gateway: Gateway, client: APIClient
) -> None:
    held = _held(gateway, DOLLAR)
    gateway.resolve(held, 100, cost_nanos=5, cost_version_id=gateway.world.price.pk)
    Attempt.objects.create(
        request_id=held.request_id, number=1, route_id=1, provider_id=1, provider_key_id=1,
        started_at=NOW, duration_ms=1, error_text="secret", upstream_request_id="req_1",
    )  # fmt: skip
    path = f"{LIST}{held.request_id}/"

    shown = rest_client(make_user(role=Role.VIEWER)).get(path).json()
    full = rest_client(make_user(role=Role.ANALYST)).get(path).json()

    assert full == client.get(path).json()
    assert (shown["explained_cost"], shown["entries"], shown["user_name"]) == (None, None, None)
    (attempt,) = shown["attempts"]
    assert (attempt["error_text"], attempt["upstream_request_id"]) == (None, None)
    assert (shown["explained_charge"], shown["charge"]) == (None, None)
    assert full["attempts"][0]["error_text"] == "secret"


@pytest.mark.parametrize("attempts", [1, 5])
def test_one_call_takes_the_same_queries_whatever_hangs_on_it(
    gateway: Gateway,
    client: APIClient,
    django_assert_num_queries: DjangoAssertNumQueries,
    attempts: int,
) -> None:
    held = _held(gateway, DOLLAR)
    gateway.resolve(held, 12_000_000 if attempts > 1 else 1)
    for number in range(attempts):
        Attempt.objects.create(
            request_id=held.request_id, number=number, route_id=1, provider_id=1,
            provider_key_id=1, started_at=NOW, duration_ms=1,
        )  # fmt: skip

    # The session, the call, its prices, its entries, its attempts.
    with django_assert_num_queries(5):
        shown = client.get(f"{LIST}{held.request_id}/").json()

    assert len(shown["attempts"]) == attempts
