"""What a call costs, computed by hand, where a mistake would not show in a call like any other."""

from __future__ import annotations

from typing import Any

import openai
import orjson
import psutil
import pytest

from apps.ai_models.catalogue import set_price
from apps.ai_models.models import Route
from apps.audit.models import APIRequest
from apps.billing.chain_walks import walk_requests
from apps.billing.findings import Findings
from apps.core.price_terms import ServiceTier, Terms, TimeWindow
from apps.users.models import User, UserGroup
from tests.e2e.answers import ask
from tests.e2e.raw_upstream import RawUpstream, respond
from tests.support.bench import INPUT_NANOS, OUTPUT_NANOS, Bench, Stage

ONE = 1_000_000  # tokens
CHARGE = 10 * INPUT_NANOS + 16 * OUTPUT_NANOS
REQUEST_NANOS = 7_000


def test_a_call_costs_the_price_of_a_request_once(bench: Bench) -> None:
    stage = bench.stage(request_nanos=REQUEST_NANOS)

    stage.client(max_retries=0).chat.completions.create(**stage.body())

    assert stage.settled().charges == (CHARGE + REQUEST_NANOS,)


def test_a_call_ends_also_where_not_all_of_its_cost_is_known(bench: Bench) -> None:
    stage = bench.stage()
    set_price(route=Route.objects.get(model=stage.model), prices={"input": INPUT_NANOS * ONE})
    bench.make_caller()

    stage.client(max_retries=0).chat.completions.create(**stage.body())

    statement = stage.settled()
    (row,) = statement.rows
    assert (statement.states, statement.charges) == (("completed",), (CHARGE,))
    assert (row.cost_version_id, row.cost_nanos) == (None, None)


def test_a_ranking_that_is_billed_by_the_unit_is_held_for_and_charged(bench: Bench) -> None:
    unit = 2_000_000
    ranking = {
        "results": [{"index": 0, "relevance_score": 0.5}],
        "meta": {"billed_units": {"search_units": 2}},
    }
    with RawUpstream(lambda _: [respond(orjson.dumps(ranking))]) as upstream:
        stage = bench.stage(
            "raw",
            provider=bench.make_provider(upstream.base_url),
            prices={"input": 0, "output": 0, "tool_call": unit},
        )
        poor = bench.make_caller(unit)
        body = orjson.dumps({"model": stage.model.name, "query": "q", "documents": ["a"] * 101})

        answers = [
            ask(bench.gateway, "POST", "/v1/rerank", headers=caller.headers, body=body)
            for caller in (stage.caller, poor)
        ]

    statement = stage.settled()
    assert [answer.status for answer in answers] == [200, 429]
    assert (statement.charges, statement.rows[0].hold_nanos) == ((2 * unit,), 2 * unit)
    assert len(upstream.heard) == 1


def test_units_that_a_provider_reports_are_charged_above_the_hold(bench: Bench) -> None:
    unit = 2_000_000
    ranking = {
        "results": [{"index": 0, "relevance_score": 0.5}],
        "meta": {"billed_units": {"search_units": 3}},
    }
    with RawUpstream(lambda _: [respond(orjson.dumps(ranking))]) as upstream:
        stage = bench.stage(
            "raw",
            provider=bench.make_provider(upstream.base_url),
            prices={"input": 0, "output": 0, "tool_call": unit},
        )
        body = orjson.dumps({"model": stage.model.name, "query": "q", "documents": ["a", "b"]})

        ask(bench.gateway, "POST", "/v1/rerank", headers=stage.caller.headers, body=body)

    statement = stage.settled()
    (row,) = statement.rows
    assert (row.usage_source, row.is_usage_suspect, row.counts) == (
        "reported",
        False,
        '{"tool_call":3}',
    )
    assert (statement.charges, row.hold_nanos) == ((3 * unit,), unit)


def test_a_call_that_failed_does_not_cost_the_price_of_a_request(bench: Bench) -> None:
    stage = bench.stage("demo-chat:fault=status(500)", request_nanos=REQUEST_NANOS)

    with pytest.raises(openai.InternalServerError):
        stage.client(max_retries=0).chat.completions.create(**stage.body())

    statement = stage.settled()
    assert statement.states == ("failed",)
    assert (statement.charges, statement.entries) == ((0,), ())


def test_the_multiplier_counts_once(bench: Bench) -> None:
    group = UserGroup.objects.create(name="half", multiplier_millionths=500_000)
    stage = bench.stage()
    User.objects.filter(pk=stage.caller.user.pk).update(user_group=group)
    # Changes are seen in their order.
    bench.make_caller()

    stage.client(max_retries=0).chat.completions.create(**stage.body())

    assert stage.settled().charges == (CHARGE // 2,)


def _price_again(stage: Stage, **changes: Any) -> None:
    """Set another price of the stage's model and wait until the gateway knows it."""
    set_price(
        model=stage.model,
        prices={"input": INPUT_NANOS * ONE, "output": OUTPUT_NANOS * ONE, **changes.pop("by", {})},
        **changes,
    )
    stage.bench.make_caller()


FLEX: Terms = Terms(service_tiers=(ServiceTier("flex", 500_000), ServiceTier("slow", 250_000)))


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_call_is_charged_and_recorded_at_the_tier_that_was_served(
    bench: Bench, is_stream: bool
) -> None:
    stage = bench.stage()
    _price_again(stage, terms=FLEX)

    answer = stage.client(max_retries=0).chat.completions.create(
        **stage.body(stream=is_stream, service_tier="flex")
    )
    if is_stream:
        list(answer)

    statement = stage.settled()
    assert statement.charges == (CHARGE // 2,)
    row = APIRequest.objects.get(api_key_id=stage.caller.key.pk)
    assert (row.service_tier, row.hold_nanos >= CHARGE) == ("flex", True)
    findings = Findings()
    walk_requests(findings, is_full=True)
    assert findings.items == []


def test_a_tier_without_a_price_is_refused_and_costs_nothing(bench: Bench) -> None:
    stage = bench.stage()
    _price_again(stage, terms=FLEX)

    with pytest.raises(openai.BadRequestError) as refused:
        stage.client(max_retries=0).chat.completions.create(**stage.body(service_tier="priority"))

    assert refused.value.code == "unsupported_parameter"
    assert not APIRequest.objects.filter(api_key_id=stage.caller.key.pk).exists()


def test_a_search_of_which_nothing_is_said_is_charged_once(bench: Bench) -> None:
    stage = bench.stage()
    _price_again(stage, by={"web_search": 25_000_000})

    stage.client(max_retries=0).chat.completions.create(**stage.body(web_search_options={}))

    assert stage.settled().charges == (CHARGE + 25_000_000,)
    row = APIRequest.objects.get(api_key_id=stage.caller.key.pk)
    assert (row.counts, row.service_tier) == ('{"web_search":1}', "")


def test_a_window_and_a_minimum_count_as_the_call_begins(bench: Bench) -> None:
    stage = bench.stage()
    all_day = (TimeWindow(0, 720, 500_000), TimeWindow(720, 0, 500_000))
    _price_again(stage, terms=Terms(windows=all_day), minimum_nanos=CHARGE)

    stage.client(max_retries=0).chat.completions.create(**stage.body())

    assert stage.settled().charges == (CHARGE,)


def _tokenizers(bench: Bench) -> int:
    children = psutil.Process(bench.gateway.process.pid).children()
    return sum("apps.proxy.tokenizer" in child.cmdline() for child in children)


def test_tokens_are_counted_only_for_a_call_without_usage(bench: Bench) -> None:
    reported, unreported = bench.stages("demo-chat:prompt=10", "demo-chat:tokens=3,fault=no_usage")

    at_first = _tokenizers(bench)
    reported.client(max_retries=0).chat.completions.create(**reported.body())
    before = _tokenizers(bench)
    unreported.client(max_retries=0).chat.completions.create(**unreported.body())

    # Another test of this gateway may have needed it before.
    assert (before, _tokenizers(bench)) == (at_first, 1)
    assert reported.settled().charges == (CHARGE,)
    statement = unreported.settled()
    assert statement.rows[0].usage_source == "estimated"
