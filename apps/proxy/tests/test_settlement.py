from typing import Any

import pytest

from apps.audit.models import RequestState
from apps.audit.records import DETAIL_COLUMNS
from apps.billing.ledger.commands import Held
from apps.core.ids import new_uuid7
from apps.core.usage import Usage
from apps.proxy.admission import plan_call
from apps.proxy.call import Call
from apps.proxy.dialects.openai_request import parse_request
from apps.proxy.dialects.parsed_request import Endpoint
from apps.proxy.endings import Ending
from apps.proxy.gateway import Gateway
from apps.proxy.quotes import expect_usage
from apps.proxy.settlement import count_settled, judged, make_resolve
from apps.proxy.tests.values import NOW, make_caller, make_snapshot
from apps.proxy.weight import Weight

CHAT = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 5}


def judge(endpoint: Endpoint, asked: dict[str, Any], usage: Usage) -> Usage:
    # A context of 1,000 tokens.
    snapshot = make_snapshot(b"", model={"name": "m"})
    request = parse_request(endpoint, {"model": "m", **asked})
    return judged(usage, plan_call(snapshot, make_caller(), request, NOW))


@pytest.mark.parametrize(
    ("endpoint", "asked", "fitting", "excess"),
    [
        ("chat/completions", CHAT, {"output": 2_044}, {"output": 2_045}),
        ("chat/completions", CHAT, {"output": 4, "reasoning": 2_040}, {"reasoning": 2_045}),
        ("chat/completions", CHAT | {"n": 2}, {"output": 3_064}, {"output": 3_065}),
        (
            "completions",
            {"prompt": ["a", "b"], "max_tokens": 5},
            {"input": 3_024},
            {"input": 3_025},
        ),
        ("embeddings", {"input": "a"}, {"input": 2_024}, {"input": 2_025}),
        ("embeddings", {"input": ["a", "b", "c"]}, {"input": 4_024}, {"input": 4_025}),
        ("embeddings", {"input": [1, 2, 3]}, {"input": 2_024}, {"input": 2_025}),
        ("embeddings", {"input": [[1], [2]]}, {"input": 3_024}, {"input": 3_025}),
        ("rerank", {"query": "q", "documents": ["a"] * 5}, {"input": 6_024}, {"input": 6_025}),
    ],
)
def test_usage_is_suspect_beyond_what_the_plan_of_its_call_allows(
    endpoint: Endpoint, asked: dict[str, Any], fitting: dict[str, int], excess: dict[str, int]
) -> None:
    credible = Usage.from_dict({**fitting, "source": "reported"})
    absurd = Usage.from_dict({**excess, "source": "reported"})

    assert judge(endpoint, asked, credible) is credible
    assert judge(endpoint, asked, absurd) == absurd._replace(is_suspect=True)


def test_an_estimate_is_not_judged_for_it_is_cut_in_any_case() -> None:
    estimate = Usage(output=9_000_000, source="estimated")

    assert judge("chat/completions", CHAT, estimate) is estimate


def make_call(gateway: Gateway, **asked: Any) -> Call:
    request = parse_request("chat/completions", {"model": "gpt", **CHAT, **asked})
    call = Call(
        gateway,
        plan_call(make_snapshot(b""), make_caller(), request, NOW),
        request_id=new_uuid7(),
        body=b"{}",
        path="/v1/chat/completions",
        address="127.0.0.1",
        user_agent="tests",
        now=NOW,
        begun=gateway.monotonic(),
        weight=Weight(gateway, user_id=1),
    )
    call.routes = list(call.plan.routes)
    call.detail = {**dict.fromkeys(DETAIL_COLUMNS, ""), "started_at": NOW}
    return call


def test_a_call_is_counted_once_however_often_its_end_is_made_up() -> None:
    gateway = Gateway()
    call = make_call(gateway)
    usage = Usage(input=3, output=4, source="reported")
    ending = Ending(RequestState.COMPLETED, 200, usage=usage)
    made = [make_resolve(call, Held(call.request_id, 1_000, ()), ending) for _ in range(2)]
    before = (call.settled_tokens, dict(gateway.counts.calls.counts))

    count_settled(call, ending, made[0].row)

    assert before == (0, {})
    assert call.settled_tokens == 7
    assert gateway.counts.calls.counts == {("chat/completions", "completed", "2xx"): 1}


def test_what_a_model_writes_into_one_answer_is_learnt_from_calls_for_several() -> None:
    gateway = Gateway()
    call = make_call(gateway, n=4, max_tokens=500)
    usage = Usage(input=3, output=60, reasoning=20, source="reported")
    ending = Ending(RequestState.COMPLETED, 200, usage=usage)

    count_settled(call, ending, make_resolve(call, Held(call.request_id, 1_000, ()), ending).row)

    likely = expect_usage(call.plan, gateway.habits, read=Usage(input=3))
    assert gateway.habits.expect(call.plan.model.id) == 20
    assert likely.usage.output == 80


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        (Usage(source="reported", tool_call=3), 1),
        (Usage(input=2, output=5, source="reported"), 7),
        (Usage(), 0),
    ],
)
def test_a_usage_in_pieces_counts_for_limits_as_what_was_reserved(
    usage: Usage, tokens: int
) -> None:
    call = make_call(Gateway())
    ending = Ending(RequestState.COMPLETED, 200, usage=usage)

    count_settled(call, ending, make_resolve(call, Held(call.request_id, 1_000, ()), ending).row)

    assert call.settled_tokens == tokens
