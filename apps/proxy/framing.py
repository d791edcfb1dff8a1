"""How a provider's stream begins and ends, beyond what the format itself says. Pure."""

from __future__ import annotations

import orjson

from apps.proxy.sse import EventBuffer, event_data, is_done, split_events


class CutInsideAnEvent(Exception):
    """A stream ended in the middle of an event."""


def last_event(buffer: EventBuffer) -> bytes:
    """Return what the provider left without an empty line behind it.

    Raises CutInsideAnEvent where it was cut inside an event: some servers only forget the line.
    """
    event = buffer.feed(b"\n\n")
    data = event_data(event)
    if data and not is_done(event):
        try:
            orjson.loads(data)
        except orjson.JSONDecodeError as error:
            raise CutInsideAnEvent from error
    return event if data else b""


def begins_an_answer(block: bytes) -> bool:
    """Return whether the first event is a chunk; later ones are not looked into."""
    first = _first_data(block)
    if not first:
        return True  # Nothing but [DONE] or usage.
    try:
        document = orjson.loads(first)
    except orjson.JSONDecodeError:
        return False
    return isinstance(document, dict) and isinstance(document.get("choices"), list)


def has_data(block: bytes) -> bool:
    """Return whether any event of the block carries data: comments do not."""
    if block.startswith(b"data:"):
        return True
    return any(event_data(event) for event in split_events(block))


def _first_data(block: bytes) -> bytes:
    """Return the data of the first event that has any, b"" if none has."""
    if block.startswith(b"data:") and b"\r" not in block:
        # The usual block; the others need not be looked for.
        data = event_data(block.partition(b"\n\n")[0] + b"\n\n")
        if data:
            return data
    return next(filter(None, map(event_data, split_events(block))), b"")
