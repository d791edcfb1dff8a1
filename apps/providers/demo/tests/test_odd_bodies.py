"""Bodies in which anything may stand anywhere."""

from __future__ import annotations

import json
import random
from typing import Any, Final

import pytest

from apps.providers.demo import DemoProvider
from apps.providers.demo.tests.peer import connect
from apps.providers.demo.tests.spoken import VERSION

_SCHEMA: Final = {"type": "object", "properties": {"a": {"type": "string"}}, "required": ["a"]}
_PARTS: Final = [{"type": "text", "text": "x"}, {"type": "image", "source": {"type": "url"}}]
_TOLD: Final = {"type": "tool_result", "content": [{"type": "text", "text": "z"}]}
_BODIES: Final[dict[str, dict[str, Any]]] = {
    "/v1/chat/completions": {
        "model": "m:tools=on",
        "messages": [{"role": "user", "content": _PARTS}, {"role": "tool", "content": "x"}],
        "tools": [{"type": "function", "function": {"name": "b", "parameters": _SCHEMA}}],
        "tool_choice": {"function": {"name": "b"}},
        "response_format": {"type": "json_schema", "json_schema": {"schema": _SCHEMA}},
        "max_tokens": 9,
    },
    "/v1/messages": {
        "model": "m:tools=on,reasoning=1",
        "max_tokens": 50,
        "system": _PARTS,
        "messages": [{"role": "user", "content": [*_PARTS, _TOLD]}],
        "tools": [{"name": "b", "input_schema": _SCHEMA}],
        "tool_choice": {"type": "tool", "name": "b"},
        "output_config": {"format": {"type": "json_schema", "schema": _SCHEMA}},
        "thinking": {"type": "enabled"},
    },
    "/v1/responses": {
        "model": "m:tools=on,reasoning=1",
        "instructions": "x",
        "input": [
            {"role": "user", "content": [{"text": "a"}, {"image_url": "https://x.example/"}]},
            {"type": "function_call", "arguments": "{}"},
            {"type": "function_call_output", "output": [{"text": "x"}]},
        ],
        "tools": [{"type": "function", "name": "b", "parameters": _SCHEMA}],
        "tool_choice": {"type": "function", "name": "b"},
        "text": {"format": {"type": "json_schema", "schema": _SCHEMA}},
        "reasoning": {"summary": "auto"},
        "max_output_tokens": 20,
    },
    "/v1beta/models/m:tools=on,reasoning=1:generateContent": {
        "contents": [
            {"role": "user", "parts": [{"text": "x"}, {"inlineData": {}}, {"functionCall": {}}]},
            {"role": "user", "parts": [{"functionResponse": {"response": {"a": 1}}}]},
        ],
        "systemInstruction": {"parts": [{"text": "x"}]},
        "generationConfig": {
            "maxOutputTokens": 5,
            "responseMimeType": "application/json",
            "responseSchema": {"type": "OBJECT", "properties": {"a": {"type": "STRING"}}},
            "thinkingConfig": {"includeThoughts": True},
        },
        "tools": [{"functionDeclarations": [{"name": "b", "parameters": {"type": "OBJECT"}}]}],
        "toolConfig": {
            "functionCallingConfig": {"mode": "ANY", "allowedFunctionNames": ["b"]},
        },
    },
    "/v1beta/models/m:batchEmbedContents": {
        "requests": [{"content": {"parts": [{"text": "x"}]}, "outputDimensionality": 4}]
    },
}
_ODD: Final[list[Any]] = [
    *(None, True, 0, -1, 1.5, "", "x", 2**63),
    *([], {}, [1], ["x"], [{}], {"a": 1}, [[1]], {"type": "x"}, [{"type": "text"}], [{"text": 5}]),
]


def mutate(value: Any, chance: random.Random) -> Any:
    """Return the value with odd ones in it, or in its place."""
    if chance.random() < 0.1:
        return chance.choice(_ODD)
    if isinstance(value, dict):
        kept = {name: item for name, item in value.items() if chance.random() > 0.05}
        return {name: mutate(item, chance) for name, item in kept.items()}
    if isinstance(value, list):
        return [mutate(item, chance) for item in value]
    return value


@pytest.mark.parametrize("path", _BODIES)
async def test_every_body_is_answered_or_refused(provider: DemoProvider, path: str) -> None:
    chance = random.Random(path)
    headers = "".join(f"{name}: {value}\r\n" for name, value in VERSION)

    async with connect(provider) as peer:
        for _ in range(300):
            content = json.dumps(mutate(_BODIES[path], chance)).encode()
            head = f"POST {path} HTTP/1.1\r\n{headers}content-length: {len(content)}\r\n\r\n"
            peer.writer.write(head.encode() + content)
            json.loads(await peer.read_response())

    assert {call["status"] for call in provider.calls} == {200, 400}
    assert len(provider.calls) == 300
