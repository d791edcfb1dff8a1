"""Answers whose stream comes in Amazon's frames, read as one of server-sent events."""

from __future__ import annotations

from typing import Final

from apps.core.errors import GatewayError
from apps.proxy.dialects.amazon_events import FrameBroken, FrameReader, StreamRefused
from apps.proxy.dialects.upstream_errors import upstream_error
from apps.proxy.endings import AttemptFailed
from apps.proxy.http_client import Answer, BadAnswer, ConnectionClosed
from apps.proxy.sse import EventTooLarge


class RefusedInside(BadAnswer):
    """The provider gave up inside its answer, and said why."""

    def __init__(self, failure: AttemptFailed) -> None:
        super().__init__(failure.error.code)
        self.failure: Final = failure


def failure_inside(error: Exception) -> AttemptFailed:
    """Return what it means that a stream ended in trouble before any of it went on."""
    if isinstance(error, RefusedInside):
        return error.failure
    return AttemptFailed(GatewayError("E46"), 200, type(error).__name__)


class FramedAnswer:
    """Reads an answer's frames. What came before trouble is given before the trouble is told."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._reader = FrameReader()
        self._trouble: Exception | None = None

    async def read(self) -> bytes:
        """Return the events that are complete, as soon as there are any; b"" at the end.

        Raises ConnectionClosed for an end inside a frame, BadAnswer for one that is broken,
        RefusedInside, EventTooLarge, and what the answer itself raises.
        """
        reader = self._reader
        while not reader.events:  # each turn reads something, or ends
            if self._trouble is not None:
                raise self._trouble
            chunk = await self._answer.read()
            if not chunk:
                if reader.is_inside:
                    raise ConnectionClosed
                return b""
            try:
                reader.feed(chunk)
            except FrameBroken as error:
                self._trouble = BadAnswer(str(error))
            except EventTooLarge as error:
                self._trouble = error
            except StreamRefused as refusal:
                self._trouble = RefusedInside(self._failure_of(refusal))
        events, reader.events = reader.events, b""
        return events

    def _failure_of(self, refusal: StreamRefused) -> AttemptFailed:
        text = self._answer.conceal(refusal.payload.decode("utf-8", "replace"))
        error = upstream_error(refusal.status, {}, text.encode())
        return AttemptFailed(error, refusal.status, text)
