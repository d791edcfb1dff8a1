"""Quotes over the wire: what a call costs at most, and holds that a call spends or that lapse."""

from __future__ import annotations

import base64
import struct
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from decimal import Decimal
from typing import Any

import orjson
import pytest
from django.db.models import F

from apps.ai_models.catalogue import set_price
from apps.ai_models.models import Route
from apps.audit.models import APIRequest
from apps.billing.models import Hold
from tests.e2e.answers import HttpAnswer, ask, check_error
from tests.e2e.faults import BrokenHolds
from tests.e2e.rows import CHAT, check_nothing_happened
from tests.support.bench import DOLLAR, INPUT_NANOS, OUTPUT_NANOS, PRICES, Bench, Caller, Stage
from tests.support.gateway import FAST
from tests.support.processes import wait_until

# Of its own: holds that nobody spends end with their gateway.
CONSTANTS = FAST
QUOTE = "/v1/quote"
CHARGE = 10 * INPUT_NANOS + 16 * OUTPUT_NANOS


def post(
    stage: Stage, path: str, body: dict[str, Any], caller: Caller | None = None, **headers: str
) -> HttpAnswer:
    sent = (caller or stage.caller).headers | {
        name.replace("_", "-"): value for name, value in headers.items()
    }
    return ask(stage.bench.gateway, "POST", path, headers=sent, body=orjson.dumps(body))


def quote(stage: Stage, **values: Any) -> dict[str, Any]:
    request = stage.body(max_tokens=100, **values.pop("request", {}))
    answer = post(stage, QUOTE, {"request": request, **values})
    assert answer.status == 200, answer.body
    found: dict[str, Any] = orjson.loads(answer.body)
    return found


def spend(stage: Stage, hold: str, caller: Caller | None = None, **headers: str) -> HttpAnswer:
    return post(stage, CHAT, stage.body(max_tokens=100), caller, x_quote_id=hold, **headers)


@pytest.mark.parametrize("path", [QUOTE, "/api/v1/quote/"])
def test_a_quote_says_what_a_call_costs_at_most_and_holds_nothing(bench: Bench, path: str) -> None:
    stage = bench.stage()

    answer = post(stage, path, {"request": stage.body(max_tokens=100)})
    stage.client().chat.completions.create(**stage.body(max_tokens=100))

    row = stage.settled().rows[0]
    found = orjson.loads(answer.body)
    assert Decimal(found["at_most"]["amount"]) * DOLLAR == row.hold_nanos
    assert Decimal(found["likely"]["amount"]) < Decimal(found["at_most"]["amount"])
    assert found["hold"] is None
    assert APIRequest.objects.filter(api_key_id=stage.caller.key.pk).count() == 1


def test_what_is_likely_is_read_is_counted_as_the_model_reads_it(bench: Bench) -> None:
    # Of 300 kB, and a tile.
    png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 512, 512) + bytes(300_000)
    url = f"data:image/png;base64,{base64.b64encode(png).decode()}"
    image = {"type": "image_url", "image_url": {"url": url}}
    content = [{"type": "text", "text": "What is this?"}, image]
    stage = bench.stage("gpt-4o", prices={**PRICES, "image_in": 5_000_000_000})

    found = quote(stage, request={"messages": [{"role": "user", "content": content}]})

    lines = {line["item"]: line["count"] for line in found["likely"]["lines"]}
    # Three tokens for the answer, three for the message, its role, four words.
    assert lines == {"input": 11, "image_in": 85 + 170, "output": 100}


def test_the_hold_of_a_quote_is_spent_by_its_call(bench: Bench) -> None:
    stage = bench.stage()
    hold = quote(stage, hold=True)["hold"]
    held = Hold.objects.get(pk=hold["id"])

    answer = spend(stage, hold["id"])

    statement = stage.settled(2)
    assert Decimal(hold["amount"]) * DOLLAR == held.amount_nanos
    assert answer.status == 200
    assert [(row.state, row.error_code, row.charge_nanos) for row in statement.rows] == [
        ("voided", "quote_spent", 0),
        ("completed", "", CHARGE),
    ]
    assert len(stage.upstream_calls) == 1


def test_the_money_of_a_quote_is_there_for_its_call_alone(bench: Bench) -> None:
    stage = bench.stage()
    most = int(Decimal(quote(stage)["at_most"]["amount"]) * DOLLAR)
    caller = bench.make_caller(most)
    poor = Stage(bench, caller, stage.model, stage.upstream_name)
    hold = quote(poor, hold=True)["hold"]

    other = post(poor, CHAT, poor.body(max_tokens=100))
    mine = spend(poor, hold["id"])

    check_error(other, status=429, type="insufficient_quota", code="credit_balance_exhausted")
    assert mine.status == 200
    assert poor.settled(2).charges == (0, CHARGE)


def test_a_call_is_charged_at_the_price_of_its_quote(bench: Bench) -> None:
    stage = bench.stage()
    hold = quote(stage, hold=True)["hold"]
    set_price(model=stage.model, prices={"input": 10**12, "output": 10**12})
    bench.make_caller()

    answer = spend(stage, hold["id"])

    statement = stage.settled(2)
    assert answer.status == 200
    assert statement.charges == (0, CHARGE)
    assert statement.rows[0].price_version_id == statement.rows[1].price_version_id


def test_a_hold_that_nobody_spends_lapses(bench: Bench) -> None:
    stage = bench.stage()
    hold = quote(stage, hold=True, hold_seconds=1)["hold"]

    statement = stage.settled(1)
    late = spend(stage, hold["id"])

    assert [(row.state, row.error_code) for row in statement.rows] == [("voided", "quote_lapsed")]
    assert (statement.held_nanos, statement.posted_nanos) == (0, 10 * DOLLAR)
    check_error(
        late, status=400, type="invalid_request_error", code="invalid_value", param="x-quote-id"
    )
    assert stage.upstream_calls == []


def test_a_hold_whose_call_the_database_refuses_to_hold_lapses_all_the_same(bench: Bench) -> None:
    stage = bench.stage()
    hold = quote(stage, hold=True, hold_seconds=3)["hold"]

    with BrokenHolds(bench.database, stage.caller.user.username):
        answer = spend(stage, hold["id"])

    statement = stage.settled(1)
    assert answer.status == 503
    assert [(row.state, row.error_code) for row in statement.rows] == [("voided", "quote_lapsed")]
    assert statement.held_nanos == 0
    assert stage.upstream_calls == []


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_quote_is_spent_whatever_the_clock_of_the_database_says(bench: Bench, hours: int) -> None:
    stage = bench.stage()
    hold = quote(stage, hold=True)["hold"]
    # As where the two clocks are an hour apart.
    Hold.objects.filter(pk=hold["id"]).update(placed_at=F("placed_at") + timedelta(hours=hours))

    answer = spend(stage, hold["id"])

    assert answer.status == 200
    assert stage.settled(2).charges == (0, CHARGE)


def test_a_hold_lapses_also_where_the_cost_of_its_call_is_not_all_known(bench: Bench) -> None:
    stage = bench.stage()
    set_price(route=Route.objects.get(model=stage.model), prices={"input": 10**9})
    other = bench.stage()
    hold = quote(stage, hold=True, hold_seconds=1)["hold"]
    later = quote(other, hold=True, hold_seconds=1)["hold"]

    assert str(stage.settled(1).rows[0].id) == hold["id"]
    assert str(other.settled(1).rows[0].id) == later["id"]


@pytest.mark.parametrize("text", ["", "x", "0" * 32, "019ab000-0000-7000-8000-000000000000", "é"])
def test_a_quote_that_never_was_is_refused(bench: Bench, text: str) -> None:
    stage = bench.stage()

    answer = spend(stage, text)

    check_error(
        answer, status=400, type="invalid_request_error", code="invalid_value", param="x-quote-id"
    )
    check_nothing_happened(stage)


def test_nobody_spends_the_quote_of_another_key(bench: Bench) -> None:
    stage = bench.stage()
    hold = quote(stage, hold=True)["hold"]
    others = (bench.make_caller(), bench.make_caller(user=stage.caller.user))

    answers = [spend(stage, hold["id"], caller) for caller in others]

    assert [answer.status for answer in answers] == [400, 400]
    assert Hold.objects.filter(pk=hold["id"]).exists()


def test_a_call_in_progress_is_no_quote(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10,fault=slow_first(2)")
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(post, stage, CHAT, stage.body(max_tokens=100))
        mine = Hold.objects.filter(customer_id=stage.caller.user.customer_id)
        wait_until(mine.exists, timeout_seconds=10, what="a hold")

        answer = spend(stage, str(mine.get().request_id))

        assert answer.status == 400
        assert mine.count() == 1
        assert running.result().status == 200
    assert stage.settled().charges == (CHARGE,)


def test_a_quote_for_one_model_is_none_for_another(bench: Bench) -> None:
    first, second = bench.stages("demo-chat:prompt=10", "demo-chat:prompt=10")
    hold = quote(first, hold=True)["hold"]

    answer = post(first, CHAT, second.body(max_tokens=100), x_quote_id=hold["id"])

    check_error(
        answer, status=400, type="invalid_request_error", code="invalid_value", param="model"
    )
    assert Hold.objects.filter(pk=hold["id"]).exists()


def test_of_many_calls_with_one_quote_one_is_made(bench: Bench) -> None:
    stage = bench.stage()
    hold = quote(stage, hold=True)["hold"]

    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(lambda _: spend(stage, hold["id"]).status, range(16)))

    assert sorted(answers) == [200, *[400] * 15]
    assert sorted(stage.settled(2).charges) == [0, CHARGE]
    assert len(stage.upstream_calls) == 1


def test_a_call_with_a_quote_and_an_idempotency_key_can_be_repeated(bench: Bench) -> None:
    stage = bench.stage()
    hold = quote(stage, hold=True)["hold"]

    first, second = (spend(stage, hold["id"], idempotency_key="once") for _ in range(2))

    assert (first.status, second.status) == (200, 200)
    assert second.body == first.body
    assert second.headers["idempotent-replayed"] == "true"
    assert stage.settled(2).charges == (0, CHARGE)


def test_a_quote_counts_as_a_request_for_the_limits(bench: Bench) -> None:
    stage = bench.stage()
    caller = bench.make_caller(rpm=2)
    limited = Stage(bench, caller, stage.model, stage.upstream_name)

    answers = [post(limited, QUOTE, {"request": limited.body()}) for _ in range(3)]

    assert [answer.status for answer in answers] == [200, 200, 429]
    assert answers[0].headers["x-ratelimit-remaining-requests"] == "1"


def test_a_quote_that_is_not_covered_is_refused_like_its_call(bench: Bench) -> None:
    stage = bench.stage()
    caller = bench.make_caller(1)
    poor = Stage(bench, caller, stage.model, stage.upstream_name)

    shown = post(poor, QUOTE, {"request": poor.body(max_tokens=100)})
    refused = post(poor, QUOTE, {"request": poor.body(max_tokens=100), "hold": True})

    assert shown.status == 200
    check_error(refused, status=429, type="insufficient_quota", code="credit_balance_exhausted")
