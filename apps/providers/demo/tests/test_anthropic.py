"""Anthropic's Messages API as the demo provider speaks it.

Over 400 lines because all of a dialect is tried with one provider.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio

from apps.providers.demo import DemoProvider
from apps.providers.demo.tests.peer import MESSAGES, connect, dechunk, ended
from apps.providers.demo.tests.spoken import SPOKEN, VERSION, call, read_named

TOOL = {
    "name": "book",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string"}, "nights": {"type": "integer", "minimum": 2}},
        "required": ["city", "nights"],
    },
}
CACHES = "prompt=20,cached=5,cache_write_5m=3,cache_write_1h=2"


async def ask(
    provider: DemoProvider, model: str, **fields: Any
) -> tuple[int, dict[str, str], dict[str, Any]]:
    """Return status, headers and JSON of a call that is not streamed."""
    body = {"model": model, "messages": MESSAGES, "max_tokens": 50, **fields}
    status, headers, content = await call(provider, "/v1/messages", body, dict(VERSION))
    return status, headers, json.loads(content)


async def stream(provider: DemoProvider, model: str, **fields: Any) -> list[tuple[str, Any]]:
    """Return the events of a streamed call."""
    body = {"model": model, "messages": MESSAGES, "max_tokens": 50, "stream": True, **fields}
    status, headers, content = await call(provider, "/v1/messages", body, dict(VERSION))
    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    return read_named(content)


async def test_a_message_is_answered_whole(provider: DemoProvider) -> None:
    status, headers, answer = await ask(provider, f"m:tokens=3,{CACHES}")

    response_id = provider.calls[0]["response_id"]
    assert status == 200
    assert headers["request-id"] == f"req_{response_id}"
    assert answer == {
        "id": f"msg_{response_id}",
        "type": "message",
        "role": "assistant",
        "model": f"m:tokens=3,{CACHES}",
        "content": [{"type": "text", "text": "This answer costs"}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 10,
            "cache_creation_input_tokens": 5,
            "cache_read_input_tokens": 5,
            "cache_creation": {"ephemeral_5m_input_tokens": 3, "ephemeral_1h_input_tokens": 2},
            "output_tokens": 3,
            "service_tier": "standard",
        },
    }
    assert (provider.calls[0]["input_tokens"], provider.calls[0]["output_tokens"]) == (20, 3)


async def test_a_stream_has_every_event_with_its_name(provider: DemoProvider) -> None:
    events = await stream(provider, f"m:tokens=2,{CACHES}")

    assert [name for name, _ in events] == [
        "message_start",
        "content_block_start",
        "ping",
        "content_block_delta",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert [data["type"] for _, data in events] == [name for name, _ in events]
    message = events[0][1]["message"]
    assert (message["content"], message["stop_reason"]) == ([], None)
    assert message["usage"]["input_tokens"] == 10
    assert message["usage"]["output_tokens"] == 1
    assert message["usage"]["cache_creation"] == {
        "ephemeral_5m_input_tokens": 3,
        "ephemeral_1h_input_tokens": 2,
    }
    assert events[1][1]["content_block"] == {"type": "text", "text": ""}
    deltas = [data["delta"] for _, data in events[3:5]]
    assert deltas == [
        {"type": "text_delta", "text": "This"},
        {"type": "text_delta", "text": " answer"},
    ]
    assert events[6][1]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert events[6][1]["usage"] == {
        "input_tokens": 10,
        "cache_creation_input_tokens": 5,
        "cache_read_input_tokens": 5,
        "output_tokens": 2,
    }
    record = await ended(provider)
    assert (record["events_sent"], record["output_tokens"], record["usage_sent"]) == (8, 2, True)


async def test_thinking_comes_before_the_text_and_is_signed(provider: DemoProvider) -> None:
    _, _, answer = await ask(provider, "m:tokens=5,reasoning=2")
    events = await stream(provider, "m:tokens=5,reasoning=2")

    thought, text = answer["content"]
    assert (thought["type"], thought["thinking"]) == ("thinking", "This answer")
    assert len(thought["signature"]) == 128
    assert text == {"type": "text", "text": "This answer costs"}
    assert answer["usage"]["output_tokens"] == 5
    assert answer["usage"]["output_tokens_details"] == {"thinking_tokens": 2}
    deltas = [data for name, data in events if name == "content_block_delta"]
    assert [(delta["index"], delta["delta"]["type"]) for delta in deltas] == [
        (0, "thinking_delta"),
        (0, "thinking_delta"),
        (0, "signature_delta"),
        (1, "text_delta"),
        (1, "text_delta"),
        (1, "text_delta"),
    ]
    assert deltas[2]["delta"]["signature"] == thought["signature"]


async def test_thinking_that_is_disabled_is_counted_but_not_shown(provider: DemoProvider) -> None:
    _, _, answer = await ask(provider, "m:tokens=5,reasoning=2", thinking={"type": "disabled"})

    assert answer["content"] == [{"type": "text", "text": "This answer costs"}]
    assert answer["usage"]["output_tokens"] == 5


async def test_a_tool_is_called_and_what_it_says_is_told(provider: DemoProvider) -> None:
    _, _, first = await ask(provider, "m:tools=on", tools=[TOOL])
    events = await stream(provider, "m:tools=on", tools=[TOOL])
    result = {"type": "tool_result", "tool_use_id": "x", "content": "row 12"}
    messages = [
        *MESSAGES,
        {"role": "assistant", "content": first["content"]},
        {"role": "user", "content": [result]},
    ]
    _, _, second = await ask(provider, "m:tools=on", tools=[TOOL], messages=messages)

    (block,) = first["content"]
    assert (block["type"], block["name"]) == ("tool_use", "book")
    assert block["id"].startswith("toolu_")
    assert block["input"] == {"city": "demo", "nights": 2}
    assert first["stop_reason"] == "tool_use"
    assert events[1][1]["content_block"] == {**block, "input": {}}
    pieces = [data["delta"] for name, data in events if name == "content_block_delta"]
    assert {piece["type"] for piece in pieces} == {"input_json_delta"}
    assert len(pieces) == 7
    written = "".join(piece["partial_json"] for piece in pieces)
    assert json.loads(written) == {"city": "demo", "nights": 2}
    assert events[-2][1]["delta"]["stop_reason"] == "tool_use"
    assert events[-2][1]["usage"]["output_tokens"] == first["usage"]["output_tokens"] == 8
    assert second["content"] == [{"type": "text", "text": "The tool says: row 12"}]
    assert second["stop_reason"] == "end_turn"


@pytest.mark.parametrize(
    ("choice", "type_"),
    [
        ({"type": "any"}, "tool_use"),
        ({"type": "tool", "name": "book"}, "tool_use"),
        ({"type": "auto"}, "text"),
        ({"type": "none"}, "text"),
    ],
)
async def test_the_choice_of_a_tool_is_obeyed(
    provider: DemoProvider, choice: dict[str, str], type_: str
) -> None:
    _, _, answer = await ask(provider, "m", tools=[TOOL], tool_choice=choice)

    assert [block["type"] for block in answer["content"]] == [type_]


async def test_a_structured_answer_fits_its_schema(provider: DemoProvider) -> None:
    asked = {"format": {"type": "json_schema", "schema": TOOL["input_schema"]}}

    _, _, answer = await ask(provider, "m", output_config=asked)

    assert json.loads(answer["content"][0]["text"]) == {"city": "demo", "nights": 2}


async def test_output_is_never_longer_than_the_maximum(provider: DemoProvider) -> None:
    _, _, answer = await ask(provider, "m:tokens=50,reasoning=2", max_tokens=4)
    events = await stream(provider, "m:tokens=50,reasoning=2", max_tokens=4)
    _, _, cut = await ask(provider, "m:tools=on", tools=[TOOL], max_tokens=3)

    assert (answer["stop_reason"], answer["usage"]["output_tokens"]) == ("max_tokens", 4)
    assert events[-2][1]["delta"]["stop_reason"] == "max_tokens"
    assert (cut["stop_reason"], cut["content"][0]["input"]) == ("max_tokens", {})


async def test_system_images_and_tools_are_a_part_of_the_prompt(provider: DemoProvider) -> None:
    image = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}
    messages = [{"role": "user", "content": [{"type": "text", "text": "12345678"}, image]}]

    _, _, plain = await ask(provider, "m", system="1234", messages=messages)
    body = {"model": "m", "messages": messages, "system": [{"type": "text", "text": "1234"}]}
    status, _, counted = await call(provider, "/v1/messages/count_tokens", body, dict(VERSION))

    assert plain["usage"]["input_tokens"] == 1 + 2 + 85
    assert (status, json.loads(counted)) == (200, {"input_tokens": 88})


async def test_models_are_listed_where_the_version_tells_the_dialect(
    provider: DemoProvider,
) -> None:
    _, _, listed = await call(provider, "/v1/models", headers=dict(VERSION))
    _, _, found = await call(provider, "/v1/models/m:tokens=3", headers=dict(VERSION))
    _, _, others = await call(provider, "/v1/models")

    assert [entry["id"] for entry in json.loads(listed)["data"]] == ["demo-chat", "demo-embedding"]
    assert json.loads(listed)["has_more"] is False
    assert json.loads(found)["type"] == "model"
    assert json.loads(others)["object"] == "list"


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"max_tokens": None}, "max_tokens: Field required"),
        ({"max_tokens": 0}, "Invalid value for 'max_tokens'"),
        ({"messages": []}, "messages: at least one message is required"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role: Input should be"),
        ({"model": "m:speed=9"}, "The demo provider does not know this model name"),
        ({"tool_choice": {"type": "any"}}, "Invalid value for 'tool_choice'"),
    ],
)
async def test_what_anthropic_refuses_is_refused(
    provider: DemoProvider, fields: dict[str, Any], says: str
) -> None:
    status, _, answer = await ask(provider, **{"model": "m", **fields})

    assert status == 400
    assert answer["type"] == "error"
    assert answer["error"]["type"] == "invalid_request_error"
    assert answer["error"]["message"].startswith(says)
    record = await ended(provider)
    assert (record["status"], record["input_tokens"], record["output_tokens"]) == (400, 0, 0)


async def test_a_call_has_to_name_the_version(provider: DemoProvider) -> None:
    status, _, answer = await call(provider, "/v1/messages", {"model": "m", "messages": MESSAGES})

    assert status == 400
    assert json.loads(answer)["error"] == {
        "type": "invalid_request_error",
        "message": "anthropic-version: header is required",
    }


@pytest_asyncio.fixture
async def locked() -> AsyncIterator[DemoProvider]:
    demo = DemoProvider(api_key="sk-right")
    await demo.start()
    yield demo
    await demo.stop()


async def test_the_key_is_read_from_its_own_header_and_not_kept(locked: DemoProvider) -> None:
    body = {"model": "m", "messages": MESSAGES, "max_tokens": 5}

    answers = [
        await call(locked, "/v1/messages", body, {**dict(VERSION), **headers})
        for headers in ({"x-api-key": "sk-right"}, {"x-api-key": "sk-wrong"}, {})
    ]

    assert [status for status, _, _ in answers] == [200, 401, 401]
    assert json.loads(answers[1][2])["error"] == {
        "type": "authentication_error",
        "message": "invalid x-api-key",
    }
    assert "x-api-key" not in locked.calls[0]["request_headers"]
    assert locked.calls[0]["authorization_sha256"] == hashlib.sha256(b"sk-right").hexdigest()


@pytest.mark.parametrize(
    ("fault", "status", "type_"),
    [
        ("status(400)", 400, "invalid_request_error"),
        ("status(401)", 401, "authentication_error"),
        ("status(402)", 402, "billing_error"),
        ("status(403)", 403, "permission_error"),
        ("status(404)", 404, "not_found_error"),
        ("status(413)", 413, "request_too_large"),
        ("status(429)", 429, "rate_limit_error"),
        ("status(500)", 500, "api_error"),
        ("status(503)", 503, "api_error"),
        ("status(504)", 504, "timeout_error"),
        ("status(529)", 529, "overloaded_error"),
    ],
)
async def test_a_status_comes_in_anthropics_shape(
    provider: DemoProvider, fault: str, status: int, type_: str
) -> None:
    got, headers, answer = await ask(provider, f"m:fault={fault}", stream=True)

    assert got == status
    assert (answer["type"], answer["error"]["type"]) == ("error", type_)
    assert answer["request_id"] == headers["request-id"]
    assert headers.get("retry-after") == ("1" if status == 429 else None)
    assert (await ended(provider))["output_tokens"] == 0


async def test_a_prompt_can_be_too_long(provider: DemoProvider) -> None:
    _, _, answer = await ask(provider, "m:fault=status(400,context_length_exceeded)")

    assert answer["error"] == {
        "type": "invalid_request_error",
        "message": "prompt is too long: 9001 tokens > 8192 maximum",
    }


@pytest.mark.parametrize(("fault", "before"), [("err_event_first", 0), ("err_event_mid(4)", 4)])
async def test_an_error_can_stand_in_a_stream(
    provider: DemoProvider, fault: str, before: int
) -> None:
    events = await stream(provider, f"m:fault={fault}")

    assert len(events) == before + 1
    name, data = events[-1]
    assert (name, data["type"], data["error"]["type"]) == ("error", "error", "overloaded_error")


@pytest.mark.parametrize(
    ("fault", "names"),
    [
        ("no_done", ["content_block_stop", "message_delta"]),
        ("no_finish(4)", ["ping", "content_block_delta"]),
        ("no_finish(99)", ["content_block_delta", "content_block_stop"]),
        ("usage_twice", ["message_delta", "message_delta", "message_stop"]),
        ("usage_after_finish", ["message_delta", "message_delta", "message_stop"]),
        ("usage_after_finish(done)", ["message_delta", "message_stop", "message_delta"]),
        ("late_after_done(1)", ["message_stop", "content_block_delta"]),
        ("end_twice", ["message_delta", "message_stop", "message_stop"]),
        (
            "unknown_event(99)",
            ["content_block_stop", "demo.unknown", "message_delta", "message_stop"],
        ),
    ],
)
async def test_the_end_of_a_stream_can_be_odd(
    provider: DemoProvider, fault: str, names: list[str]
) -> None:
    events = await stream(provider, f"m:tokens=4,fault={fault}")

    assert [name for name, _ in events[-len(names) :]] == names


async def test_usage_can_come_twice_or_late(provider: DemoProvider) -> None:
    twice = await stream(provider, "m:tokens=10,fault=usage_twice")
    late = await stream(provider, "m:tokens=10,fault=usage_after_finish")

    deltas = [data for name, data in twice if name == "message_delta"]
    assert [delta["usage"]["output_tokens"] for delta in deltas] == [5, 10]
    assert [delta["delta"]["stop_reason"] for delta in deltas] == [None, "end_turn"]
    deltas = [data for name, data in late if name == "message_delta"]
    assert [delta.get("usage", {}).get("output_tokens") for delta in deltas] == [None, 10]
    assert [delta["delta"]["stop_reason"] for delta in deltas] == ["end_turn", None]


async def test_usage_can_be_missing_or_absurd(provider: DemoProvider) -> None:
    none = await stream(provider, "m:fault=no_usage")
    wrong = await stream(provider, "m:fault=bad_usage(-600)")
    one = await stream(provider, "m:fault=bad_usage(-1,output_tokens)")
    _, _, more = await ask(provider, "m:tokens=3,fault=inflated_usage(100)")
    status, _, unknown = await ask(provider, "m:fault=bad_usage(1,completion_tokens)")

    assert "usage" not in none[0][1]["message"]
    assert "usage" not in none[-2][1]
    assert wrong[0][1]["message"]["usage"]["input_tokens"] == -600
    assert wrong[-2][1]["usage"]["output_tokens"] == -600
    assert one[-2][1]["usage"]["input_tokens"] == 4
    assert one[-2][1]["usage"]["output_tokens"] == -1
    assert more["usage"]["output_tokens"] == 300
    assert (status, "usage has no count" in unknown["error"]["message"]) == (400, True)


@pytest.mark.parametrize(
    ("fault", "tail"),
    [
        ("cut_in_char", b'"text":" caf\xc3'),
        ("cut_in_usage", b'"cache_read_input_tokens":0,'),
    ],
)
async def test_streams_are_cut_inside(provider: DemoProvider, fault: str, tail: bytes) -> None:
    async with connect(provider) as peer:
        peer.writer.write(SPOKEN["messages stream"].render(f"m:fault={fault}"))
        await peer.read_until(b"\r\n\r\n")
        payload, was_clean = dechunk(await peer.read_all())

    assert not was_clean
    assert payload.endswith(tail)


async def test_huge_events_are_part_of_a_whole_stream(provider: DemoProvider) -> None:
    events = await stream(provider, "m:tokens=3,fault=huge_line(200000)")
    _, _, answer = await ask(provider, "m:tokens=3,fault=big_body(200000)")
    wrong = await stream(provider, "m:tokens=3,fault=wrong_shape")

    assert [name for name, _ in events][2:] == [
        "ping",
        "content_block_delta",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    assert len(events[3][1]["delta"]["text"]) > 199_000
    assert answer["content"][0]["text"].isspace()
    assert [data for _, data in wrong[:3]] == [{"hello": "world"}, [], 42]
