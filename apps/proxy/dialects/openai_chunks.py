"""Single events of a stream in OpenAI's dialect, in all forms that its servers give them."""

import re
from typing import Any, Final

import orjson

_ERROR_EVENT: Final = re.compile(rb"(?:^|[\r\n])event: ?error")


def load_chunk(data: bytes) -> dict[str, Any] | None:
    """Return the object in the data of an event, None if there is none."""
    try:
        document = orjson.loads(data)
    except orjson.JSONDecodeError:
        return None
    return document if isinstance(document, dict) else None


def is_error(event: bytes, document: dict[str, Any]) -> bool:
    """Return whether an event tells that the stream failed, in whichever server's form."""
    return (
        document.get("error") is not None
        or document.get("type") == "error"
        or document.get("object") == "error"
        or (b"event:" in event and _ERROR_EVENT.search(event) is not None)
    )


def find_usage(document: dict[str, Any]) -> object:
    """Return the `usage` of an event, wherever this server puts it."""
    usage = document.get("usage")
    if usage is None:
        # Groq.
        extra = document.get("x_groq")
        usage = extra.get("usage") if isinstance(extra, dict) else None
    if usage is None:
        # Moonshot.
        choices = document.get("choices")
        first = choices[0] if isinstance(choices, list) and choices else None
        usage = first.get("usage") if isinstance(first, dict) else None
    return usage
