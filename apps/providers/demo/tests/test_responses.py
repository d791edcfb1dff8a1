"""OpenAI's Responses API as its official SDK sees it."""

from __future__ import annotations

import json
from typing import Any

import openai
import pytest
from openai import AsyncOpenAI

from apps.providers.demo import DemoProvider
from apps.providers.demo.tests.peer import connect, dechunk, ended
from apps.providers.demo.tests.spoken import SPOKEN, call, read_named

TOOL: Any = {
    "type": "function",
    "name": "book",
    "strict": False,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "nights": {"type": "integer", "minimum": 2}},
        "required": ["city", "nights"],
    },
}
BOOKING = '{"city":"demo","nights":2}'


async def ask(provider: DemoProvider, model: str, **fields: Any) -> tuple[int, dict[str, Any]]:
    """Return status and JSON of a call that is not streamed."""
    body = {"model": model, "input": "0123456789abcdef", **fields}
    status, _, content = await call(provider, "/v1/responses", body)
    return status, json.loads(content)


async def stream(provider: DemoProvider, model: str, **fields: Any) -> list[tuple[str, Any]]:
    """Return the events of a streamed call."""
    body = {"model": model, "input": "0123456789abcdef", "stream": True, **fields}
    status, headers, content = await call(provider, "/v1/responses", body)
    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    return read_named(content)


async def test_a_response_through_the_sdk(client: AsyncOpenAI, provider: DemoProvider) -> None:
    answer = await client.responses.create(
        model="demo-chat:tokens=5,reasoning=2,prompt=20,cached=5,cache_write_5m=3",
        input="hello",
        instructions="be brief",
        reasoning={"summary": "auto"},
    )

    response_id = provider.calls[0]["response_id"]
    assert answer.id == f"resp_{response_id}"
    assert answer._request_id == f"req_{response_id}"
    assert (answer.status, answer.output_text) == ("completed", "This answer costs")
    assert answer.instructions == "be brief"
    reasoning, message = answer.output
    assert reasoning.type == "reasoning"
    assert [part.text for part in reasoning.summary] == ["This answer"]
    assert reasoning.encrypted_content
    assert (message.type, message.id) == ("message", f"msg_{response_id}")
    assert answer.usage is not None
    assert answer.usage.model_dump(exclude_none=True) == {
        "input_tokens": 20,
        "input_tokens_details": {"cached_tokens": 5, "cache_write_tokens": 3},
        "output_tokens": 5,
        "output_tokens_details": {"reasoning_tokens": 2},
        "total_tokens": 25,
    }
    assert (provider.calls[0]["input_tokens"], provider.calls[0]["output_tokens"]) == (20, 5)


async def test_a_stream_through_the_sdk_ends_with_the_same_response(client: AsyncOpenAI) -> None:
    asked: Any = {"model": "m:tokens=4,reasoning=1", "input": "hi"}
    asked["reasoning"] = {"summary": "auto"}

    whole = await client.responses.create(**asked)
    async with client.responses.stream(**asked) as events:
        seen = [event async for event in events]
        final = await events.get_final_response()

    assert [event.type for event in seen] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.reasoning_summary_part.added",
        "response.reasoning_summary_text.delta",
        "response.reasoning_summary_text.done",
        "response.reasoning_summary_part.done",
        "response.output_item.done",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    assert [event.sequence_number for event in seen] == list(range(17))
    assert final.output_text == whole.output_text == "This answer costs"
    assert final.usage == whole.usage


async def test_reasoning_is_summarised_only_where_asked(provider: DemoProvider) -> None:
    _, answer = await ask(provider, "m:tokens=3,reasoning=2")
    events = await stream(provider, "m:tokens=3,reasoning=2")

    assert [item["type"] for item in answer["output"]] == ["reasoning", "message"]
    assert answer["output"][0]["summary"] == []
    assert [name for name, _ in events if "summary" in name] == []
    assert (await ended(provider, at=1))["output_tokens"] == 3


async def test_a_function_is_called_and_what_it_says_is_told(client: AsyncOpenAI) -> None:
    asked: Any = {"model": "m:tools=on", "tools": [TOOL]}

    first = await client.responses.create(**asked, input="hi")
    async with client.responses.stream(**asked, input="hi") as events:
        deltas = [
            e.delta async for e in events if e.type == "response.function_call_arguments.delta"
        ]
        streamed = await events.get_final_response()
    (called,) = first.output
    assert called.type == "function_call"
    told: Any = {"type": "function_call_output", "call_id": called.call_id, "output": "row 12"}
    second = await client.responses.create(**asked, input=[told], previous_response_id=first.id)

    assert (called.name, called.arguments, first.status) == ("book", BOOKING, "completed")
    assert len(deltas) == 7
    assert "".join(deltas) == BOOKING
    assert streamed.usage == first.usage
    assert first.usage is not None
    assert first.usage.output_tokens == 8
    assert second.output_text == "The tool says: row 12"


@pytest.mark.parametrize(
    ("choice", "type_"),
    [
        ("required", "function_call"),
        ({"type": "function", "name": "book"}, "function_call"),
        ("auto", "message"),
        ("none", "message"),
    ],
)
async def test_the_choice_of_a_tool_is_obeyed(
    provider: DemoProvider, choice: Any, type_: str
) -> None:
    _, answer = await ask(provider, "m", tools=[TOOL], tool_choice=choice)

    assert [item["type"] for item in answer["output"]] == [type_]


async def test_a_structured_answer_fits_its_schema(provider: DemoProvider) -> None:
    form = {"type": "json_schema", "name": "stay", "schema": TOOL["parameters"]}

    _, answer = await ask(provider, "m", text={"format": form})

    assert answer["output"][0]["content"][0]["text"] == BOOKING
    assert answer["text"] == {"format": form}


async def test_output_is_never_longer_than_the_maximum(provider: DemoProvider) -> None:
    _, answer = await ask(provider, "m:tokens=50", max_output_tokens=16)
    events = await stream(provider, "m:tokens=50", max_output_tokens=16)

    assert (answer["status"], answer["usage"]["output_tokens"]) == ("incomplete", 16)
    assert answer["incomplete_details"] == {"reason": "max_output_tokens"}
    name, data = events[-1]
    assert name == "response.incomplete"
    assert data["response"]["output"][0]["status"] == "incomplete"


async def test_a_stored_response_can_be_had_again_and_gone_on_from(
    client: AsyncOpenAI, provider: DemoProvider
) -> None:
    first = await client.responses.create(model="m:tokens=3", input="0123456789abcdef")
    again = await client.responses.retrieve(first.id)
    second = await client.responses.create(
        model="m", input="01234567", previous_response_id=first.id
    )

    assert again == first
    assert second.previous_response_id == first.id
    assert second.usage is not None
    assert second.usage.input_tokens == 4 + 3 + 2
    assert (await ended(provider, at=1))["output_tokens"] == 0


async def test_what_was_not_stored_is_not_found(client: AsyncOpenAI) -> None:
    unkept = await client.responses.create(model="m", input="x", store=False)

    with pytest.raises(openai.NotFoundError) as missing:
        await client.responses.retrieve(unkept.id)
    with pytest.raises(openai.BadRequestError) as unknown:
        await client.responses.create(model="m", input="x", previous_response_id=unkept.id)

    assert f"Response with id '{unkept.id}' not found." in str(missing.value)
    assert unknown.value.code == "previous_response_not_found"
    assert unknown.value.param == "previous_response_id"


async def test_a_response_that_failed_is_not_stored(provider: DemoProvider) -> None:
    await ask(provider, "m:fault=status(500)")

    name = f"resp_{provider.calls[0]['response_id']}"
    status, _, _ = await call(provider, f"/v1/responses/{name}")

    assert status == 404


async def test_instructions_images_and_items_are_a_part_of_the_prompt(
    provider: DemoProvider,
) -> None:
    parts = [
        {"type": "input_text", "text": "12345678"},
        {"type": "input_image", "image_url": "https://images.example/a.png"},
    ]
    body: dict[str, Any] = {"model": "m", "instructions": "1234"}
    body["input"] = [{"role": "user", "content": parts}]

    _, answer = await ask(provider, **body)
    _, _, counted = await call(provider, "/v1/responses/input_tokens", body)

    assert answer["usage"]["input_tokens"] == 1 + 2 + 85
    assert json.loads(counted) == {"object": "response.input_tokens", "input_tokens": 88}


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"input": None}, "input", "invalid_type"),
        ({"input": []}, "input", "invalid_type"),
        ({"max_output_tokens": 15}, "max_output_tokens", "integer_below_min_value"),
        ({"stream": "yes"}, "stream", None),
        ({"model": "m:fault=unheard_of"}, "model", "invalid_demo_option"),
        ({"tool_choice": "required"}, "tool_choice", None),
    ],
)
async def test_what_openai_refuses_is_refused(
    provider: DemoProvider, fields: dict[str, Any], param: str, code: str | None
) -> None:
    status, answer = await ask(provider, **{"model": "m", **fields})

    assert status == 400
    assert (answer["error"]["param"], answer["error"]["code"]) == (param, code)
    record = await ended(provider)
    assert (record["status"], record["input_tokens"], record["output_tokens"]) == (400, 0, 0)


@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        ("status(401)", 401, "invalid_api_key"),
        ("status(429)", 429, "rate_limit_exceeded"),
        ("status(503)", 503, "service_unavailable"),
    ],
)
async def test_a_status_comes_in_openais_shape(
    provider: DemoProvider, fault: str, status: int, code: str
) -> None:
    body = {"model": f"m:fault={fault}", "input": "x"}

    got, headers, content = await call(provider, "/v1/responses", body)

    assert (got, json.loads(content)["error"]["code"]) == (status, code)
    assert headers.get("retry-after") == ("1" if status == 429 else None)


async def test_a_response_can_fail_before_it_begins_and_in_its_middle(
    provider: DemoProvider,
) -> None:
    first = await stream(provider, "m:fault=err_event_first")
    middle = await stream(provider, "m:fault=err_event_mid(6)")

    ((name, data),) = first
    assert (name, data["type"], data["code"]) == ("error", "error", "server_overloaded")
    assert len(middle) == 7
    name, data = middle[-1]
    assert name == "response.failed"
    assert data["response"]["status"] == "failed"
    assert data["response"]["error"]["code"] == "server_error"
    assert data["response"]["id"] == middle[0][1]["response"]["id"]


@pytest.mark.parametrize(
    ("fault", "names"),
    [
        ("no_done", ["response.content_part.done", "response.output_item.done"]),
        ("no_finish(5)", ["response.content_part.added", "response.output_text.delta"]),
        ("usage_twice", ["response.in_progress", "response.completed"]),
        ("usage_after_finish", ["response.completed", "response.completed"]),
        ("late_after_done(1)", ["response.completed", "response.output_text.delta"]),
        ("end_twice", ["response.completed", "response.completed"]),
        ("unknown_event(99)", ["demo.unknown", "response.completed"]),
    ],
)
async def test_the_end_of_a_stream_can_be_odd(
    provider: DemoProvider, fault: str, names: list[str]
) -> None:
    events = await stream(provider, f"m:tokens=2,fault={fault}")

    assert [name for name, _ in events[-2:]] == names


async def test_usage_can_come_twice_or_late(provider: DemoProvider) -> None:
    twice = await stream(provider, "m:tokens=10,fault=usage_twice")
    late = await stream(provider, "m:tokens=10,fault=usage_after_finish")

    counts = [data["response"]["usage"]["output_tokens"] for _, data in twice[-2:]]
    assert counts == [5, 10]
    assert late[-2][1]["response"]["usage"] is None
    assert late[-1][1]["response"]["usage"]["output_tokens"] == 10


async def test_usage_can_be_missing_or_absurd(provider: DemoProvider) -> None:
    none = await stream(provider, "m:fault=no_usage")
    wrong = await stream(provider, "m:fault=bad_usage(-600)")
    _, one = await ask(provider, "m:fault=bad_usage(-1,output_tokens)")
    _, more = await ask(provider, "m:tokens=3,fault=inflated_usage(100)")

    assert none[-1][1]["response"]["usage"] is None
    assert wrong[-1][1]["response"]["usage"]["total_tokens"] == -600
    assert (one["usage"]["input_tokens"], one["usage"]["output_tokens"]) == (4, -1)
    assert (more["usage"]["output_tokens"], more["usage"]["total_tokens"]) == (300, 304)


@pytest.mark.parametrize(
    ("fault", "tail"),
    [
        ("cut_in_char", b'"delta":" caf\xc3'),
        ("cut_in_usage", b'"cache_write_tokens":0},'),
    ],
)
async def test_streams_are_cut_inside(provider: DemoProvider, fault: str, tail: bytes) -> None:
    async with connect(provider) as peer:
        peer.writer.write(SPOKEN["responses stream"].render(f"m:fault={fault}"))
        await peer.read_until(b"\r\n\r\n")
        payload, was_clean = dechunk(await peer.read_all())

    assert not was_clean
    assert payload.endswith(tail)


async def test_huge_and_wrong_events_are_part_of_a_whole_stream(provider: DemoProvider) -> None:
    events = await stream(provider, "m:tokens=3,fault=huge_line(200000)")
    wrong = await stream(provider, "m:tokens=3,fault=wrong_shape")

    deltas = [data["delta"] for name, data in events if name == "response.output_text.delta"]
    assert len(deltas) == 1
    assert len(deltas[0]) > 199_000
    assert events[-1][0] == "response.completed"
    assert [data for _, data in wrong[:3]] == [{"hello": "world"}, [], 42]
