"""Answers as the official SDK and aiohttp see them."""

from __future__ import annotations

import base64
import json
import struct
from typing import Any

import pytest
from openai import AsyncOpenAI

from apps.providers.demo import DemoProvider
from apps.providers.demo.tests.peer import (
    MESSAGES,
    ended,
    post,
    stream,
    words,
)


async def test_a_plain_chat_through_the_sdk(provider: DemoProvider, client: AsyncOpenAI) -> None:
    answer = await client.chat.completions.create(
        model="demo-chat:tokens=5,cached=1,reasoning=2",
        messages=[{"role": "user", "content": "0123456789abcdef"}],
    )

    assert answer.choices[0].message.content == "This answer costs"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "stop"
    assert answer.id.startswith("chatcmpl-")
    assert len(answer.id) == 38
    assert answer._request_id == f"req_{provider.calls[0]['response_id']}"
    usage = answer.usage
    assert usage is not None
    assert usage.prompt_tokens_details is not None
    assert usage.completion_tokens_details is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (4, 5, 9)
    assert usage.prompt_tokens_details.cached_tokens == 1
    assert usage.completion_tokens_details.reasoning_tokens == 2


async def test_a_stream_through_the_sdk_reports_usage_when_asked(
    provider: DemoProvider, client: AsyncOpenAI
) -> None:
    chunks = [
        chunk
        async for chunk in await client.chat.completions.create(
            model="demo-chat:tokens=3,prompt=23",
            messages=[{"role": "user", "content": "hello"}],
            stream=True,
            stream_options={"include_usage": True},
        )
    ]

    assert [len(chunk.choices) for chunk in chunks] == [1, 1, 1, 1, 1, 0]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[0].choices[0].delta.content == ""
    assert [c.choices[0].delta.content for c in chunks[1:4]] == ["This", " answer", " costs"]
    assert chunks[4].choices[0].finish_reason == "stop"
    assert [chunk.usage for chunk in chunks[:5]] == [None] * 5
    usage = chunks[5].usage
    assert usage is not None
    assert (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens) == (23, 3, 26)
    assert len({chunk.id for chunk in chunks}) == 1


async def test_null_usage_stands_in_the_other_chunks_only_when_asked(
    provider: DemoProvider,
) -> None:
    asked = await stream(provider, "m:tokens=1", stream_options={"include_usage": True})
    unasked = await stream(provider, "m:tokens=1")
    always = await stream(provider, "m:tokens=1,usage=always")
    never = await stream(provider, "m:tokens=1,usage=off", stream_options={"include_usage": True})

    assert [e["usage"] is None for e in asked[:-1]] == [True, True, True, False]
    assert ["usage" in e for e in unasked[:-1]] == [False, False, False]
    assert ["usage" in e for e in always[:-1]] == [False, False, False, True]
    assert ["usage" in e for e in never[:-1]] == [False, False, False]
    assert [events[-1] for events in (asked, unasked, always, never)] == ["[DONE]"] * 4


@pytest.mark.parametrize("name", ["max_tokens", "max_completion_tokens"])
async def test_output_is_never_longer_than_the_maximum(provider: DemoProvider, name: str) -> None:
    fields: dict[str, Any] = {name: 7, "n": 2}

    _, _, answer = await post(provider, "m:tokens=50,reasoning=2", **fields)

    assert [choice["finish_reason"] for choice in answer["choices"]] == ["length", "length"]
    assert [choice["message"]["content"] for choice in answer["choices"]] == [
        "This answer costs nothing:",
        "This answer costs nothing:",
    ]
    assert answer["usage"]["completion_tokens"] == 14
    assert answer["usage"]["completion_tokens_details"]["reasoning_tokens"] == 4


async def test_a_stream_of_two_choices_ends_both(provider: DemoProvider) -> None:
    events = await stream(provider, "m:tokens=1", n=2)

    indexes = [event["choices"][0]["index"] for event in events[:-1]]
    assert indexes == [0, 1, 0, 1, 0, 1]
    assert [event["choices"][0]["finish_reason"] for event in events[-3:-1]] == ["stop", "stop"]


async def test_the_same_request_has_the_same_answer_but_another_id(provider: DemoProvider) -> None:
    _, _, first = await post(provider, "demo-chat")
    _, _, second = await post(provider, "demo-chat")

    assert first.pop("id") != second.pop("id")
    assert first == second
    assert first["usage"]["completion_tokens"] == 16


TOOL = {
    "type": "function",
    "function": {
        "name": "book",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "minLength": 3},
                "nights": {"type": "integer", "minimum": 2},
                "mail": {"type": "string", "format": "email"},
            },
            "required": ["city", "nights", "mail"],
            "additionalProperties": False,
        },
    },
}
BOOKING = '{"city":"demo","nights":2,"mail":"demo@example.com"}'


@pytest.mark.parametrize(
    ("choice", "reason"),
    [("required", "tool_calls"), ({"type": "function", "function": {"name": "book"}}, "stop")],
)
async def test_a_forced_tool_is_called(
    client: AsyncOpenAI, provider: DemoProvider, choice: Any, reason: str
) -> None:
    asked: Any = {"model": "demo-chat", "messages": MESSAGES, "tools": [TOOL]}
    asked["tool_choice"] = choice

    answer = await client.chat.completions.create(**asked)
    chunks = [c async for c in await client.chat.completions.create(**asked, stream=True)]

    message = answer.choices[0].message
    assert message.content is None
    assert [call.function.name for call in message.tool_calls] == ["book"]
    assert message.tool_calls[0].function.arguments == BOOKING
    assert answer.choices[0].finish_reason == reason
    deltas = [c.choices[0].delta.tool_calls[0] for c in chunks if c.choices[0].delta.tool_calls]
    assert deltas[0].function.name == "book"
    assert "".join(delta.function.arguments for delta in deltas) == BOOKING
    assert len(deltas) == 14
    assert provider.calls[0]["output_tokens"] == provider.calls[1]["output_tokens"] == 14


async def test_a_tool_that_is_not_forced_is_not_called(provider: DemoProvider) -> None:
    _, _, answer = await post(provider, "m:tokens=1", tools=[TOOL], tool_choice="auto")

    assert answer["choices"][0]["message"]["content"] == "This"


async def test_a_tool_that_is_offered_is_called_once_and_what_it_says_is_told(
    client: AsyncOpenAI,
) -> None:
    asked: Any = {"model": "demo-chat:tools=on", "messages": list(MESSAGES), "tools": [TOOL]}

    first = await client.chat.completions.create(**asked)
    call = first.choices[0].message
    answer = {"role": "tool", "tool_call_id": call.tool_calls[0].id, "content": "row 12"}
    asked["messages"] += [call.model_dump(exclude_none=True), answer]
    second = await client.chat.completions.create(**asked)

    assert first.choices[0].finish_reason == "tool_calls"
    assert (call.content, call.tool_calls[0].function.arguments) == (None, BOOKING)
    assert second.choices[0].message.content == "The tool says: row 12"
    assert second.choices[0].finish_reason == "stop"


async def test_a_client_that_forbids_tools_is_obeyed(provider: DemoProvider) -> None:
    _, _, answer = await post(provider, "m:tools=on,tokens=1", tools=[TOOL], tool_choice="none")

    assert answer["choices"][0]["message"]["content"] == "This"


@pytest.mark.parametrize(
    "url", ["https://images.example/a.png", "data:image/png;base64,iVBORw0KGgo="]
)
async def test_an_image_costs_the_tokens_of_low_detail(provider: DemoProvider, url: str) -> None:
    parts = [{"type": "text", "text": "12345678"}, {"type": "image_url", "image_url": {"url": url}}]
    messages = [{"role": "user", "content": parts}]

    _, _, answer = await post(provider, "m", messages=messages)

    assert answer["usage"]["prompt_tokens"] == 2 + 85


@pytest.mark.parametrize(
    ("image", "code"),
    [
        ({"url": "data:image/png;base64,!!"}, "invalid_base64_image"),
        ({"url": "data:text/plain;base64,aGk="}, "invalid_image_format"),
        ({"url": 5}, "invalid_image_url"),
        ("https://images.example/a.png", "invalid_image_url"),
    ],
)
async def test_what_is_no_image_is_refused(provider: DemoProvider, image: Any, code: str) -> None:
    messages = [{"role": "user", "content": [{"type": "image_url", "image_url": image}]}]

    status, _, answer = await post(provider, "m", messages=messages)

    assert (status, answer["error"]["code"]) == (400, code)
    assert (await ended(provider))["output_tokens"] == 0


async def test_a_tool_call_is_cut_at_the_maximum(provider: DemoProvider) -> None:
    _, _, answer = await post(
        provider, "m:reasoning=9", tools=[TOOL], tool_choice="required", max_tokens=3
    )

    assert answer["choices"][0]["finish_reason"] == "length"
    assert answer["usage"]["completion_tokens"] == 3


async def test_a_structured_answer_fits_its_schema(client: AsyncOpenAI) -> None:
    schema = {
        "type": "object",
        "properties": {"items": {"type": "array", "items": {"type": "string"}, "minItems": 2}},
        "required": ["items"],
        "additionalProperties": False,
    }

    answer = await client.chat.completions.create(
        model="demo-chat",
        messages=[{"role": "user", "content": "list"}],
        response_format={
            "type": "json_schema",
            "json_schema": {"name": "list", "schema": schema, "strict": True},
        },
    )

    assert answer.choices[0].message.content == '{"items":["demo","demo"]}'


async def test_a_json_object_is_json(provider: DemoProvider) -> None:
    events = await stream(provider, "m", response_format={"type": "json_object"})

    assert json.loads(words(events)) == {"answer": "demo"}


async def test_legacy_completions_answer_each_prompt(client: AsyncOpenAI) -> None:
    answer = await client.completions.create(model="m:tokens=2", prompt=["01234567", "abcd"])
    stream = await client.completions.create(model="m:tokens=2", prompt="abcd", stream=True)
    chunks = [chunk async for chunk in stream]

    assert [choice.text for choice in answer.choices] == ["This answer", "This answer"]
    assert answer.object == "text_completion"
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (3, 4)
    assert [chunk.choices[0].text for chunk in chunks] == ["This", " answer", ""]
    assert chunks[-1].choices[0].finish_reason == "stop"


async def test_embeddings_are_unit_vectors_that_depend_on_the_input(client: AsyncOpenAI) -> None:
    answer = await client.embeddings.create(model="m", input=["one", "two", "one"], dimensions=8)

    vectors = [entry.embedding for entry in answer.data]
    assert [len(vector) for vector in vectors] == [8, 8, 8]
    assert vectors[0] == vectors[2]
    assert vectors[0] != vectors[1]
    assert sum(x * x for x in vectors[0]) == pytest.approx(1.0, abs=1e-6)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 3


async def test_embeddings_are_the_same_in_both_encodings(provider: DemoProvider) -> None:
    _, _, plain = await post(provider, "m", "/embeddings", input=[1, 2, 3])
    _, _, packed = await post(
        provider, "m", "/embeddings", input=[1, 2, 3], encoding_format="base64"
    )

    raw = base64.b64decode(packed["data"][0]["embedding"])
    assert list(struct.unpack("<1536f", raw)) == plain["data"][0]["embedding"]
    assert plain["usage"] == {"prompt_tokens": 3, "total_tokens": 3}


async def test_models_are_listed_and_found(client: AsyncOpenAI) -> None:
    listed = [model.id async for model in client.models.list()]
    found = await client.models.retrieve("demo-chat:tokens=3")

    assert listed == ["demo-chat", "demo-embedding"]
    assert found.id == "demo-chat:tokens=3"


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"messages": []}, "messages"),
        ({"messages": [{"content": "x"}]}, "messages[0]"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": True}, "max_tokens"),
        ({"n": 129}, "n"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"model": ""}, "model"),
        ({"model": "m:tokens=many"}, "model"),
        ({"model": "m:speed=9"}, "model"),
        ({"model": "m:fault=unheard_of"}, "model"),
        ({"model": "m:fault=cut_after(1,2)"}, "model"),
        ({"model": "m:fault=bad_usage(what)"}, "model"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema.schema"),
    ],
)
async def test_what_openai_refuses_is_refused(
    provider: DemoProvider, fields: dict[str, Any], param: str
) -> None:
    status, _, answer = await post(provider, **{"model": "m", **fields})

    assert status == 400
    assert answer["error"]["type"] == "invalid_request_error"
    assert answer["error"]["param"] == param
    record = await ended(provider)
    assert (record["status"], record["input_tokens"], record["output_tokens"]) == (400, 0, 0)
