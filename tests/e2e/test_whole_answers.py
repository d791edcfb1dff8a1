"""Answers that come whole: how long they may take, and how they become a stream."""

from __future__ import annotations

import time
from collections.abc import Iterator

import orjson
import pytest

from tests.e2e.answers import ask, check_error
from tests.e2e.raw_upstream import Heard, RawUpstream, completion, respond
from tests.e2e.rows import chat
from tests.support.bench import INPUT_NANOS, OUTPUT_NANOS, Bench

# What comes over the wire is judged before any database is asked.
pytestmark = pytest.mark.sqlite

CHARGE = 10 * INPUT_NANOS + 16 * OUTPUT_NANOS
CHUNKED = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"


def keep_alive(heard: Heard) -> Iterator[bytes]:
    """Send blank lines as long as a model thinks, as some servers do, then the answer."""
    yield CHUNKED
    for _ in range(100):
        yield b"1\r\n\n\r\n"
    body = completion("text")
    yield b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


@pytest.mark.parametrize(("events", "first_byte", "idle"), [(0, 0.4, 60), (2, 60, 0.4)])
def test_an_answer_that_stops_is_given_up_after_the_timeout_that_it_is_under(
    bench: Bench, events: int, first_byte: float, idle: float
) -> None:
    provider = bench.make_provider(first_byte_timeout_seconds=first_byte, idle_timeout_seconds=idle)
    stage = bench.stage(f"demo-chat:fault=stall_after({events})", provider=provider)
    begun = time.monotonic()

    answer = chat(stage)

    # Far from the minute of the other one, also on a busy machine.
    assert time.monotonic() - begun < 10
    check_error(
        answer,
        status=504,
        type="server_error",
        code="upstream_timeout",
        retries=True,
        has_retry_after=True,
    )
    statement = stage.settled()
    assert (statement.states, statement.charges) == (("failed",), (0,))


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_is_kept_alive_may_take_longer_than_its_first_byte(
    bench: Bench, stream: bool
) -> None:
    with RawUpstream(keep_alive) as upstream:
        provider = bench.make_provider(
            upstream.base_url, first_byte_timeout_seconds=1, idle_timeout_seconds=10
        )
        stage = bench.stage("raw", provider=provider)

        answer = chat(stage, stream=stream)

    assert answer.status == 200, answer.body
    assert b'"text"' in answer.body
    assert len(upstream.heard) == 1
    assert stage.settled().charges == (CHARGE,)


def test_an_answer_that_is_kept_alive_ends_at_the_total_limit(bench: Bench) -> None:
    with RawUpstream(keep_alive) as upstream:
        provider = bench.make_provider(upstream.base_url, total_timeout_seconds=0.5)
        stage = bench.stage("raw", provider=provider)

        answer = chat(stage)

    assert (answer.status, answer.error["code"]) == (504, "upstream_timeout")
    assert stage.settled().charges == (0,)


@pytest.mark.parametrize("name", ["completion", "chat.completion"])
def test_a_completion_becomes_a_stream_whatever_its_provider_calls_it(
    bench: Bench, name: str
) -> None:
    document = {
        "id": "cmpl-raw",
        "object": name,
        "choices": [{"index": 0, "text": "Once upon", "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 10, "completion_tokens": 16, "total_tokens": 26},
    }
    with RawUpstream(lambda _: [respond(orjson.dumps(document))]) as upstream:
        stage = bench.stage("raw", provider=bench.make_provider(upstream.base_url))
        body = {"model": stage.model.name, "prompt": "Tell me a story.", "stream": True}

        answer = ask(
            bench.gateway,
            "POST",
            "/v1/completions",
            headers=stage.caller.headers,
            body=orjson.dumps(body),
        )

    assert answer.status == 200, answer.body
    assert b'"text":"Once upon"' in answer.body
    assert answer.body.endswith(b"data: [DONE]\n\n")
    assert stage.settled().charges == (CHARGE,)
