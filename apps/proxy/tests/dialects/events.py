"""Events of a stream, as they go over the wire."""

from typing import Any

import orjson


def event(document: Any) -> bytes:
    """Return an event that holds a document."""
    return b"data: " + orjson.dumps(document) + b"\n\n"


def named_event(kind: str, **members: Any) -> bytes:
    """Return an event whose line tells its type, too, as OpenAI's Responses and Anthropic do."""
    return b"event: %b\n" % kind.encode() + event({"type": kind, **members})
