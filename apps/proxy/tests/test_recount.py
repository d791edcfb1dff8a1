from __future__ import annotations

import base64
import struct
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest
import pytest_asyncio

from apps.core.usage import Usage
from apps.proxy import counter as counter_module
from apps.proxy.admission import Plan, plan_call
from apps.proxy.counter import TokenCounter
from apps.proxy.dialects.openai_answer import read_answer
from apps.proxy.dialects.openai_request import parse_request
from apps.proxy.dialects.openai_stream import OpenAIStreamMeter
from apps.proxy.dialects.parsed_request import Endpoint
from apps.proxy.estimate import Excerpt, excerpt
from apps.proxy.families import UNKNOWN
from apps.proxy.recount import TEXT_CHARACTERS_MAX, portion, recount
from apps.proxy.tests.streams import delta, event
from apps.proxy.tests.values import NOW, ROUTE, make_caller, make_snapshot

CHEAP = Usage(input=99, output=88, source="estimated", is_suspect=True)
ANSWER = b'{"choices": [{"message": {"content": "This answer costs nothing."}}]}'
HELLO = [{"role": "user", "content": "hello world"}]


@pytest_asyncio.fixture
async def counter(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[TokenCounter]:
    monkeypatch.setattr(counter_module, "COUNT_SECONDS", 60.0)
    counter = TokenCounter()
    yield counter
    await counter.stop()


def make_plan(model: str = "gpt-4o", endpoint: Endpoint = "chat/completions", **body: Any) -> Plan:
    request = parse_request(endpoint, {"model": model, "messages": HELLO, **body})
    return plan_call(make_snapshot(b"", model={"name": model}), make_caller(), request, NOW)


async def test_input_and_output_are_counted_and_stay_marked(counter: TokenCounter) -> None:
    answer = read_answer("chat/completions", ANSWER)

    usage = await recount(CHEAP, answer, plan=make_plan(), route=None, counter=counter)

    # Three for the message, its role, two words, three for the answer.
    assert usage == Usage(input=9, output=5, source="estimated", is_suspect=True)


async def test_the_upstream_name_tells_the_family_unless_it_is_a_deployment(
    counter: TokenCounter,
) -> None:
    answer = read_answer("chat/completions", ANSWER.replace(b"This", "好好好".encode()))

    async def output(upstream_name: str) -> int:
        route = replace(ROUTE, upstream_name=upstream_name)
        plan = make_plan("claude-opus-5")
        return (await recount(CHEAP, answer, plan=plan, route=route, counter=counter)).output

    assert await output("gpt-4o") == 7
    assert await output("claude-opus-5") == await output("deployment-7") == 11


async def test_images_and_sounds_have_classes_of_their_own(counter: TokenCounter) -> None:
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 512, 512)
    url = "data:image/png;base64," + base64.b64encode(header + bytes(600)).decode()
    sound = base64.b64encode(bytes(24_000)).decode()
    content = [
        {"type": "image_url", "image_url": {"url": url}},
        {"type": "input_audio", "input_audio": {"data": sound, "format": "opus"}},
    ]
    messages = [{"role": "user", "content": content}]
    plan = make_plan(messages=messages)

    usage = await recount(CHEAP, None, plan=plan, route=None, counter=counter)

    # A tile and a half of seconds, each begun one: 85 + 170, 2 × 10.
    assert (usage.input, usage.image_in, usage.audio_in) == (7, 255, 20)


async def test_no_estimate_is_above_the_bound_of_the_hold(counter: TokenCounter) -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "a b " * 9}, image, image]}]
    plan = make_plan(messages=messages)
    tight = plan._replace(input_bound=100)
    tighter = plan._replace(input_bound=20)

    usages = [
        await recount(CHEAP, None, plan=bounded, route=None, counter=counter)
        for bounded in (plan, tight, tighter)
    ]

    assert [(usage.input, usage.image_in) for usage in usages] == [(26, 200), (26, 74), (20, 0)]


async def test_a_stream_is_counted_by_what_it_said(counter: TokenCounter) -> None:
    meter = OpenAIStreamMeter(strip_usage=True)
    for text in ("Hel", "lo \\", 'wor"ld', "日", "本"):
        meter.observe(delta(content=text))
    meter.observe(delta(reasoning="four", reasoning_content="four five"))

    usage = await recount(CHEAP, meter, plan=make_plan(), route=None, counter=counter)

    assert [part.text for part in meter.excerpts()] == ['Hello \\wor"ld日本', "four five"]
    assert (usage.output, usage.reasoning) == (6, 2)


async def test_a_sealed_thought_stays_as_it_was_estimated_beside_what_was_shown(
    counter: TokenCounter,
) -> None:
    meter = OpenAIStreamMeter(strip_usage=True)
    meter.observe(delta(reasoning="1234567"))
    estimated = Usage(input=99, reasoning=2 + 40, source="estimated")

    usage = await recount(estimated, meter, plan=make_plan(), route=None, counter=counter)

    # Three groups of digits instead of seven characters.
    assert (usage.output, usage.reasoning) == (0, 3 + 40)


@pytest.mark.parametrize(("told", "output"), [(1, 3), (9, 9)])
async def test_what_an_early_usage_tells_of_the_input_stays(
    counter: TokenCounter, told: int, output: int
) -> None:
    meter = OpenAIStreamMeter(strip_usage=True)
    usage = {"prompt_tokens": 70, "prompt_tokens_details": {"cached_tokens": 30}}
    meter.observe(event(choices=[], usage={**usage, "completion_tokens": told}))
    meter.observe(delta(content="Hello world!"))
    early = Usage(input=40, cache_read=30, output=88, source="estimated")

    found = await recount(early, meter, plan=make_plan(), route=None, counter=counter)

    assert found == early._replace(output=output)


async def test_a_call_of_a_tool_without_arguments_is_a_token(counter: TokenCounter) -> None:
    meter = OpenAIStreamMeter(strip_usage=True)
    meter.observe(delta(tool_calls=[{"index": 0, "function": {"name": "f", "arguments": ""}}]))
    plan = make_plan()

    usage = await recount(CHEAP, meter, plan=plan, route=None, counter=counter)
    nothing = await recount(CHEAP._replace(output=0), None, plan=plan, route=None, counter=counter)

    assert (usage.output, nothing.output) == (1, 0)


async def test_the_cheap_estimate_stays_where_nothing_can_be_counted(
    counter: TokenCounter, caplog: pytest.LogCaptureFixture
) -> None:
    plan = make_plan()
    broken = plan._replace(request=plan.request._replace(body={"messages": 7}))

    assert await recount(CHEAP, None, plan=broken, route=None, counter=counter) is CHEAP
    assert "the tokens of a call cannot be counted" in caplog.text
    await counter.stop()
    assert await recount(CHEAP, None, plan=plan, route=None, counter=counter) is CHEAP


async def test_a_long_query_is_measured_once_for_all_that_it_ranks(counter: TokenCounter) -> None:
    # Twelve megabytes, read with each document.
    body = {"model": "gpt-4o", "query": "好" * 4_000_000, "documents": ["a"] * 2_048}
    plan = plan_call(
        make_snapshot(b"", model={"name": "gpt-4o", "context_length": 10**10}),
        make_caller(),
        parse_request("rerank", body),
        NOW,
    )
    await counter.stop()
    begun = time.process_time()

    usage = await recount(CHEAP, None, plan=plan, route=None, counter=counter)

    assert usage is CHEAP  # All but the count itself has been done.
    # To measure each copy took some 16 seconds of the processor, to measure one takes none.
    assert time.process_time() - begun < 3


async def test_a_query_counts_with_each_document(counter: TokenCounter) -> None:
    body = {"model": "gpt-4o", "query": "hello world", "documents": ["red", "a blue car", "red"]}
    plan = plan_call(
        make_snapshot(b"", model={"name": "gpt-4o"}),
        make_caller(),
        parse_request("rerank", body),
        NOW,
    )

    usage = await recount(CHEAP, None, plan=plan, route=None, counter=counter)

    assert usage.input == 3 * 2 + 1 + 3 + 1


def test_what_is_kept_of_a_long_stream_stands_for_all_of_it() -> None:
    meter = OpenAIStreamMeter(strip_usage=True)
    block = delta(content="four" * 500)
    for _ in range(200):
        meter.observe(block)

    (part,) = meter.excerpts()

    assert 128 * 1024 <= len(part.text) <= 256 * 1024
    assert part.quarters == 400_000
    counted = portion([part])
    # Five hundred tokens a block would be exact.
    assert counted.tokens(UNKNOWN, len(part.text) // 4) == 100_000


LONG = "The hold is placed before the provider is asked. " * 50
ROWS = "".join(f'{{"id": {n * 7919}, "at": "2026-11-{n % 28}", "ok": null}},\n' for n in range(40))


@pytest.mark.parametrize(
    "texts",
    [
        pytest.param((*[LONG] * 16, *[ROWS] * 16), id="74 thousand characters"),
        pytest.param((*[ROWS] * 120, *[LONG] * 120), id="rows, then prose"),
        pytest.param((LONG, ROWS) * 80, id="by turns"),
        pytest.param((*["好" * 2_000] * 40, *[ROWS] * 70, *[LONG] * 40), id="Chinese, then rows"),
    ],
)
async def test_a_long_stream_is_counted_within_two_per_cent_wherever_it_changes(
    counter: TokenCounter, texts: tuple[str, ...]
) -> None:
    meter = OpenAIStreamMeter(strip_usage=True)
    for text in texts:
        meter.observe(delta(content=text))

    usage = await recount(CHEAP, meter, plan=make_plan(), route=None, counter=counter)

    true = await counter.count("o200k_base", (["".join(texts)],))
    assert true is not None
    assert abs(usage.output - true[0]) <= true[0] * 2 / 100


def test_a_character_that_comes_in_halves_spoils_no_text() -> None:
    meter = OpenAIStreamMeter(strip_usage=True)
    meter.observe(delta(content="\n" * 20_000))
    meter.observe(b'data: {"choices":[{"delta":{"content":"a\\n\\ud83d"}}]}\n\n')
    _ = meter.events  # The batch ends here.
    meter.observe(b'data: {"choices":[{"delta":{"content":"\\ude00b"}}]}\n\n')

    (part,) = meter.excerpts()

    assert part.text == "\n" * 20_000 + "a\n\ud83d\ude00b"
    assert part.quarters == 20_000 + 2 + 8 + 1


def test_a_long_text_is_counted_by_its_beginning() -> None:
    counted = portion([excerpt("a" * TEXT_CHARACTERS_MAX), excerpt("b" * 3 * TEXT_CHARACTERS_MAX)])

    assert counted.texts == ["a" * TEXT_CHARACTERS_MAX]
    assert counted.tokens(UNKNOWN, 1_000) == 4_000
    assert portion([Excerpt("", 0)]).tokens(UNKNOWN, 0) == 0
