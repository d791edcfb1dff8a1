"""The meter of a stream of Anthropic's Messages API.

Source: https://platform.claude.com/docs/en/build-with-claude/streaming. The usage comes in two
parts: what was read with the first event, what was written with the last but one.
"""

import re
from typing import Any, Final

from apps.core.usage import Usage
from apps.proxy.dialects.anthropic_usage import (
    is_billed_refusal,
    merge_usage,
    parse_anthropic_usage,
)
from apps.proxy.dialects.openai_chunks import is_error, load_chunk
from apps.proxy.dialects.stream_meter import StreamMeter, clean_label, member_pattern
from apps.proxy.estimate import tokens_of_quarters
from apps.proxy.sse import event_data, first_data

_TEXT_KEYS: Final = (b"text", b"thinking", b"partial_json")
# A thought that is not shown comes in one piece at its end.
_SEALS: Final = re.compile(
    rb'"signature":\s*+"([^"\\]++)"|"type":\s*+"redacted_thinking",\s*+"data":\s*+"([^"\\]++)"'
)
_SEARCHED: Final = b'"web_search_tool_result"'
_FOUND: Final = re.compile(rb'"encrypted_content":\s*+"([^"\\]++)"')
_TOOL_USE: Final = re.compile(rb'"type":\s*+"tool_use"')


class AnthropicStreamMeter(StreamMeter):
    """Follows the events of a message, which ends with `message_stop`."""

    VALUED = (b'"stop_reason"', b'"usage"')
    MARKS = (b'"message_stop"', b'"error"', b"event: error", b"event:error")
    TEXTS = {key: member_pattern(key) for key in _TEXT_KEYS}
    THOUGHTS = (b"thinking",)

    __slots__ = ("_found_characters", "_is_billed_refusal", "_reported", "_searches")

    def __init__(self) -> None:
        super().__init__()
        self._reported: dict[str, Any] = {}
        self._is_billed_refusal = False
        self._searches = 0
        self._found_characters = 0  # of pages that searches found, sealed in base64

    def is_whole(self, choices: int) -> bool:
        """Return whether the stream has told its end: nothing else is one."""
        return self.done_seen

    def begins_an_answer(self, block: bytes) -> bool | None:
        """Return whether the first event is the start of a message, None where there is none yet:
        pings tell nothing.
        """
        first = first_data(block)
        if not first:
            return None
        document = load_chunk(first)
        if document is not None and document.get("type") == "ping":
            return True if b"message_start" in block else None
        return document is not None and document.get("type") == "message_start"

    def _observe_event(self, event: bytes) -> bool:
        data = event_data(event)
        if not data:
            return True  # A comment.
        document = load_chunk(data)
        kind = document.get("type") if document is not None else None
        if document is None or kind == "error" or (kind is None and is_error(event, document)):
            self._fail(document or {})
            return False
        if kind == "message_stop":
            self.done_seen = True
            self.last_frame = event
            return False
        self._keep(event)
        if kind == "message_start":
            message = document.get("message")
            self._take_usage(message if isinstance(message, dict) else {})
        elif kind == "message_delta":
            delta = document.get("delta")
            ended = delta if isinstance(delta, dict) else {}
            self.finish_reason = clean_label(ended.get("stop_reason")) or self.finish_reason
            self._is_billed_refusal = self._is_billed_refusal or is_billed_refusal(ended)
            self._take_usage(document)
        return True

    def _take_usage(self, holder: dict[str, Any]) -> None:
        usage = holder.get("usage")
        if not isinstance(usage, dict):
            return
        self._reported = merge_usage(self._reported, usage)
        self._report(parse_anthropic_usage(self._reported))
        self.service_tier = clean_label(usage.get("service_tier")) or self.service_tier

    def _tells_of_output(self, usage: Usage) -> bool:
        # The first event counts a token or more before there is anything.
        has_output = usage.output_tokens > 0 or self._is_billed_refusal
        return self._is_usage_final and has_output

    def _is_early(self, usage: Usage) -> bool:
        # Until the last event but one no usage tells of the answer.
        return True

    def final_usage(self, *, estimated_input_tokens: int) -> Usage:
        """Return the usage to charge, with the searches that were seen."""
        usage = super().final_usage(estimated_input_tokens=estimated_input_tokens)
        if usage.source == "none":
            return usage
        return usage._replace(web_search=max(usage.web_search, self._searches))

    def _found_tokens(self) -> int:
        # Only the usage at the end counts what was found to what was read.
        return tokens_of_quarters(self._found_characters * 3 // 4)

    def _count(self, raw: bytes) -> None:
        for signature, data in _SEALS.findall(raw):
            self._sealed_characters += len(signature) + len(data)
        searches = raw.count(_SEARCHED)
        if searches:
            # One that failed is told by another name within, and is not billed.
            searches -= raw.count(b'"web_search_tool_result_error"')
            self._searches += max(searches, 0)
            self._has_content = True
            self._found_characters += sum(map(len, _FOUND.findall(raw)))
        for key in _TEXT_KEYS:
            self._count_text(raw, key)
        if not self._has_content:
            self._has_content = _TOOL_USE.search(raw) is not None
