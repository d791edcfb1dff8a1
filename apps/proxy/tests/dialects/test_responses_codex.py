"""Codex, whose requests are written as it sends them, with providers of other dialects.

Source: https://github.com/openai/codex/tree/main/codex-rs (codex-api/src/common.rs,
protocol/src/models.rs and tools/src/tool_spec.rs)
"""

from typing import Any, Final

import orjson
import pytest

from apps.core.errors import GatewayError
from apps.proxy.dialects.conversion import DIALECTS
from apps.proxy.dialects.neutral import (
    ArgumentsPiece,
    Delta,
    Done,
    PartEnd,
    Start,
    Stop,
    Target,
    ThinkingPiece,
    ToolStart,
)
from apps.proxy.tests.dialects.golden_cells import REPLY

PATCH: Final = "*** Begin Patch\n*** Add File: a.py\n+print(1)\n*** End Patch\n"
GRAMMAR: Final = 'start: begin_patch hunk+ end_patch\nbegin_patch: "*** Begin Patch" LF\n'
SHELL: Final = {
    "type": "object",
    "properties": {"cmd": {"type": "string"}},
    "required": ["cmd"],
    "additionalProperties": False,
}
REQUEST: Final[dict[str, Any]] = {
    "model": "claude",
    "instructions": "You are Codex.",
    "input": [
        {
            "type": "message",
            "role": "developer",
            "content": [{"type": "input_text", "text": "The sandbox is read-only."}],
        },
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "<environment_context/>"}],
        },
        {
            "type": "message",
            "role": "user",
            "content": [{"type": "input_text", "text": "Add a file."}],
        },
        {
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "First look."}],
            "content": None,
            "encrypted_content": "signed.c2lnbg==",
        },
        {
            "type": "message",
            "role": "assistant",
            "content": [{"type": "output_text", "text": "I look."}],
            "phase": "commentary",
        },
        {"type": "function_call", "name": "exec", "arguments": '{"cmd":"ls"}', "call_id": "call_1"},
        {
            "type": "custom_tool_call",
            "status": "completed",
            "call_id": "call_2",
            "name": "apply_patch",
            "input": PATCH,
        },
        {"type": "function_call_output", "call_id": "call_1", "output": "b.py"},
        {"type": "custom_tool_call_output", "call_id": "call_2", "output": "Done."},
    ],
    "tools": [
        {
            "type": "function",
            "name": "exec",
            "description": "Runs a command.",
            "strict": False,
            "parameters": SHELL,
        },
        {
            "type": "custom",
            "name": "apply_patch",
            "description": "Edits files.",
            "format": {"type": "grammar", "syntax": "lark", "definition": GRAMMAR},
        },
        {
            "type": "namespace",
            "name": "mcp__docs",
            "description": "Tools in the mcp__docs namespace.",
            "tools": [
                {
                    "type": "function",
                    "name": "search",
                    "description": "Searches.",
                    "strict": False,
                    "parameters": {"type": "object", "properties": {}},
                }
            ],
        },
    ],
    "tool_choice": "auto",
    "parallel_tool_calls": True,
    "reasoning": {"effort": "medium", "summary": "auto"},
    "store": False,
    "stream": True,
    "include": ["reasoning.encrypted_content"],
    "prompt_cache_key": "0198",
    "client_metadata": {"x-codex-installation-id": "1"},
}
WRAPPED: Final = orjson.dumps({"input": PATCH}).decode()


def sent(provider: str, **changed: Any) -> dict[str, Any]:
    request = DIALECTS["openai-responses"].read_request({**REQUEST, **changed})
    target = Target(model="m", output_cap=20_000)
    written: dict[str, Any] = orjson.loads(
        orjson.dumps(DIALECTS[provider].write_request(request, target))
    )
    return written


def test_a_request_of_codex_becomes_one_of_chat_completions() -> None:
    body = sent("openai")

    assert body.pop("messages") == [
        {
            "role": "system",
            "content": [
                {"type": "text", "text": "You are Codex."},
                {"type": "text", "text": "The sandbox is read-only."},
            ],
        },
        {"role": "user", "content": "<environment_context/>"},
        {"role": "user", "content": "Add a file."},
        {
            "role": "assistant",
            "content": "I look.",
            "tool_calls": [
                {
                    "id": "call_1",
                    "type": "function",
                    "function": {"name": "exec", "arguments": '{"cmd":"ls"}'},
                },
                {
                    "id": "call_2",
                    "type": "function",
                    "function": {"name": "apply_patch", "arguments": WRAPPED},
                },
            ],
        },
        {"role": "tool", "tool_call_id": "call_1", "content": "b.py"},
        {"role": "tool", "tool_call_id": "call_2", "content": "Done."},
    ]
    tools = [tool["function"] for tool in body.pop("tools")]
    assert [tool["name"] for tool in tools] == ["exec", "apply_patch", "mcp__docs__search"]
    assert tools[0]["parameters"] == SHELL
    assert tools[1]["parameters"]["required"] == ["input"]
    assert tools[1]["description"].endswith(GRAMMAR)
    assert body == {
        "model": "m",
        "max_completion_tokens": 20_000,
        "tool_choice": "auto",
        "parallel_tool_calls": True,
        "reasoning_effort": "medium",
        "stream": True,
        "stream_options": {"include_usage": True},
    }


def test_a_request_of_codex_becomes_one_of_anthropics() -> None:
    body = sent("anthropic")

    assert body.pop("messages") == [
        {
            "role": "user",
            "content": [
                {"type": "text", "text": "<environment_context/>"},
                {"type": "text", "text": "Add a file."},
            ],
        },
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "First look.", "signature": "c2lnbg=="},
                {"type": "text", "text": "I look."},
                {"type": "tool_use", "id": "call_1", "name": "exec", "input": {"cmd": "ls"}},
                {
                    "type": "tool_use",
                    "id": "call_2",
                    "name": "apply_patch",
                    "input": {"input": PATCH},
                },
            ],
        },
        {
            "role": "user",
            "content": [
                {"type": "tool_result", "tool_use_id": "call_1", "content": "b.py"},
                {"type": "tool_result", "tool_use_id": "call_2", "content": "Done."},
            ],
        },
    ]
    assert [tool["name"] for tool in body.pop("tools")] == [
        "exec",
        "apply_patch",
        "mcp__docs__search",
    ]
    assert body == {
        "model": "m",
        "max_tokens": 20_000,
        "system": [
            {"type": "text", "text": "You are Codex."},
            {"type": "text", "text": "The sandbox is read-only."},
        ],
        "tool_choice": {"type": "auto", "disable_parallel_tool_use": False},
        "thinking": {"type": "adaptive", "display": "summarized"},
        "output_config": {"effort": "medium"},
        "stream": True,
    }


@pytest.mark.parametrize("provider", ["openai", "anthropic"])
@pytest.mark.parametrize("kind", ["image_generation", "tool_search", "local_shell"])
def test_a_tool_that_only_openai_has_is_refused_by_its_place(provider: str, kind: str) -> None:
    with pytest.raises(GatewayError) as refusal:
        sent(provider, tools=[*REQUEST["tools"], {"type": kind}])

    assert (refusal.value.row, refusal.value.param) == ("E14", "tools[3].type")


def test_codex_gets_back_the_calls_of_its_tools_and_thoughts_that_it_gives_back() -> None:
    deltas: list[Delta] = [
        Start("msg_1", "claude"),
        ThinkingPiece("Now write."),
        ThinkingPiece(signature="c2lnbg=="),
        PartEnd(),
        ToolStart("toolu_1", "apply_patch"),
        ArgumentsPiece(WRAPPED[:9]),
        ArgumentsPiece(WRAPPED[9:]),
        PartEnd(),
        ToolStart("toolu_2", "mcp__docs__search"),
        ArgumentsPiece("{}"),
        PartEnd(),
        Stop("tool_use"),
        Done(),
    ]
    writer = DIALECTS["openai-responses"].stream_writer(REPLY._replace(asked=REQUEST))

    events = [
        orjson.loads(event.partition("\ndata: ")[2])
        for event in writer.write(deltas).decode().split("\n\n")[:-1]
    ]

    done = [event["item"] for event in events if event["type"] == "response.output_item.done"]
    assert done == events[-1]["response"]["output"]
    assert done == [
        {
            "id": "rs_msg_1_0",
            "type": "reasoning",
            "summary": [{"type": "summary_text", "text": "Now write."}],
            "encrypted_content": "signed.c2lnbg==",
        },
        {
            "id": "ctc_msg_1_1",
            "type": "custom_tool_call",
            "status": "completed",
            "input": PATCH,
            "call_id": "toolu_1",
            "name": "apply_patch",
        },
        {
            "id": "fc_msg_1_2",
            "type": "function_call",
            "status": "completed",
            "arguments": "{}",
            "call_id": "toolu_2",
            "name": "search",
            "namespace": "mcp__docs",
        },
    ]
    # And what Codex gives back of them is what the provider said.
    body = sent("anthropic", input=[{"role": "user", "content": "Add."}, *done])
    assert body["messages"][1]["content"] == [
        {"type": "thinking", "thinking": "Now write.", "signature": "c2lnbg=="},
        {
            "type": "tool_use",
            "id": "toolu_1",
            "name": "apply_patch",
            "input": {"input": PATCH},
        },
        {"type": "tool_use", "id": "toolu_2", "name": "mcp__docs__search", "input": {}},
    ]


def test_a_tool_that_would_be_called_like_another_is_refused() -> None:
    with pytest.raises(GatewayError) as refusal:
        sent("openai", tools=[*REQUEST["tools"], {"type": "custom", "name": "mcp__docs__search"}])

    assert (refusal.value.row, refusal.value.param) == ("E13", "tools[3].name")
