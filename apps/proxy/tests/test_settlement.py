from typing import Any

import pytest

from apps.core.usage import Usage
from apps.proxy.admission import plan_call
from apps.proxy.dialects.openai_request import parse_request
from apps.proxy.dialects.parsed_request import Endpoint
from apps.proxy.settlement import judged
from apps.proxy.tests.values import NOW, make_caller, make_snapshot

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
