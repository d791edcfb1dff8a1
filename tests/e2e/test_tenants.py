"""Many clients through the same connections: nobody gets what is another's (P14, P15).

The provider answers with the marker in the prompt.
"""

from __future__ import annotations

from collections.abc import Iterator

import orjson
import pytest

from tests.e2e.answers import ask
from tests.e2e.raw_upstream import Heard, RawUpstream, completion, respond
from tests.support.bench import Bench, Stage

CHAT = "/v1/chat/completions"


def say(heard: Heard) -> list[bytes]:
    """Answer with the prompt."""
    return [respond(completion(heard.prompt))]


@pytest.fixture(scope="module")
def echo(module_bench: Bench) -> Iterator[tuple[Stage, RawUpstream]]:
    """Run the provider, and make a model of it."""
    with RawUpstream(say) as upstream:
        provider = module_bench.make_provider(upstream.base_url)
        yield module_bench.stage("raw", provider=provider), upstream


def test_cookies_and_keys_of_one_call_are_not_sent_with_the_next(
    bench: Bench, echo: tuple[Stage, RawUpstream]
) -> None:
    stage, upstream = echo
    before = len(upstream.heard)
    body = orjson.dumps(stage.body(messages=[{"role": "user", "content": "marker-0001"}]))

    for number in range(3):
        headers = {**stage.caller.headers, "Cookie": f"a={number}", "X-Mine": str(number)}
        assert ask(bench.gateway, "POST", CHAT, headers=headers, body=body).status == 200

    heads = [heard.lines for heard in upstream.heard[before:]]
    without_id = [[line for line in head if "x-request-id" not in line] for head in heads]
    assert without_id[0] == without_id[1] == without_id[2]
    assert "cookie" not in str(heads).lower()
    assert "x-mine" not in str(heads).lower()


def test_the_same_repeat_key_of_two_users_is_two_calls(
    bench: Bench, echo: tuple[Stage, RawUpstream]
) -> None:
    stage, upstream = echo
    callers = [stage.caller, bench.make_caller()]
    before = len(upstream.heard)
    texts = []

    for number, caller in enumerate(callers):
        messages = [{"role": "user", "content": f"marker-{number:04d}"}]
        headers = {**caller.headers, "Idempotency-Key": "the-same-key-of-both"}
        body = orjson.dumps(stage.body(messages=messages))
        answer = ask(bench.gateway, "POST", CHAT, headers=headers, body=body)
        texts.append(orjson.loads(answer.body)["choices"][0]["message"]["content"])

    assert texts == ["marker-0000", "marker-0001"]
    assert len(upstream.heard) - before == 2
