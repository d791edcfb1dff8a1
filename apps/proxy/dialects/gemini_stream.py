"""The meter of a stream of Google's generateContent.

Source: https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent. The usage
comes with every event and is cumulative: only the last one is looked at, and only when somebody
asks. The stream ends with its body; so from the reason to finish on, the last event waits for what
follows it or for the end.
"""

import re
from collections.abc import Mapping
from typing import Any, Final

import orjson

from apps.core.errors import GatewayError
from apps.core.usage import Usage
from apps.proxy.dialects.gemini_answer import block_reason, first_candidate
from apps.proxy.dialects.gemini_errors import known_code
from apps.proxy.dialects.gemini_parameters import member, word
from apps.proxy.dialects.gemini_searches import Searches, with_searches
from apps.proxy.dialects.gemini_usage import parse_gemini_usage
from apps.proxy.dialects.openai_chunks import is_error, load_chunk
from apps.proxy.dialects.stream_meter import StreamMeter, clean_label, member_pattern
from apps.proxy.media import streamed_tokens
from apps.proxy.sse import event_data, first_data, split_events

CANDIDATES_MAX: Final = 8
_USAGE: Final = b'"usageMetadata"'
_CALL: Final = b'"functionCall"'
_GROUNDING: Final = b'"groundingMetadata"'
_MEDIUM: Final = b'"mimeType"'
# Calls are objects, and counted as the text that they come to.
_ARGUMENTS: Final = b"arguments"
_TEXT: Final = b"text"
# A thought is a part with a text and a mark.
_THOUGHTS: Final = b"thoughts"
_THOUGHT: Final = re.compile(rb'"thought":\s*+true')
_MEDIA: Final = re.compile(
    rb'"mimeType":\s*+"(image|audio)/[^"]*+",\s*+"data":\s*+"([A-Za-z0-9+/=_-]*+)"'
)


class GeminiStreamMeter(StreamMeter):
    """Follows the events of an answer, which ends with the body after a reason to finish."""

    VALUED = (b'"finishReason"', b'"blockReason"', b'"error"')
    MARKS = (b"event: error", b"event:error")
    TEXTS = {_TEXT: member_pattern(_TEXT)}
    THOUGHTS = (_THOUGHTS,)
    ID = member_pattern(b"responseId")
    MODEL = member_pattern(b"modelVersion")

    __slots__ = (
        "_audio_characters",
        "_finished",
        "_has_media",
        "_images",
        "_known_usage",
        "_last_usage",
        "_looked_bytes",
        "_read_bytes",
        "_searches",
    )

    def __init__(self, *, may_search: bool = False) -> None:
        """`may_search`: Google may search the web for the answer."""
        self._known_usage: Usage | None = None
        super().__init__()
        self._audio_characters = 0  # of sound, in base64
        self._finished = 0  # a bit for each candidate
        self._has_media = False
        self._images = 0
        self._last_usage = b""  # the last events that told a usage, of those that were counted
        self._looked_bytes = 0  # up to where media were looked for
        self._read_bytes = 0  # up to where usage was read
        self._searches = Searches() if may_search else None

    # ---- the end

    def observe(self, block: bytes) -> bytes:
        """Return what goes on now: once a reason was told, not the last event with data."""
        going_on = super().observe(block)
        if self.finish_reason is None:
            return going_on
        waiting, self.last_frame = self.last_frame, b""
        if self.error is not None:
            return waiting + going_on
        sent, self.last_frame = _cut_last(waiting + going_on)
        return sent

    def is_whole(self, choices: int) -> bool:
        """Return whether each candidate has told why it ended, or the prompt was declined."""
        return self.finish_reason is not None and self._finished.bit_count() >= choices

    def begins_an_answer(self, block: bytes) -> bool | None:
        """Return whether the first event is a response; later ones are not looked into."""
        first = first_data(block or self.last_frame)
        if not first:
            return None
        document = load_chunk(first)
        return document is not None and (
            "candidates" in document or bool(block_reason(document)) or "usageMetadata" in document
        )

    # ---- events that matter

    def _observe_event(self, event: bytes) -> bool:
        if not self._find_hints(event):
            self._keep(event)
            return True
        data = event_data(event)
        if not data:
            return True  # A comment.
        document = load_chunk(data)
        if document is None or is_error(event, document):
            self._fail(document or {})
            return False
        self._keep(event)
        self._finish(document)
        usage = member(document, "usageMetadata")
        if isinstance(usage, Mapping):
            self._take_usage(usage)
            self._read_bytes = self._bytes
        return True

    def _finish(self, document: Mapping[str, Any]) -> None:
        candidates = document.get("candidates")
        for candidate in candidates if isinstance(candidates, list) else ():
            reason = word(candidate, "finishReason") if isinstance(candidate, Mapping) else ""
            if reason:
                self.finish_reason = clean_label(reason)
                at = candidate.get("index")
                at = at if type(at) is int and 0 <= at < CANDIDATES_MAX else 0
                self._finished |= 1 << at
        declined = block_reason(document)
        if declined and first_candidate(document) is None:
            self.finish_reason = clean_label(declined)
            self._finished = (1 << CANDIDATES_MAX) - 1

    def _fail(self, document: Mapping[str, Any]) -> None:
        self.upstream_error_code = known_code(document)
        self.error = GatewayError("E60")

    # ---- the usage

    @property
    def usage(self) -> Usage | None:
        """Return the last usage that was reported, which nobody read before it is asked for."""
        if self._read_bytes != self._bytes:
            self._read_bytes = self._bytes
            for block in (*reversed(self._batch), self._last_usage):
                usage = _find_usage(block)
                if usage is not None:
                    self._take_usage(usage)
                    break
        return self._known_usage

    @usage.setter
    def usage(self, usage: Usage | None) -> None:
        self._known_usage = usage

    def _take_usage(self, usage: Mapping[str, Any]) -> None:
        self._report(parse_gemini_usage(usage))
        self.service_tier = clean_label(usage.get("serviceTier")) or self.service_tier

    def final_usage(self, *, estimated_input_tokens: int) -> Usage:
        """Return the usage to charge, with the searches that were told."""
        usage = super().final_usage(estimated_input_tokens=estimated_input_tokens)
        if self._searches is None or usage.source == "none":
            return usage
        self._count_batch()
        # Google tells of them last, and searches first: who leaves before has had one.
        return with_searches(usage, self._searches.count or int(self.finish_reason is None))

    # ---- what was delivered

    def _has_unseen_output(self) -> bool:
        self._count_media()
        return self._has_media

    def _spoken_tokens(self) -> int:
        self._count_media()
        return streamed_tokens(self._audio_characters * 3 // 4)

    def _count_images(self) -> int:
        self._count_media()
        return self._images

    def _count_media(self) -> None:
        if self._looked_bytes != self._bytes:
            self._looked_bytes = self._bytes
            if any(_MEDIUM in block for block in self._batch):
                self._count_batch()

    def _count(self, raw: bytes) -> None:
        if _USAGE in raw:
            self._last_usage = raw
        self._count_text(raw if _THOUGHT.search(raw) is None else self._count_thoughts(raw), _TEXT)
        if _CALL in raw:
            self._count_calls(raw)
        if self._searches is not None and _GROUNDING in raw:
            self._find_searches(self._searches, raw)
        for kind, data in _MEDIA.findall(raw):
            self._has_media = self._has_content = True
            if kind == b"image":
                self._images += 1
            else:
                self._audio_characters += len(data)

    def _find_searches(self, searches: Searches, raw: bytes) -> None:
        for event in split_events(raw):
            document = load_chunk(event_data(event)) if _GROUNDING in event else None
            if document is not None:
                searches.take(document)

    def _count_thoughts(self, raw: bytes) -> bytes:
        """Count the texts of events that hold thoughts, and return the others."""
        others: list[bytes] = []
        for event in split_events(raw):
            document = None if _THOUGHT.search(event) is None else load_chunk(event_data(event))
            if document is None:
                others.append(event)
                continue
            candidates = document.get("candidates")
            for candidate in candidates if isinstance(candidates, list) else ():
                for text, is_thought in said_texts(candidate):
                    self._take_text(_THOUGHTS if is_thought else _TEXT, text)
        return b"".join(others)

    def _count_calls(self, raw: bytes) -> None:
        for event in split_events(raw):
            document = load_chunk(event_data(event)) if _CALL in event else None
            candidates = None if document is None else document.get("candidates")
            for candidate in candidates if isinstance(candidates, list) else ():
                for text in called_texts(candidate):
                    self._take_text(_ARGUMENTS, text)


def _cut_last(block: bytes) -> tuple[bytes, bytes]:
    """Return a block of complete events cut before the last one that holds data."""
    if b"\r" not in block:
        # The others need not be looked for.
        before = block.rfind(b"\n\n", 0, -2)
        start = 0 if before < 0 else before + 2
        if event_data(block[start:]).strip():
            return block[:start], block[start:]
    events, last = split_events(block), b""
    while events:
        last = events.pop() + last
        if event_data(last).strip():
            break
    return b"".join(events), last


def _find_usage(block: bytes) -> Mapping[str, Any] | None:
    """Return the last usage in a block of complete events."""
    if _USAGE not in block:
        return None
    for event in reversed(split_events(block)):
        document = load_chunk(event_data(event)) if _USAGE in event else None
        usage = None if document is None else member(document, "usageMetadata")
        if isinstance(usage, Mapping):
            return usage
    return None


def said_texts(candidate: object) -> list[tuple[str, bool]]:
    """Return the texts of a candidate, and of each whether it is a thought."""
    return [
        (part["text"], part.get("thought") is True)
        for part in _parts(candidate)
        if isinstance(part.get("text"), str)
    ]


def called_texts(candidate: object) -> list[str]:
    """Return the calls of functions in a candidate, each as the text that it comes to."""
    calls = [
        part["functionCall"]
        for part in _parts(candidate)
        if isinstance(part.get("functionCall"), dict)
    ]
    return [f"{call.get('name')}{orjson.dumps(call.get('args') or {}).decode()}" for call in calls]


def _parts(candidate: object) -> list[dict[str, Any]]:
    """Return the parts of a candidate, none where it is no such thing."""
    content = candidate.get("content") if isinstance(candidate, dict) else None
    parts = content.get("parts") if isinstance(content, dict) else None
    return [part for part in (parts if isinstance(parts, list) else ()) if isinstance(part, dict)]
