"""How a provider's stream ends, beyond what the format itself says. Pure."""

from __future__ import annotations

import orjson

from apps.proxy.sse import EventBuffer, event_data, is_done


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
