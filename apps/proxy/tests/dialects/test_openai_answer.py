import json
from typing import Any

import pytest

from apps.core.errors import GatewayError
from apps.core.usage import Usage
from apps.proxy.dialects.openai_answer import answer_to_sse, read_answer, read_chat_answer
from apps.proxy.dialects.openai_stream import OpenAIStreamMeter
from apps.proxy.dialects.parsed_request import Endpoint
from tests.support.cases import for_all

USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
CHAT: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "gpt-4o-2026",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello world!"},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": USAGE,
}
COMPLETION: dict[str, Any] = {
    "id": "cmpl-1",
    "object": "text_completion",
    "created": 1,
    "model": "davinci",
    "choices": [{"index": 0, "text": "Once upon", "logprobs": None, "finish_reason": "length"}],
    "usage": USAGE,
}
EMBEDDINGS: dict[str, Any] = {
    "object": "list",
    "model": "ada",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.5, -1.0]}],
    "usage": {"prompt_tokens": 8, "total_tokens": 8},
}


def read(document: dict[str, Any], endpoint: Endpoint = "chat/completions") -> Any:
    return read_answer(endpoint, json.dumps(document).encode())


def said(**message: Any) -> dict[str, Any]:
    return CHAT | {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}


def test_a_chat_answer_is_read() -> None:
    answer = read(CHAT)

    assert answer.usage == Usage(input=10, output=5, source="reported")
    assert answer.finish_reason == "stop"
    assert answer.has_content
    assert answer.estimated_output_tokens == 3
    assert answer.document == CHAT


def test_a_completion_is_read() -> None:
    answer = read(COMPLETION, "completions")

    assert answer.usage == Usage(input=10, output=5, source="reported")
    assert (answer.finish_reason, answer.has_content) == ("length", True)
    assert answer.estimated_output_tokens == 3


def test_embeddings_are_read() -> None:
    answer = read(EMBEDDINGS, "embeddings")

    assert answer.usage == Usage(input=8, source="reported")
    assert answer.final_usage(estimated_input_tokens=99) == Usage(input=8, source="reported")
    assert (answer.finish_reason, answer.has_content) == (None, True)


def test_embeddings_without_usage_are_estimated_by_their_input() -> None:
    answer = read(EMBEDDINGS | {"usage": None}, "embeddings")

    assert answer.final_usage(estimated_input_tokens=99) == Usage(input=99, source="estimated")


RANKING: dict[str, Any] = {"results": [{"index": 1, "relevance_score": 0.5}]}
MODERATION: dict[str, Any] = {"id": "modr-1", "model": "m", "results": [{"flagged": False}]}


@pytest.mark.parametrize(
    ("document", "usage"),
    [
        (RANKING | {"usage": {"total_tokens": 12}}, Usage(input=12, source="reported")),
        (
            {"data": RANKING["results"], "usage": {"total_tokens": 12}},
            Usage(input=12, source="reported"),
        ),
        (
            RANKING | {"usage": {"prompt_tokens": 12, "completion_tokens": 0, "total_tokens": 12}},
            Usage(input=12, source="reported"),
        ),
        (
            RANKING | {"meta": {"tokens": {"input_tokens": 9, "output_tokens": 0}}},
            Usage(input=9, source="reported"),
        ),
        (
            RANKING | {"meta": {"billed_units": {"search_units": 1}}},
            Usage(input=99, source="estimated", tool_call=1),
        ),
        (
            RANKING | {"meta": {"billed_units": {"search_units": -1}}},
            Usage(input=99, source="estimated", is_suspect=True),
        ),
        (
            RANKING | {"meta": {"api_version": {"version": "2"}}},
            Usage(input=99, source="estimated"),
        ),
        (RANKING, Usage(input=99, source="estimated")),
        (
            RANKING | {"usage": {"total_tokens": -1}},
            Usage(input=99, source="estimated", is_suspect=True),
        ),
        (
            RANKING | {"usage": {"prompt_tokens": 5, "completion_tokens": 1}},
            Usage(input=5, output=1, source="reported", is_suspect=True),
        ),
    ],
)
def test_a_ranking_costs_what_was_read(document: dict[str, Any], usage: Usage) -> None:
    assert read(document, "rerank").final_usage(estimated_input_tokens=99) == usage


def test_units_alone_are_a_whole_usage_where_nothing_is_to_be_estimated() -> None:
    billed = read(RANKING | {"meta": {"billed_units": {"search_units": 3}}}, "rerank")
    absurd = read(RANKING | {"meta": {"billed_units": {"search_units": -1}}}, "rerank")

    assert billed.final_usage(estimated_input_tokens=0) == Usage(source="reported", tool_call=3)
    assert absurd.final_usage(estimated_input_tokens=0) == Usage(
        source="estimated", is_suspect=True
    )


def test_a_moderation_without_usage_is_estimated_by_its_input() -> None:
    answer = read(MODERATION, "moderations")

    assert answer.final_usage(estimated_input_tokens=99) == Usage(input=99, source="estimated")


@pytest.mark.parametrize(
    ("message", "has_content", "tokens"),
    [
        ({"content": "four"}, True, 1),
        ({"content": ""}, False, 0),
        ({"content": None}, False, 0),
        ({"content": [{"type": "text", "text": "four"}]}, True, 1),
        ({"content": None, "refusal": "No, never"}, True, 3),
        ({"content": "four", "reasoning_content": "four", "reasoning": "four"}, True, 2),
        ({"tool_calls": [{"function": {"name": "f", "arguments": '{"a":1}'}}]}, True, 2),
        ({"tool_calls": [{"type": "custom"}]}, True, 1),
        ({"tool_calls": []}, False, 0),
        ({"function_call": {"name": "four", "arguments": "four"}}, True, 2),
        ({"content": 5, "tool_calls": "x"}, True, 1),
    ],
)
def test_whatever_a_message_says_is_content(
    message: dict[str, Any], has_content: bool, tokens: int
) -> None:
    answer = read(said(**message))

    assert (answer.has_content, answer.estimated_output_tokens) == (has_content, tokens)


@pytest.mark.parametrize(
    ("usage", "message", "expected"),
    [
        (USAGE, {"content": "Hi"}, Usage(input=10, output=5, source="reported")),
        (USAGE, {"content": ""}, Usage(input=10, output=5, source="reported")),
        ({"prompt_tokens": 10, "completion_tokens": 0}, {"content": ""}, Usage(input=10)),
        (None, {"content": ""}, Usage()),
        (None, {"content": "four"}, Usage(input=99, output=1, source="estimated")),
        (
            {"prompt_tokens": None, "completion_tokens": -1},
            {"content": "four"},
            Usage(input=99, output=1, source="estimated", is_suspect=True),
        ),
        (
            {"prompt_tokens": 0, "completion_tokens": 0},
            {"content": "four"},
            Usage(input=99, output=1, source="estimated", is_suspect=True),
        ),
    ],
)
def test_what_is_charged_follows_the_rules_of_who_pays(
    usage: object, message: dict[str, Any], expected: Usage
) -> None:
    answer = read(said(**message) | {"usage": usage})

    assert answer.final_usage(estimated_input_tokens=99) == expected


@for_all(
    ("endpoint", "body"),
    [
        ("chat/completions", b""),
        ("chat/completions", b"<html>"),
        ("chat/completions", b"[]"),
        ("chat/completions", b"{}"),
        ("chat/completions", b'{"choices":[]}'),
        ("chat/completions", b'{"choices":{}}'),
        ("chat/completions", b'{"choices":[5]}'),
        ("chat/completions", b'{"choices":[{}]}'),
        ("chat/completions", b'{"choices":[{"message":null}]}'),
        ("chat/completions", b'{"choices":[{"text":"a"}]}'),
        ("chat/completions", b'{"error":{"message":"no"},"choices":[{"message":{}}]}'),
        ("chat/completions", b'{"choices":[{"message":{"content":"\xff"}}]}'),
        ("completions", b'{"choices":[{"message":{}}]}'),
        ("completions", b'{"choices":[{"text":5}]}'),
        ("embeddings", b'{"data":[]}'),
        ("embeddings", b'{"data":[{"embedding":5}]}'),
        ("embeddings", b'{"data":[[0.5]]}'),
        ("embeddings", b'{"choices":[{"text":"a"}]}'),
        ("embeddings", b'{"results":[{"embedding":[0.5]}]}'),
        ("moderations", b'{"results":[]}'),
        ("moderations", b'{"results":[{"flagged":"no"}]}'),
        ("rerank", b'{"results":[{"relevance_score":1}]}'),
        ("rerank", b'{"results":[{"index":true}]}'),
        ("rerank", b'{"results":["a"]}'),
    ],
)
def test_what_is_no_such_answer_is_an_invalid_response(endpoint: Endpoint, body: bytes) -> None:
    with pytest.raises(GatewayError) as caught:
        read_answer(endpoint, body)

    assert (caught.value.row, caught.value.status) == ("E49", 502)


def chunks(events: list[bytes]) -> list[dict[str, Any]]:
    assert events[-1] == b"data: [DONE]\n\n"
    return [json.loads(event.removeprefix(b"data: ")) for event in events[:-1]]


def test_an_answer_becomes_the_stream_that_was_asked_for() -> None:
    common = {
        "id": "chatcmpl-1",
        "created": 1,
        "model": "gpt-4o-2026",
        "object": "chat.completion.chunk",
    }
    content = {
        "index": 0,
        "delta": {"role": "assistant", "content": "Hello world!"},
        "logprobs": None,
        "finish_reason": None,
    }

    assert chunks(answer_to_sse("chat/completions", CHAT, include_usage=False)) == [
        common | {"choices": [content]},
        common | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
    ]
    assert chunks(answer_to_sse("chat/completions", CHAT, include_usage=True))[2] == common | {
        "choices": [],
        "usage": USAGE,
    }


def test_tool_calls_get_their_positions_in_a_stream() -> None:
    document = said(role="assistant", content=None, tool_calls=[{"id": "a"}, {"id": "b"}])

    delta = chunks(answer_to_sse("chat/completions", document, include_usage=False))[0]["choices"][
        0
    ]["delta"]

    assert delta["tool_calls"] == [{"index": 0, "id": "a"}, {"index": 1, "id": "b"}]


def test_a_completion_becomes_a_stream_of_text() -> None:
    texts = [
        chunk["choices"][0]["text"]
        for chunk in chunks(answer_to_sse("completions", COMPLETION, include_usage=False))
    ]

    assert texts == ["Once upon", ""]


@pytest.mark.parametrize("name", ["completion", "chat.completion", None])
def test_a_completion_is_one_whatever_its_provider_calls_it(name: str | None) -> None:
    events = chunks(
        answer_to_sse("completions", COMPLETION | {"object": name}, include_usage=False)
    )

    assert [event["object"] for event in events] == ["text_completion"] * 2
    assert [event["choices"][0]["text"] for event in events] == ["Once upon", ""]


@pytest.mark.parametrize("name", ["text_completion", "completion", None])
def test_a_chat_is_one_whatever_its_provider_calls_it(name: str | None) -> None:
    events = chunks(answer_to_sse("chat/completions", CHAT | {"object": name}, include_usage=False))

    assert [event["object"] for event in events] == ["chat.completion.chunk"] * 2
    assert events[0]["choices"][0]["delta"]["content"] == "Hello world!"


def test_several_choices_all_appear_in_the_stream() -> None:
    second = CHAT["choices"][0] | {"index": 1}
    document = CHAT | {"choices": [CHAT["choices"][0], second]}

    indices = [
        chunk["choices"][0]["index"]
        for chunk in chunks(answer_to_sse("chat/completions", document, include_usage=False))
    ]

    assert indices == [0, 1, 0, 1]


@pytest.mark.parametrize("include_usage", [True, False])
def test_the_stream_of_an_answer_meters_like_the_answer(include_usage: bool) -> None:
    meter = OpenAIStreamMeter(strip_usage=False)
    for event in answer_to_sse("chat/completions", CHAT, include_usage=include_usage):
        meter.observe(event)

    answer = read_chat_answer(json.dumps(CHAT).encode())
    assert meter.done_seen
    assert meter.finish_reason == answer.finish_reason
    assert meter.estimated_output_tokens() == answer.estimated_output_tokens
    assert meter.usage == (answer.usage if include_usage else None)


@pytest.mark.parametrize(
    ("audio", "output", "spoken"),
    [
        ({"id": "audio_1", "data": "A" * 64_000, "transcript": "Hi there!"}, 3, 60),
        # Nothing is known of its sound, and there was one.
        ({"id": "audio_1"}, 1, 0),
        ({"data": 7, "transcript": []}, 1, 0),
    ],
)
def test_a_spoken_answer_without_usage_is_estimated(
    audio: dict[str, Any], output: int, spoken: int
) -> None:
    message = {"role": "assistant", "content": None, "audio": audio}
    body = {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}

    found = read_chat_answer(json.dumps(body).encode())

    # 48,000 bytes in a format that is not known are three seconds of 128 kbit/s.
    assert found.final_usage(estimated_input_tokens=7) == Usage(
        input=7, output=output, audio_out=spoken, source="estimated"
    )
