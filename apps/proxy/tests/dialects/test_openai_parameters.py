"""Every documented parameter of OpenAI's two writing endpoints, and what becomes of it.

What the price of a model has to name (`service_tier`, `web_search_options`, `audio`) passes here
and is judged by admission (`test_admission.py`).
"""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types import completion_create_params as completion_params
from openai.types.chat import completion_create_params as chat_params

from apps.core.errors import GatewayError
from apps.proxy.dialects.openai_request import parse_request
from apps.proxy.dialects.openai_upstream import upstream_body
from apps.proxy.dialects.parsed_request import Endpoint
from tests.support.cases import for_all

MESSAGES: list[dict[str, Any]] = [{"role": "user", "content": "Hi"}]
REQUIRED: dict[Endpoint, dict[str, Any]] = {
    "chat/completions": {"model": "gpt-4o", "messages": MESSAGES},
    "completions": {"model": "davinci", "prompt": "Once"},
}
SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
FUNCTION = {"name": "f", "description": "Does it.", "parameters": SCHEMA}

# These arrive at the provider as they are.
CHAT_PASSED: list[tuple[str, Any]] = [
    ("audio", {"voice": "alloy", "format": "wav"}),
    ("frequency_penalty", -2.0),
    ("function_call", {"name": "f"}),
    ("functions", [FUNCTION]),
    ("logit_bias", {"50256": -100}),
    ("logprobs", True),
    ("max_completion_tokens", 1),
    ("max_tokens", 1),
    ("messages", [{"role": "developer", "content": "Be brief.", "name": "boss"}, *MESSAGES]),
    (
        "messages",
        [
            *MESSAGES,
            {
                "role": "assistant",
                "content": None,
                "refusal": None,
                "tool_calls": [
                    {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
                ],
            },
            {"role": "tool", "tool_call_id": "1", "content": [{"type": "text", "text": "a"}]},
        ],
    ),
    (
        "messages",
        [
            {
                "role": "user",
                "content": [
                    {"type": "text", "text": "a", "prompt_cache_breakpoint": {}},
                    {"type": "image_url", "image_url": {"url": "https://a/b.png", "detail": "low"}},
                    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                    {"type": "file", "file": {"file_id": "file-1"}},
                ],
            }
        ],
    ),
    ("metadata", {"model": "other", "n": "5"}),
    ("modalities", ["text"]),
    ("modalities", ["text", "audio"]),
    ("n", 128),
    ("parallel_tool_calls", False),
    ("prediction", {"type": "content", "content": "a"}),
    ("presence_penalty", 2.0),
    ("prompt_cache_key", "a"),
    ("prompt_cache_options", {"mode": "explicit", "ttl": "30m"}),
    ("prompt_cache_retention", "24h"),
    ("reasoning_effort", "high"),
    (
        "response_format",
        {"type": "json_schema", "json_schema": {"name": "a", "strict": True, "schema": SCHEMA}},
    ),
    ("response_format", {"type": "json_object"}),
    ("safety_identifier", "a"),
    ("seed", -1),
    ("service_tier", "flex"),
    ("stop", ["\n", "END"]),
    ("store", True),
    ("temperature", 0),
    ("tool_choice", {"type": "function", "function": {"name": "f"}}),
    (
        "tool_choice",
        {
            "type": "allowed_tools",
            "allowed_tools": {"mode": "auto", "tools": [{"type": "function"}]},
        },
    ),
    ("tools", [{"type": "function", "function": {**FUNCTION, "strict": True}}]),
    ("tools", [{"type": "custom", "custom": {"name": "f", "format": {"type": "text"}}}]),
    ("top_logprobs", 20),
    ("top_p", 0.1),
    ("user", "a"),
    ("verbosity", "low"),
    ("web_search_options", {"search_context_size": "high"}),
]
COMPLETION_PASSED: list[tuple[str, Any]] = [
    ("best_of", 20),
    ("echo", True),
    ("frequency_penalty", -2.0),
    ("logit_bias", {"50256": -100}),
    ("logprobs", 5),
    ("max_tokens", 1),
    ("n", 128),
    ("presence_penalty", 2.0),
    ("prompt", ["a", "b"]),
    ("prompt", [[1, 2], [3]]),
    ("seed", 1),
    ("stop", "\n"),
    ("suffix", "end"),
    ("temperature", 2),
    ("top_p", 1),
    ("user", "a"),
]
PASSED: list[tuple[Endpoint, str, Any]] = [
    *(("chat/completions", name, value) for name, value in CHAT_PASSED),
    *(("completions", name, value) for name, value in COMPLETION_PASSED),
]
# These are changed on their way, and these refused: by the row and with the code that stand there.
CHANGED = frozenset({"model", "stream", "stream_options"})
CHAT_REFUSED: list[tuple[str, Any, str, str]] = [
    ("audio", "alloy", "E13", "invalid_type"),
    ("max_completion_tokens", 0, "E13", "integer_below_min_value"),
    ("max_tokens", 2**31, "E13", "integer_above_max_value"),
    ("messages", [], "E13", "invalid_value"),
    ("modalities", ["text", "image"], "E14", "unsupported_parameter"),
    ("model", None, "E13", "missing_required_parameter"),
    ("moderation", {"model": "omni-moderation-latest"}, "E14", "unsupported_parameter"),
    ("n", 129, "E13", "integer_above_max_value"),
    ("prediction", {"type": "content", "content": 5}, "E14", "unsupported_parameter"),
    ("service_tier", 5, "E14", "unsupported_parameter"),
    ("stream", "true", "E13", "invalid_type"),
    ("tools", {}, "E13", "invalid_type"),
    ("web_search_options", True, "E14", "unsupported_parameter"),
]
COMPLETION_REFUSED: list[tuple[str, Any, str, str]] = [
    ("best_of", 129, "E13", "integer_above_max_value"),
    ("max_tokens", 0, "E13", "integer_below_min_value"),
    ("model", "", "E13", "invalid_value"),
    ("n", 0, "E13", "integer_below_min_value"),
    ("prompt", None, "E13", "missing_required_parameter"),
    ("stream", 1, "E13", "invalid_type"),
    # What only chats have.
    ("audio", {}, "E14", "unsupported_parameter"),
    ("prediction", {}, "E14", "unsupported_parameter"),
    ("web_search_options", {}, "E14", "unsupported_parameter"),
]
REFUSED: list[tuple[Endpoint, str, Any, str, str]] = [
    *(("chat/completions", *row) for row in CHAT_REFUSED),
    *(("completions", *row) for row in COMPLETION_REFUSED),
]


def send(endpoint: Endpoint, change: dict[str, Any]) -> dict[str, Any]:
    """Return what arrives upstream of a request."""
    request = parse_request(endpoint, REQUIRED[endpoint] | change)
    body = upstream_body(
        request.body,
        upstream_model="up-1",
        stream=request.is_stream,
        output_cap=None,
        cap_parameter="max_tokens",
    )
    arrived: dict[str, Any] = json.loads(body)
    return arrived


@for_all(("endpoint", "name", "value"), PASSED)
def test_a_documented_parameter_arrives_as_it_is(
    endpoint: Endpoint, name: str, value: object
) -> None:
    change = {name: value}
    usual = REQUIRED[endpoint] | {"model": "up-1"}

    assert send(endpoint, change) == usual | change
    assert send(endpoint, change | {"stream": True}) == usual | change | {
        "stream": True,
        "stream_options": {"include_usage": True},
    }


@pytest.mark.parametrize("endpoint", ["chat/completions", "completions"])
def test_the_model_and_the_options_of_a_stream_are_changed(endpoint: Endpoint) -> None:
    usual = REQUIRED[endpoint] | {"model": "up-1"}
    options = {"include_usage": False, "include_obfuscation": False}

    assert send(endpoint, {"stream": False, "stream_options": options}) == usual | {"stream": False}
    assert send(endpoint, {"stream": True, "stream_options": options}) == usual | {
        "stream": True,
        "stream_options": {"include_usage": True, "include_obfuscation": False},
    }


@for_all(("endpoint", "name", "value", "row", "code"), REFUSED)
def test_a_documented_parameter_is_refused_by_its_row(
    endpoint: Endpoint, name: str, value: object, row: str, code: str
) -> None:
    with pytest.raises(GatewayError) as caught:
        send(endpoint, {name: value})

    assert (caught.value.row, caught.value.code, caught.value.param) == (row, code, name)


def test_no_documented_parameter_is_missing_from_the_tables() -> None:
    chat = chat_params.CompletionCreateParamsStreaming.__annotations__.keys()
    completion = completion_params.CompletionCreateParamsStreaming.__annotations__.keys()
    passed_chat = {name for name, _ in CHAT_PASSED}
    passed_completion = {name for name, _ in COMPLETION_PASSED}

    assert passed_chat | CHANGED | {"moderation"} == set(chat)
    assert passed_completion | CHANGED == set(completion)
