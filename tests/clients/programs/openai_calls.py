"""What every client sends: the same message, tool, schema and picture."""

from __future__ import annotations

import json
from typing import Any

MESSAGES: list[Any] = [{"role": "user", "content": "Say something."}]
WEATHER_SCHEMA: dict[str, Any] = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "degrees": {"type": "integer"}},
    "required": ["city", "degrees"],
    "additionalProperties": False,
}
TOOL: Any = {
    "type": "function",
    "function": {
        "name": "find_weather",
        "description": "Tell the weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
# One transparent pixel.
PICTURE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "YPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)


def call_tool(name: str, arguments: str) -> str:
    """Do what the model asked for."""
    assert name == "find_weather", name
    return f"21 degrees in {json.loads(arguments)['city']}"
