"""The arguments of a tool call: JSON text in some dialects, an object in others."""

from collections.abc import Mapping
from typing import Any, Final

import orjson

# The key under which Anthropic wants to be given back what a model wrote and is not JSON.
# Source: https://platform.claude.com/docs/en/agents-and-tools/tool-use/fine-grained-tool-streaming
INVALID_KEY: Final = "INVALID_JSON"
NO_ARGUMENTS: Final = "{}"


def arguments_object(text: str) -> Mapping[str, Any]:
    """Return the object that a text holds; what is none comes whole under INVALID_KEY.

    Whole numbers beyond 64 bits become doubles, as in every client that reads them with JavaScript.
    """
    found = _load(text)
    return found if isinstance(found, dict) else {INVALID_KEY: text}


def arguments_text(value: Mapping[str, Any]) -> str:
    """Return an object as text, its members in their order."""
    return orjson.dumps(value).decode()


def is_complete(text: str) -> bool:
    """Return whether a text is an object to its end."""
    return isinstance(_load(text), dict)


def _load(text: str) -> object:
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return None
