"""Answers that are given again: to whom, at which charge, and how that is recorded."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from apps.ai_models.catalogue import set_price
from apps.billing.adjustments import adjust_balance
from apps.billing.chain_walks import walk_requests
from apps.billing.explanation import explain_request
from apps.billing.findings import Findings
from tests.e2e.answers import HttpAnswer, ask, check_error
from tests.e2e.rows import CHAT
from tests.support.bench import DOLLAR, INPUT_NANOS, OUTPUT_NANOS, Bench, Caller, Stage
from tests.support.processes import wait_until

CHARGE = 10 * INPUT_NANOS + 16 * OUTPUT_NANOS


def make_stage(
    bench: Bench,
    *,
    upstream_name: str = "demo-chat:prompt=10",
    key_seconds: int | None = 60,
    model_seconds: int | None = 60,
    share: int | None = 100_000,
    wallet_nanos: int = 10 * DOLLAR,
) -> Stage:
    stage = bench.stage(upstream_name, cache_seconds=model_seconds, cache_share_millionths=share)
    caller = bench.make_caller(wallet_nanos, cache_seconds=key_seconds)
    return Stage(bench, caller, stage.model, stage.upstream_name)


def post(stage: Stage, caller: Caller | None = None, control: str = "", **body: Any) -> HttpAnswer:
    headers = (caller or stage.caller).headers
    if control:
        headers = headers | {"Cache-Control": control}
    return ask(
        stage.bench.gateway, "POST", CHAT, headers=headers, body=orjson.dumps(stage.body(**body))
    )


def caches(*answers: HttpAnswer) -> list[str | None]:
    return [answer.headers.get("x-gateway-cache") for answer in answers]


@pytest.mark.parametrize("stream", [False, True])
def test_the_same_request_is_answered_again_at_a_share_of_the_price(
    bench: Bench, stream: bool
) -> None:
    stage = make_stage(bench)

    first, second = (post(stage, stream=stream) for _ in range(2))

    statement = stage.settled(2)
    assert caches(first, second) == ["miss", "hit"]
    assert second.body == first.body
    assert second.headers["content-type"] == first.headers["content-type"]
    assert second.headers["x-request-id"] != first.headers["x-request-id"]
    assert statement.charges == (CHARGE, CHARGE // 10)
    assert len(stage.upstream_calls) == 1
    fresh, kept = statement.rows
    assert (fresh.answered_from, kept.answered_from) == ("", "cache")
    assert (kept.route_id, kept.provider_id, kept.provider_name) == (None, None, "")
    assert (kept.attempt_count, kept.cost_nanos, kept.hold_nanos) == (0, 0, CHARGE // 10)
    assert (kept.multiplier_millionths, kept.input_tokens, kept.output_tokens) == (100_000, 10, 16)
    assert sum(line.amount_nanos for line in explain_request(kept).charge.lines) == CHARGE // 10
    findings = Findings()
    walk_requests(findings, is_full=True)
    assert findings.items == []


def test_a_search_that_nobody_counted_is_held_for_as_it_is_charged(bench: Bench) -> None:
    stage = make_stage(bench)
    set_price(
        model=stage.model,
        prices={
            "input": INPUT_NANOS * 1_000_000,
            "output": OUTPUT_NANOS * 1_000_000,
            "web_search": 10_000_000,
        },
    )
    bench.make_caller()  # After it, gateways know the price.

    for _ in range(2):
        post(stage, web_search_options={})

    fresh, kept = stage.settled(2).rows
    assert (fresh.charge_nanos, fresh.answered_from) == (CHARGE + 10_000_000, "")
    assert (kept.charge_nanos, kept.answered_from) == ((CHARGE + 10_000_000) // 10, "cache")
    assert kept.hold_nanos == kept.charge_nanos


@pytest.mark.parametrize(("key_seconds", "model_seconds"), [(None, 60), (60, None), (None, None)])
def test_nothing_is_kept_unless_key_and_model_want_it(
    bench: Bench, key_seconds: int | None, model_seconds: int | None
) -> None:
    stage = make_stage(bench, key_seconds=key_seconds, model_seconds=model_seconds)

    answers = [post(stage) for _ in range(2)]

    assert caches(*answers) == [None, None]
    assert stage.settled(2).charges == (CHARGE, CHARGE)
    assert len(stage.upstream_calls) == 2


def test_without_a_share_an_answer_costs_its_price_and_with_none_nothing(bench: Bench) -> None:
    whole, free = make_stage(bench, share=None), make_stage(bench, share=0)

    for stage in (whole, whole, free, free):
        post(stage)

    assert whole.settled(2).charges == (CHARGE, CHARGE)
    assert free.settled(2).charges == (CHARGE, 0)


def test_nobody_gets_what_another_key_was_answered(bench: Bench) -> None:
    stage = make_stage(bench)
    other = bench.make_caller(cache_seconds=60)
    fellow = bench.make_caller(user=stage.caller.user, cache_seconds=60)

    answers = [post(stage), post(stage, other), post(stage, fellow)]

    assert caches(*answers) == ["miss", "miss", "miss"]
    assert len(stage.upstream_calls) == 3


def test_a_client_can_have_a_fresh_answer_and_keep_the_cache_out(bench: Bench) -> None:
    stage = make_stage(bench)
    controls = ("no-store", "", "no-cache", "no-store", "")

    answers = [post(stage, control=control) for control in controls]

    assert caches(*answers) == [None, "miss", "miss", None, "hit"]
    assert len(stage.upstream_calls) == 4


def test_another_request_gets_its_own_answer(bench: Bench) -> None:
    stage = make_stage(bench)

    answers = [post(stage), post(stage, temperature=0), post(stage, stream=True), post(stage)]

    assert caches(*answers) == ["miss", "miss", "miss", "hit"]


@pytest.mark.parametrize("fault", ["status(500)", "no_usage", "bad_usage(-1)"])
def test_what_failed_or_is_not_certain_is_not_given_again(bench: Bench, fault: str) -> None:
    stage = make_stage(bench, upstream_name=f"demo-chat:prompt=10,fault={fault}")

    answers = [post(stage) for _ in range(2)]

    assert "hit" not in caches(*answers)


def test_an_answer_cut_for_a_low_balance_is_not_given_again(bench: Bench) -> None:
    stage = make_stage(
        bench, upstream_name="demo-chat:prompt=10,tokens=1000", wallet_nanos=2_000_000
    )
    cut = post(stage)
    adjust_balance(
        customer_id=stage.caller.user.customer_id,
        amount_nanos=10 * DOLLAR,
        actor=None,
        reason="for a test",
    )

    wait_until(lambda: caches(post(stage)) == ["hit"], timeout_seconds=10, what="a kept answer")

    assert 256 <= int(cut.headers["x-gateway-output-cap"]) < 500
    assert caches(cut) == ["miss"]
    rows = stage.settled(3).rows
    assert rows[0].output_tokens == int(cut.headers["x-gateway-output-cap"])
    assert [row.output_tokens for row in rows[1:3]] == [1000, 1000]
    assert len(stage.upstream_calls) == 2


def test_what_is_too_old_is_asked_for_again(bench: Bench) -> None:
    stage = make_stage(bench, key_seconds=1)
    post(stage)

    wait_until(lambda: caches(post(stage)) == ["miss"], timeout_seconds=10, what="a fresh answer")

    assert len(stage.upstream_calls) == 2


def test_an_answer_from_the_cache_is_paid_for_before_it_is_given(bench: Bench) -> None:
    stage = make_stage(bench, share=None, wallet_nanos=CHARGE + 2_000_000)
    post(stage, max_tokens=16)
    for _ in range(2_000_000 // CHARGE):
        post(stage, max_tokens=16)

    refused = post(stage, max_tokens=16)

    check_error(refused, status=429, type="insufficient_quota", code="credit_balance_exhausted")
    assert stage.settled().posted_nanos < CHARGE


def test_a_request_with_an_idempotency_key_is_answered_from_the_cache_once(bench: Bench) -> None:
    stage = make_stage(bench)
    post(stage)
    headers = stage.caller.headers | {"Idempotency-Key": "once"}

    second, third = (
        ask(bench.gateway, "POST", CHAT, headers=headers, body=orjson.dumps(stage.body()))
        for _ in range(2)
    )

    assert (second.status, third.status) == (200, 200), third.body
    assert third.body == second.body
    assert third.headers["idempotent-replayed"] == "true"
    assert stage.settled(2).charges == (CHARGE, CHARGE // 10)
