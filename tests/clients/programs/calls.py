"""What every client sends: the same message, tool, schema and picture."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

PROMPT = "Say something."
MESSAGES: list[Any] = [{"role": "user", "content": PROMPT}]
QUESTION = "What is this?"
# Where a dialect wants to be told how much may be written.
OUTPUT_MAX = 1_000


class Weather(BaseModel):
    """The weather of a city."""

    city: str
    degrees: int


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
PICTURE_BASE64 = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk"
    "YPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
)
PICTURE = f"data:image/png;base64,{PICTURE_BASE64}"


def call_tool(name: str, arguments: str | Mapping[str, Any]) -> str:
    """Do what the model asked for, with arguments that may be JSON."""
    assert name == "find_weather", name
    told = json.loads(arguments) if isinstance(arguments, str) else arguments
    return f"21 degrees in {told['city']}"
