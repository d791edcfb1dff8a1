"""Requests with a member that nobody knows, wherever one may stand."""

from collections.abc import Iterator
from typing import Any, Final

import orjson

# What is the model's or the client's own business to its depths.
FREE_FORM: Final = frozenset(
    {
        "annotations",
        "client_metadata",
        "args",
        "input",
        "input_schema",
        "metadata",
        "parameters",
        "parametersJsonSchema",
        "parsed",
        "parsed_arguments",
        "partMetadata",
        "response",
        "responseJsonSchema",
        "responseSchema",
        "schema",
    }
)


def with_a_stranger(body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield copies of a body with one unknown member each, and its name."""
    copy: dict[str, Any] = orjson.loads(orjson.dumps(body))
    for place, holder in objects(copy, ""):
        holder["stranger"] = 1
        yield f"{place}.stranger" if place else "stranger", copy
        del holder["stranger"]


def objects(value: Any, place: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every object that has a form in a dialect, and its place."""
    if isinstance(value, list):
        for position, item in enumerate(value):
            yield from objects(item, f"{place}[{position}]")
    elif isinstance(value, dict):
        yield place, value
        for name, item in list(value.items()):
            if name not in FREE_FORM or is_conversation(name, item):
                yield from objects(item, f"{place}.{name}" if place else name)


def is_conversation(name: str, item: Any) -> bool:
    """Return whether one dialect gives a meaning to what is free in another one."""
    # Anthropic's `metadata`, and the input of Responses, not that of a tool.
    return (name == "metadata" and "user_id" in item) or (name == "input" and type(item) is list)
