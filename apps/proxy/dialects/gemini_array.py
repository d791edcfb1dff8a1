"""A stream of Google's generateContent as one JSON array, for clients that do not ask for events.

The responses themselves are not looked into: only what stands around them changes.

Source: https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent
"""

from apps.core.errors import GatewayError
from apps.proxy.dialects.answer_conversion import AnswerConverter
from apps.proxy.dialects.conversion import Reply
from apps.proxy.dialects.gemini_errors import gemini_body
from apps.proxy.sse import events_with_data


class GeminiArray(AnswerConverter):
    """Rewrites one stream of a provider of the same dialect."""

    __slots__ = ("_request_id",)

    def __init__(self, reply: Reply) -> None:
        super().__init__("gemini", "gemini", reply)
        self._request_id = reply.request_id

    def convert(self, block: bytes) -> bytes:
        """Return what a block of complete events comes to."""
        return b"".join([self._element(data) for _, data in events_with_data(block)])

    def finish(self, last_frame: bytes) -> bytes:
        """Return the end of the array, whose last events are these."""
        written = self.convert(last_frame)
        return written + (b"\n]" if self._has_begun else b"[]")

    def break_off(self, error: GatewayError) -> bytes:
        """Return an error as the last element of an array that must not seem complete."""
        return self._element(gemini_body(error, self._request_id))

    def _element(self, response: bytes) -> bytes:
        before = b",\n" if self._has_begun else b"["
        self._has_begun = True
        return before + response
