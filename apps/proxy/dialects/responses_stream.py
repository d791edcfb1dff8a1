"""The meter of a stream of OpenAI's Responses.

Source: https://platform.openai.com/docs/api-reference/responses-streaming. The last event holds the
whole answer and the usage: it waits for the commit of the charge, and nothing follows it.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

from apps.core.usage import Usage
from apps.proxy.dialects.json_strings import text_of
from apps.proxy.dialects.openai_chunks import is_error, load_chunk
from apps.proxy.dialects.responses_metering import (
    excerpts_of,
    finish_reason,
    is_search,
    reported_usage,
)
from apps.proxy.dialects.responses_stored import kept_ids
from apps.proxy.dialects.stream_meter import StreamMeter, clean_label, member_pattern
from apps.proxy.dialects.upstream_errors import allowed_code, error_code
from apps.proxy.estimate import Excerpt, Sizes, sizes_of
from apps.proxy.sse import event_data, first_data, split_events

# Of a text, arguments, a thought or whatever else comes in pieces.
_DELTA: Final = b"delta"
_PIECE: Final = re.compile(rb'"delta":\s*+"[^"]')
# The text of a thought comes under the same name, in events of their own.
_THOUGHTS: Final = b"thoughts"
_THOUGHT: Final = re.compile(rb'"type":\s*+"response\.reasoning_(?:summary_)?text\.delta"')
_CALL: Final = re.compile(rb'"type":\s*+"(?:custom_tool_call|function_call)"')
# The type of an item, in the events that tell its beginning and its end.
_SEARCH: Final = b'"web_search_call"'
_ENDS: Final = ("response.completed", "response.incomplete")
_FAILURES: Final = ("error", "response.cancelled", "response.failed")
_PREFIX: Final = "response."
_START: Final = b'"response.created"'


class ResponsesStreamMeter(StreamMeter):
    """Follows the events of a response, which ends when it is complete, or cut short."""

    VALUED = (b'"error"', b'"encrypted_content"')
    MARKS = (
        *(b'"' + name.encode() + b'"' for name in (*_ENDS, *_FAILURES) if name != "error"),
        _SEARCH,
        b"event: error",
        b"event:error",
    )
    TEXTS = {_DELTA: member_pattern(_DELTA)}
    THOUGHTS = (_THOUGHTS,)

    __slots__ = ("_searches", "_whole")

    def __init__(self) -> None:
        super().__init__()
        self._searches = 0
        self._whole: Mapping[str, Any] = {}  # the answer, where it did not come in pieces

    def is_whole(self, choices: int) -> bool:
        """Return whether the stream has told its end: nothing else is one."""
        return self.done_seen

    def begins_an_answer(self, block: bytes) -> bool | None:
        """Return whether the first event is one of a response; later ones are not looked into."""
        first = first_data(block)
        if not first:
            # Comments keep a connection open; an answer may come in one event, which waits.
            return True if self.done_seen else None
        kind = (load_chunk(first) or {}).get("type")
        if not isinstance(kind, str) or kind.startswith(_PREFIX):
            return isinstance(kind, str)
        # Such as what keeps a connection open, or tells of limits.
        return True if _START in block else None

    def _observe_event(self, event: bytes) -> bool:
        data = event_data(event)
        if not data:
            return True  # A comment.
        document = load_chunk(data)
        kind = document.get("type") if document is not None else None
        if document is None or kind in _FAILURES or (kind is None and is_error(event, document)):
            self._end(document or {})
            self._fail(document or {})
            return False
        if kind in _ENDS:
            self._end(document)
            response = document.get("response")
            if isinstance(response, Mapping):
                self.stored_ids = kept_ids(response)
            self.done_seen = True
            self.last_frame = event
            return False
        self._keep(event)
        if kind == "response.output_item.done":
            item = document.get("item")
            self._searches += is_search(item)
            sealed = item.get("encrypted_content") if isinstance(item, Mapping) else None
            self._sealed_characters += len(sealed) if isinstance(sealed, str) else 0
        return True

    def _end(self, document: Mapping[str, Any]) -> None:
        """Take in what the last event tells of the whole answer."""
        response = document.get("response")
        if not isinstance(response, Mapping):
            return
        self.finish_reason = finish_reason(response) or self.finish_reason
        self.service_tier = clean_label(response.get("service_tier")) or self.service_tier
        if response.get("usage") is not None:
            self._report(reported_usage(response))
        if not self._came_in_pieces():
            self._whole = response
            self._has_content = bool(excerpts_of(response))

    def _came_in_pieces(self) -> bool:
        """Return whether there was content before the end, without counting it where it was."""
        if self._has_content or any(_PIECE.search(block) is not None for block in self._batch):
            return True
        self._count_batch()
        return self._has_content

    def _fail(self, document: Mapping[str, Any]) -> None:
        super()._fail(document)
        response = document.get("response")
        self.upstream_error_code = error_code(
            response if isinstance(response, Mapping) else document
        ) or allowed_code(document.get("code"))

    def excerpts(self) -> list[Excerpt]:
        """Return what was kept of each kind of text the model produced so far."""
        return super().excerpts() or excerpts_of(self._whole)

    def final_usage(self, *, estimated_input_tokens: int) -> Usage:
        """Return the usage to charge, with the searches that were seen."""
        usage = super().final_usage(estimated_input_tokens=estimated_input_tokens)
        if usage.source == "none":
            return usage
        return usage._replace(web_search=max(usage.web_search, self._searches))

    def _sizes(self) -> Sizes:
        return sizes_of(excerpts_of(self._whole)) if self._whole else super()._sizes()

    def _count(self, raw: bytes) -> None:
        self._count_text(raw if _THOUGHT.search(raw) is None else self._count_thoughts(raw), _DELTA)
        if not self._has_content:
            self._has_content = _CALL.search(raw) is not None

    def _count_thoughts(self, raw: bytes) -> bytes:
        """Count the events that bring thoughts, and return the others."""
        thoughts: list[bytes] = []
        others: list[bytes] = []
        for event in split_events(raw):
            (others if _THOUGHT.search(event) is None else thoughts).append(event)
        texts = self.TEXTS[_DELTA].findall(b"".join(thoughts))
        self._take_text(_THOUGHTS, text_of(b"".join(texts)))
        return b"".join(others)
