"""Faults of usage and of single events."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from apps.providers.demo import DemoProvider
from apps.providers.demo.tests.peer import (
    MESSAGES,
    collect,
    connect,
    ended,
    post,
    stream,
    write_request,
)


async def test_usage_can_be_missing(provider: DemoProvider) -> None:
    _, _, answer = await post(provider, "m:fault=no_usage")
    events = await stream(provider, "m:fault=no_usage", stream_options={"include_usage": True})

    assert "usage" not in answer
    assert [event for event in events[:-1] if "usage" in event] == []
    assert [call["usage_sent"] for call in provider.calls] == [False, False]
    assert [call["output_tokens"] for call in provider.calls] == [16, 16]


@pytest.mark.parametrize(
    ("value", "literal"),
    [
        ("-600", "-600"),
        ('"2147483647"', '"2147483647"'),
        ("string", '"2147483647"'),
        ("9223372036854775807", "9223372036854775807"),
        ("99999999999999999999999", "99999999999999999999999"),
        ("1.5", "1.5"),
        ("NaN", "NaN"),
        ("null", "null"),
        ("true", "true"),
        ("object", '{"value": 1}'),
    ],
)
@pytest.mark.parametrize("is_stream", [False, True])
async def test_usage_can_be_absurd(
    provider: DemoProvider, value: str, literal: str, is_stream: bool
) -> None:
    async with connect(provider) as peer:
        body = {"model": f"m:fault=bad_usage({value})", "messages": MESSAGES, "stream": is_stream}
        peer.writer.write(write_request(body, "connection: close"))
        received = await peer.read_all()

    expected = f'"prompt_tokens":{literal},"completion_tokens":{literal},"total_tokens":{literal},'
    assert received.count(expected.encode()) == 1
    assert (await ended(provider))["usage_sent"] is True


async def test_one_count_can_be_absurd_or_missing(provider: DemoProvider) -> None:
    _, _, wrong = await post(provider, "m:fault=bad_usage(-1,completion_tokens)")
    _, _, lacking = await post(provider, "m:fault=bad_usage(missing)")

    assert (wrong["usage"]["prompt_tokens"], wrong["usage"]["completion_tokens"]) == (4, -1)
    assert list(lacking["usage"]) == ["prompt_tokens_details", "completion_tokens_details"]


async def test_usage_can_claim_many_times_the_output(provider: DemoProvider) -> None:
    _, _, answer = await post(provider, "m:prompt=7,tokens=3,fault=inflated_usage(100)")

    usage = answer["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (
        7,
        300,
        307,
    )


async def test_usage_can_come_twice(provider: DemoProvider) -> None:
    events = await stream(provider, "m:tokens=10,fault=usage_twice")

    counts = [event["usage"]["completion_tokens"] for event in events[:-1] if "usage" in event]
    assert counts == [5, 10]


@pytest.mark.parametrize(
    ("fault", "position"), [("usage_after_finish", -2), ("usage_after_finish(done)", -1)]
)
async def test_usage_can_come_late(provider: DemoProvider, fault: str, position: int) -> None:
    events = await stream(provider, f"m:tokens=2,fault={fault}")

    assert events[position]["usage"]["completion_tokens"] == 2
    assert events[position]["choices"][0]["finish_reason"] is None
    assert events[-3]["choices"][0]["finish_reason"] == "stop"


@pytest.mark.parametrize(("fault", "before"), [("err_event_first", 0), ("err_event_mid(3)", 3)])
async def test_an_error_can_stand_in_a_stream(
    provider: DemoProvider, client: AsyncOpenAI, fault: str, before: int
) -> None:
    chunks = await client.chat.completions.create(
        model=f"m:fault={fault}", messages=[{"role": "user", "content": "x"}], stream=True
    )
    seen: list[Any] = []

    with pytest.raises(openai.APIError) as caught:
        await collect(chunks, into=seen)

    assert len(seen) == before
    assert caught.value.code == "server_overloaded"


async def test_an_event_of_an_unknown_kind_can_stand_in_a_stream(provider: DemoProvider) -> None:
    events = await stream(provider, "m:tokens=2,fault=unknown_event(1)")

    assert events[1] == {"type": "demo.unknown", "hello": "world"}
    assert len(events) == 6
    assert (await ended(provider))["output_tokens"] == 2


async def test_done_can_stand_twice(provider: DemoProvider) -> None:
    events = await stream(provider, "m:tokens=2,fault=end_twice")

    assert events[-2:] == ["[DONE]", "[DONE]"]


async def test_done_can_be_missing(provider: DemoProvider) -> None:
    events = await stream(provider, "m:tokens=2,fault=no_done")

    assert events[-1]["choices"][0]["finish_reason"] == "stop"
