from __future__ import annotations

from typing import Any

import pytest

from apps.proxy.dialects.openai_request import parse_request
from apps.proxy.dialects.parsed_request import Endpoint
from apps.proxy.families import find_family
from apps.proxy.prompts import Prompt, read_prompt, render_functions

IMAGE = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
SEARCH = {
    "name": "search",
    "description": "Find pages",
    "parameters": {
        "type": "object",
        "required": ["query"],
        "properties": {
            "query": {"type": "string", "description": "Words"},
            "kind": {"type": "string", "enum": ["page", "image"]},
            "limit": {"type": "integer"},
            "dates": {"type": "array", "items": {"type": "object", "properties": {"from": {}}}},
            "site": {"anyOf": [{"type": "string"}, {"type": "null"}]},
            "flags": {"type": ["boolean", "null"]},
        },
    },
}
RENDERED = """namespace functions {

// Find pages
type search = (_: {
// Words
query: string,
kind?: "page" | "image",
limit?: number,
dates?: {
  from?: any,
}[],
site?: string | null,
flags?: boolean | null,
}) => any;

} // namespace functions"""


def read(endpoint: Endpoint, model: str = "gpt-4o", **body: Any) -> Prompt:
    request = parse_request(endpoint, {"model": model, **body})
    return read_prompt(request, find_family(model), model, image_tokens_max=1000)


def test_a_chat_is_its_texts_with_three_tokens_a_message_and_three_for_the_answer() -> None:
    prompt = read(
        "chat/completions",
        messages=[
            {"role": "system", "content": "Be brief.", "name": "rules"},
            {"role": "user", "content": [{"type": "text", "text": "Hi"}, IMAGE, IMAGE]},
            {"role": "assistant", "content": None},
        ],
    )

    assert prompt == Prompt(["system", "Be brief.", "rules", "user", "Hi", "assistant"], 13, 2000)


def test_what_was_called_before_is_read_again() -> None:
    function = {"name": "add", "arguments": '{"a": 1}'}
    prompt = read(
        "chat/completions",
        messages=[
            {"role": "assistant", "tool_calls": [{"type": "function", "function": function}]},
            {"role": "tool", "tool_call_id": "a", "content": "2"},
            {"role": "assistant", "content": "", "function_call": function},
            {"role": "function", "name": "add", "content": "2"},
        ],
    )

    called = ["add", '{"a": 1}']
    assert prompt.texts == [
        "assistant", *called, "tool", "2", "assistant", *called, "function", "2", "add",
    ]  # fmt: skip
    assert prompt.tokens == 3 + 4 * 3 + 2 * 3 + 1 - 2


def test_openai_reads_tools_as_types() -> None:
    messages = [{"role": "user", "content": "Hi"}]
    tools = [{"type": "function", "function": SEARCH}]

    assert render_functions([SEARCH]) == RENDERED
    assert read("chat/completions", messages=messages, tools=tools).texts[0] == RENDERED
    assert read("chat/completions", messages=messages, functions=[SEARCH]).tokens == 6 + 9
    chosen = {"type": "function", "function": {"name": "search"}}
    prompt = read("chat/completions", messages=messages, tools=tools, tool_choice=chosen)
    assert (prompt.texts[1], prompt.tokens) == ("search", 6 + 9 + 4)


def test_others_read_tools_as_they_were_sent() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    prompt = read(
        "chat/completions", "qwen-max", messages=[{"role": "user", "content": "Hi"}], tools=tools
    )

    assert prompt.texts == ['[{"type": "function", "function": {"name": "f"}}]', "user", "Hi"]
    assert prompt.tokens == 6


def test_a_schema_of_the_answer_is_read() -> None:
    prompt = read(
        "chat/completions",
        messages=[{"role": "user", "content": "Hi"}],
        response_format={"type": "json_schema", "json_schema": {"schema": {"type": "object"}}},
    )

    assert prompt.texts == ['{"type": "object"}', "user", "Hi"]


@pytest.mark.parametrize(
    ("endpoint", "body", "prompt"),
    [
        ("completions", {"prompt": "Once"}, Prompt(["Once"])),
        ("completions", {"prompt": ["Once", "upon"]}, Prompt(["Once", "upon"])),
        ("completions", {"prompt": [1, 2, 3]}, Prompt([], 3)),
        ("embeddings", {"input": [[1, 2], [3]]}, Prompt([], 3)),
        ("embeddings", {"input": ["a", "b"]}, Prompt(["a", "b"])),
        ("moderations", {"input": [{"type": "text", "text": "a"}, IMAGE]}, Prompt(["a"], 0, 1000)),
        (
            "rerank",
            {"query": "q", "documents": ["a", {"text": "b", "title": "c"}]},
            Prompt(["q", "q", "a", "b", "c"]),
        ),
    ],
)
def test_other_inputs_have_no_template(
    endpoint: Endpoint, body: dict[str, Any], prompt: Prompt
) -> None:
    assert read(endpoint, **body) == prompt


@pytest.mark.parametrize(
    "body",
    [
        {"messages": [{"role": "user", "content": [{"type": "file", "file": {}}]}]},
        {"messages": [{"role": "user", "content": [{"type": "text", "text": 7}, {"type": []}]}]},
        {"messages": [{"role": "assistant", "tool_calls": [7, {"type": "function"}, {"type": 1}]}]},
        {"messages": [{"role": "assistant", "tool_calls": "x", "function_call": "y", "name": 7}]},
        {
            "messages": [{"role": "user", "content": "Hi"}],
            "functions": [7, {}, {"name": 1, "parameters": {"properties": {"a": 7, "b": {}}}}],
            "tool_choice": {"function": 7},
            "response_format": {"json_schema": 7},
        },
        {
            "messages": [{"role": "user", "content": "Hi"}],
            "tools": [{"type": "custom", "custom": {"name": "x"}}],
            "tool_choice": "none",
        },
    ],
)
@pytest.mark.parametrize("model", ["gpt-4o", "claude-opus-5", "qwen-max"])
def test_whatever_else_a_client_may_write_is_read_without_an_error(
    body: dict[str, Any], model: str
) -> None:
    assert read("chat/completions", model, **body).tokens >= 6


def test_a_schema_that_is_too_deep_is_cut_off() -> None:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(300):
        schema = {"type": "object", "properties": {"a": schema}}

    assert render_functions([{"name": "f", "parameters": schema}]).count("a?: {") == 17
