"""Which texts of a request rules about contents look through, in every dialect."""

from __future__ import annotations

import json
from typing import Any, Final, get_args

import pytest

from apps.proxy.dialects.parsed_request import DialectName, Endpoint
from apps.proxy.dialects.surfaces import parse_request
from apps.proxy.request_texts import has_token_ids, list_texts
from apps.risk.matchers import match_words
from apps.risk.models import OPERATIONS
from apps.risk.rules import Reach, Rule, judge_texts
from tests.support.cases import for_all

BOMB: Final = Rule(
    id=1,
    name="bombs",
    is_blocking=True,
    message="",
    reach=Reach(),
    contents=(match_words(["bomb"], are_whole=True),),
)
PNG: Final = "iVBORw0KGgo" * 20 + "bomb" + "=="
_SCHEMA: Final = {"type": "object", "properties": {"x": {"type": "string", "description": "bomb"}}}


def _is_found(endpoint: Endpoint, dialect: DialectName, body: dict[str, Any]) -> bool:
    # As it comes over the wire: no escape of JSON hides anything.
    sent = json.loads(json.dumps(body).replace("bomb", "b\\u006fmb"))
    request = parse_request(endpoint, dialect, {"model": "gpt", **sent})
    return judge_texts([BOMB], list_texts(request)).blocked_by is BOMB


def _chat(*messages: Any, **more: Any) -> dict[str, Any]:
    return {"messages": [*messages, {"role": "user", "content": "Go on."}], **more}


def _said(content: Any, role: str = "user", **more: Any) -> dict[str, Any]:
    return _chat({"role": role, "content": content, **more})


def _called(arguments: Any) -> dict[str, Any]:
    function = {"name": "find", "arguments": arguments}
    call = {"id": "call_1", "type": "function", "function": function}
    return _said(None, "assistant", tool_calls=[call])


def _tool(**function: Any) -> dict[str, Any]:
    return _chat(tools=[{"type": "function", "function": {"name": "find", **function}}])


CHATS: Final[dict[str, dict[str, Any]]] = {
    "a text": _said("a bomb"),
    "in other letters": _said("ＢＯ\u200bＭＢ"),
    "a part": _said([{"type": "text", "text": "a bomb"}]),
    "over two parts": _said([{"type": "text", "text": "a bo"}, {"type": "text", "text": "mb"}]),
    "over three parts": _said(
        [{"type": "text", "text": text} for text in ("a b", "o", "mb or so")]
    ),
    "with words of the format": _said(
        [{"type": "text", "text": "bo"}, {"type": "text", "text": "\n"},
         {"type": "text", "text": "mb"}]
    ),
    "beside an image": _said(
        [{"type": "text", "text": "bo"},
         {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}},
         {"type": "text", "text": "mb"}]
    ),
    "the system's": _said("a bomb", "system"),
    "the developer's": _said("a bomb", "developer"),
    "an earlier answer": _said("a bomb", "assistant"),
    "a refusal": _said([{"type": "refusal", "refusal": "no bomb"}], "assistant"),
    "a thought": _said("x", "assistant", reasoning_content="bomb"),
    "the result of a tool": _said("a bomb", "tool", tool_call_id="call_1"),
    "its parts": _said(
        [{"type": "text", "text": "bo"}, {"type": "text", "text": "mb"}], "tool",
        tool_call_id="call_1",
    ),
    "a name": _said("x", name="bomb"),
    "arguments": _called('{"query": "bomb"}'),
    "escaped arguments": _called('{"query": "\\u0062omb"}'),
    "arguments with breaks": _called('{"query": "a\\nbomb\\tx"}'),
    "a tool's name": _tool(name="bomb"),
    "what a tool does": _tool(description="finds a bomb"),
    "a schema": _tool(parameters=_SCHEMA),
    "a name in a schema": _tool(parameters={"type": "object", "properties": {"bomb": {}}}),
    "the form of the answer": _chat(
        response_format={"type": "json_schema", "json_schema": {"name": "x", "schema": _SCHEMA}}
    ),
    "a prediction": _chat(prediction={"type": "content", "content": "a bomb"}),
    "documents": _chat(documents=[{"title": "x", "bomb": "y"}]),
    "a template's own": _chat(chat_template_kwargs={"persona": "bomb"}),
    "what nobody here knows": _chat(some_prefix=["a bomb"]),
    # Mistral takes arguments as an object, too.
    "arguments that are an object": _called({"id": "bomb"}),
    "a name in them": _called({"bomb": 1}),
    "a schema of vLLM's": _chat(guided_json={"properties": {"bomb": {}}}),
    "another one of vLLM's": _chat(structured_outputs={"json": {"properties": {"bomb": {}}}}),
    "a schema of Ollama's": _chat(format={"type": "object", "properties": {"bomb": {}}}),
    "a schema of llama.cpp's": _chat(json_schema={"properties": {"bomb": {}}}),
    "an image that is none": _said(
        [{"type": "image_url", "image_url": {"url": "data:image/png;base64,a bomb"}}]
    ),
}  # fmt: skip
MESSAGES: Final[dict[str, dict[str, Any]]] = {
    "a text": _said("a bomb"),
    "over two parts": _said([{"type": "text", "text": "bo"}, {"type": "text", "text": "mb"}]),
    "the system's": _chat(system="a bomb"),
    "its parts": _chat(system=[{"type": "text", "text": "bo"}, {"type": "text", "text": "mb"}]),
    "the result of a tool": _said(
        [{"type": "tool_result", "tool_use_id": "toolu_1",
          "content": [{"type": "text", "text": "bo"}, {"type": "text", "text": "mb"}]}]
    ),
    "a result that is a text": _said(
        [{"type": "tool_result", "tool_use_id": "toolu_1", "content": "bomb"}]
    ),
    "a call": _said(
        [{"type": "tool_use", "id": "toolu_1", "name": "x", "input": {"type": "bomb"}}],
        "assistant",
    ),
    "a name in a call": _said(
        [{"type": "tool_use", "id": "toolu_1", "name": "x", "input": {"bomb": [1]}}], "assistant"
    ),
    "an id in a call": _said(
        [{"type": "tool_use", "id": "toolu_1", "name": "x", "input": {"id": "bomb"}}], "assistant"
    ),
    "a thought": _said(
        [{"type": "thinking", "thinking": "bomb", "signature": "QUJD"}], "assistant"
    ),
    "a document": _said(
        [{"type": "document", "title": "x",
          "source": {"type": "text", "media_type": "text/plain", "data": "a bomb"}}]
    ),
    "a document of one word": _said(
        [{"type": "document", "source": {"type": "text", "data": "bomb"}}]
    ),
    "a document of parts": _said(
        [{"type": "document",
          "source": {"type": "content", "content": [{"type": "text", "text": "bomb"}]}}]
    ),
    "a document's title": _said(
        [{"type": "document", "title": "bomb",
          "source": {"type": "base64", "media_type": "application/pdf", "data": "QUJD"}}]
    ),
    "a tool": _chat(tools=[{"name": "x", "description": "bomb", "input_schema": _SCHEMA}]),
}  # fmt: skip
RESPONSES: Final[dict[str, dict[str, Any]]] = {
    "a text": {"input": "a bomb"},
    "instructions": {"input": "x", "instructions": "a bomb"},
    "over two parts": {
        "input": [{"role": "user", "content": [{"type": "input_text", "text": "bo"},
                                               {"type": "input_text", "text": "mb"}]}]
    },
    "a call": {
        "input": [{"type": "function_call", "call_id": "call_1", "name": "x",
                   "arguments": '{"a": "\\u0062omb"}'}]
    },
    "its output": {"input": [{"type": "function_call_output", "call_id": "c", "output": "bomb"}]},
    "parts of its output": {
        "input": [{"type": "function_call_output", "call_id": "c",
                   "output": [{"type": "input_text", "text": "bo"},
                              {"type": "input_text", "text": "mb"}]}]
    },
    "a tool of one's own": {
        "input": [{"type": "custom_tool_call", "call_id": "c", "name": "x", "input": "bomb"}]
    },
    "a thought": {
        "input": [{"type": "reasoning", "summary": [{"type": "summary_text", "text": "bo"},
                                                    {"type": "summary_text", "text": "mb"}]}]
    },
    "a schema": {
        "input": "x", "text": {"format": {"type": "json_schema", "name": "x", "schema": _SCHEMA}}
    },
    "variables": {"prompt": {"id": "pmpt_1", "variables": {"x": "bomb"}}},
    "a variable that is called as an id": {
        "prompt": {"id": "pmpt_1", "variables": {"id": "bomb"}}
    },
    "a variable that is called as a format": {
        "prompt": {"id": "pmpt_1", "variables": {"format": "a bomb"}}
    },
    "the environment of a command": {
        "input": [{"type": "local_shell_call", "call_id": "c",
                   "action": {"type": "exec", "command": ["ls"], "env": {"id": "bomb"}}}]
    },
}  # fmt: skip
CONTENTS: Final[dict[str, dict[str, Any]]] = {
    "a text": {"contents": [{"parts": [{"text": "bomb"}]}]},
    "over two parts": {"contents": [{"parts": [{"text": "bo"}, {"text": "mb"}]}]},
    "the system's": {
        "contents": [{"parts": [{"text": "x"}]}],
        "systemInstruction": {"parts": [{"text": "bo"}, {"text": "mb"}]},
    },
    "in the other spelling": {
        "contents": [{"parts": [{"text": "x"}]}],
        "system_instruction": {"parts": [{"text": "bomb"}]},
    },
    "a call": {
        "contents": [{"parts": [{"functionCall": {"name": "x", "args": {"role": "bomb"}}}]}]
    },
    "its answer": {
        "contents": [{"parts": [{"functionResponse": {"name": "x", "response": {"bomb": 1}}}]}]
    },
    "a tool": {
        "contents": [{"parts": [{"text": "x"}]}],
        "tools": [{"functionDeclarations": [{"name": "x", "description": "bomb"}]}],
    },
    "a schema": {
        "contents": [{"parts": [{"text": "x"}]}],
        "generationConfig": {"responseSchema": _SCHEMA},
    },
}
INPUTS: Final[dict[Endpoint, list[dict[str, Any]]]] = {
    "completions": [
        {"prompt": "bomb"},
        {"prompt": ["x", "bomb"]},
        {"prompt": "x", "suffix": "bomb"},
    ],
    "embeddings": [{"input": "bomb"}, {"input": ["x", "bomb"]}],
    "moderations": [
        {"input": "bomb"},
        {"input": ["x", "bomb"]},
        {"input": [{"type": "text", "text": "bo"}, {"type": "text", "text": "mb"}]},
    ],
    "rerank": [
        {"query": "bomb", "documents": ["x"]},
        {"query": "x", "documents": ["y", "bomb"]},
        {"query": "x", "documents": [{"text": "y", "id": "bomb"}]},
    ],
}  # fmt: skip


@for_all("name", CHATS)
def test_chats(name: str) -> None:
    assert _is_found("chat/completions", "openai", CHATS[name])


@for_all("name", MESSAGES)
def test_messages(name: str) -> None:
    assert _is_found("messages", "anthropic", {"max_tokens": 10, **MESSAGES[name]})


@pytest.mark.parametrize("name", RESPONSES)
def test_responses(name: str) -> None:
    assert _is_found("responses", "openai-responses", RESPONSES[name])


@pytest.mark.parametrize("name", CONTENTS)
def test_contents(name: str) -> None:
    assert _is_found("generateContent", "gemini", CONTENTS[name])


@pytest.mark.parametrize("endpoint", INPUTS)
def test_inputs(endpoint: Endpoint) -> None:
    for body in INPUTS[endpoint]:
        assert _is_found(endpoint, "openai", body), body


def test_embeddings_of_google() -> None:
    content = {"parts": [{"text": "bo"}, {"text": "mb"}]}

    assert _is_found("embedContent", "gemini", {"content": content})
    assert _is_found("batchEmbedContents", "gemini", {"requests": [{"content": content}]})


@pytest.mark.parametrize(
    "body",
    [
        _said("x", user="bomb") | {"user": "bomb", "metadata": {"about": "bomb"}},
        _said("bo") | {"messages": [*_said("bo")["messages"], {"role": "user", "content": "mb"}]},
        _said([{"type": "image_url", "image_url": {"url": "https://example.com/bomb.png"}}]),
        _said([{"type": "image_url", "image_url": {"url": f"data:image/png;base64,{PNG}"}}]),
        _said([{"type": "input_audio", "input_audio": {"data": PNG, "format": "wav"}}]),
        _said([{"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PNG}"}}]),
        _said("a", "tool", tool_call_id="bomb"),
    ],
)
def test_what_no_model_reads_is_left_out(body: dict[str, Any]) -> None:
    body["messages"][0].pop("user", None)

    assert not _is_found("chat/completions", "openai", body)


def test_what_the_formats_say_themselves_is_no_text() -> None:
    schema = {"type": "object", "properties": {"x": {"type": "string"}}, "required": ["x"]}
    call = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    body = _chat(
        {"role": "system", "content": [{"type": "text", "text": "one"}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "two"},
        tools=[{"type": "function", "function": {"name": "g", "parameters": schema}}],
        tool_choice="auto",
        reasoning_effort="low",
        response_format={"type": "json_object"},
    )
    request = parse_request("chat/completions", "openai", {"model": "gpt", **body})

    texts = [text for text in list_texts(request) if text != "\n"]

    assert texts == ["one", "f", "{}", "two", "Go on.", "g", "x", "x"]


def test_a_word_of_the_format_is_a_text_where_texts_stand() -> None:
    parts = [{"type": "text", "text": "text"}, {"type": "text", "text": "user"}]
    request = parse_request(
        "chat/completions", "openai",
        {"model": "gpt", "messages": [{"role": "user", "content": parts}]},
    )  # fmt: skip

    assert list_texts(request) == ["text", "\n", "user", "\n", "text", "user", "\n"]


@pytest.mark.parametrize(
    ("endpoint", "body", "is_told_in_tokens"),
    [
        ("completions", {"prompt": [1, 2]}, True),
        ("completions", {"prompt": [[1, 2], [3]]}, True),
        ("completions", {"prompt": ["x"]}, False),
        ("completions", {"prompt": "x"}, False),
        ("embeddings", {"input": [1, 2]}, False),
    ],
)
def test_prompts_told_in_tokens_are_seen(
    endpoint: Endpoint, body: dict[str, Any], is_told_in_tokens: bool
) -> None:
    request = parse_request(endpoint, "openai", {"model": "gpt", **body})

    assert has_token_ids(request) is is_told_in_tokens


def test_rules_can_name_every_endpoint() -> None:
    assert sorted(OPERATIONS) == sorted(get_args(Endpoint))
