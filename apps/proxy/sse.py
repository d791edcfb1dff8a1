"""Server-sent events, without I/O: bytes in, complete events out, no byte changed.

Lines end in LF, CRLF or CR; an event ends with an empty line. What is not yet complete is kept, at
most `max_event_bytes` of it.

Source: https://html.spec.whatwg.org/multipage/server-sent-events.html#parsing-an-event-stream
"""

import re
from collections.abc import Iterator
from typing import Final

# A whole tool call in one event takes some hundred kilobytes; more is no answer of a model.
MAX_EVENT_BYTES: Final = 1024 * 1024

# The end of an empty line, whichever way the two lines end.
_ENDS: Final = (b"\n\n", b"\r\n\r\n", b"\n\r\n", b"\r\r\n", b"\r\r", b"\n\r")
_LONGEST_END: Final = 4
# Atomic, so that CRLF is never taken apart into two ends of lines.
_EVENT_END: Final = re.compile(rb"(?>\r\n|\n|\r)(?>\r\n|\n|\r)+")
_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"


class EventTooLarge(Exception):
    """An event did not end within the allowed number of bytes."""


class EventBuffer:
    """Cuts a stream of chunks at the ends of events."""

    __slots__ = ("_max_event_bytes", "_pending")

    def __init__(self, *, max_event_bytes: int = MAX_EVENT_BYTES) -> None:
        self._max_event_bytes = max_event_bytes
        self._pending = bytearray()

    @property
    def pending(self) -> int:
        """Return how many bytes of an unfinished event are kept."""
        return len(self._pending)

    def feed(self, chunk: bytes) -> bytes:
        """Return the bytes of all events complete so far, and keep the rest.

        Raises EventTooLarge if the rest exceeds the bound.
        """
        pending = self._pending
        if not pending:
            if chunk.endswith(b"\n\n"):
                return chunk
            # Empty lines before an event mean nothing and need not wait for it.
            cut = _end_of_events(chunk, 0) or len(chunk) - len(chunk.lstrip(b"\r\n"))
            pending += chunk[cut:]
            complete = chunk[:cut]
        else:
            # An end may begin in what came before: the network cuts anywhere.
            start = max(0, len(pending) - _LONGEST_END + 1)
            pending += chunk
            cut = _end_of_events(pending, start)
            complete = bytes(pending[:cut])
            del pending[:cut]
        if len(pending) > self._max_event_bytes:
            raise EventTooLarge(f"An event exceeds {self._max_event_bytes} bytes.")
        return complete


def _end_of_events(data: bytes | bytearray, start: int) -> int:
    """Return where the last complete event ends, 0 if none does; looks from `start` on."""
    if data.find(b"\r", start) < 0:
        position = data.rfind(b"\n\n", start)
        return position + 2 if position >= 0 else 0
    # The LF after a final CR may still be under way; it then leads the next block.
    ends = [position + len(end) for end in _ENDS if (position := data.rfind(end, start)) >= 0]
    return max(ends, default=0)


def rest_of_event(block: bytes, sent: int) -> bytes:
    """Return what is missing of the event of which a block's first `sent` bytes end in a part.

    All that is left where no event ends any more; b"" where none has begun.
    """
    if not sent:
        return b""
    for end in _EVENT_END.finditer(block, max(0, sent - _LONGEST_END)):
        if end.end() >= sent:
            return block[sent : end.end()]
    return block[sent:]


def split_events(block: bytes) -> list[bytes]:
    """Return the events of a block that `feed` returned; joined they are the block."""
    if block.find(b"\n\n") == len(block) - 2 > 0 and b"\r" not in block and block[0] != 10:
        # The usual block is one event.
        return [block]
    events: list[bytes] = []
    if b"\r" not in block and b"\n\n\n" not in block:
        # Many at once; the general path below costs several times as much.
        *events, rest = block.split(b"\n\n")
        events = [event + b"\n\n" for event in events]
        return [*events, rest] if rest else events
    start = 0
    for end in _EVENT_END.finditer(block):
        events.append(block[start : end.end()])
        start = end.end()
    if start < len(block):
        events.append(block[start:])
    return events


def events_with_data(block: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield the events of a block that hold data, each with it. Others keep a connection open."""
    for event in split_events(block):
        data = event_data(event).strip()
        if data:
            yield event, data


def event_data(event: bytes) -> bytes:
    """Return the data of an event: its `data` lines joined by LF, b"" if there is none."""
    # The usual event is one line; the general path below costs several times as much.
    if event.startswith(b"data: ") and event.find(b"\n") == len(event) - 2 and b"\r" not in event:
        return event[6:-2]
    if event.startswith(b"event: ") and b"\r" not in event:
        # So is the usual event of Anthropic's, after its name.
        start = event.find(b"\n") + 1
        if event.startswith(b"data: ", start) and event.find(b"\n", start) == len(event) - 2:
            return event[start + 6 : -2]
    text = event.removeprefix(_BYTE_ORDER_MARK).replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    lines: list[bytes] = []
    for line in text.split(b"\n"):
        field, _, value = line.partition(b":")
        if field == b"data":
            lines.append(value.removeprefix(b" "))
    return b"\n".join(lines)


def first_data(block: bytes) -> bytes:
    """Return the data of the first event that has any, b"" if none has."""
    if block.startswith((b"data:", b"event:")) and b"\r" not in block:
        # The usual block; the others need not be looked for.
        data = event_data(block.partition(b"\n\n")[0] + b"\n\n")
        if data:
            return data
    return next(filter(None, map(event_data, split_events(block))), b"")


def is_done(event: bytes) -> bool:
    """Return whether the event is the one that ends a stream of OpenAI's dialect."""
    return event_data(event).strip() == b"[DONE]"
