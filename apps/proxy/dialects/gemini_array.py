"""A stream of Google's generateContent as one JSON array, for clients that do not ask for events.

The responses themselves are not looked into. What can stand in the place of an `AnswerConverter`
where nothing is converted but the events around the responses.

Source: https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent
"""

from apps.core.errors import GatewayError
from apps.proxy.dialects.gemini_errors import gemini_body
from apps.proxy.sse import events_with_data


class GeminiArray:
    """Rewrites one stream."""

    __slots__ = ("has_begun", "is_cut")

    def __init__(self) -> None:
        self.has_begun = False  # something was written
        self.is_cut = False

    def convert(self, block: bytes) -> bytes:
        """Return what a block of complete events comes to."""
        return b"".join([self._element(data) for _, data in events_with_data(block)])

    def finish(self, last_frame: bytes) -> bytes:
        """Return the end of the array, whose last events are these."""
        written = self.convert(last_frame)
        return written + (b"\n]" if self.has_begun else b"[]")

    def fail(self, error: GatewayError, request_id: str) -> bytes:
        """Return an error as the last element of an array that must not seem complete."""
        return self._element(gemini_body(error, request_id))

    def _element(self, response: bytes) -> bytes:
        before = b",\n" if self.has_begun else b"["
        self.has_begun = True
        return before + response
