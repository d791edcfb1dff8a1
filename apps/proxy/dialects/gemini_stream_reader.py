"""Reads streams of Google's generateContent: complete events in, deltas out.

Each event is a whole response with what is new. Calls of functions come whole. There is no last
event: the stream is complete when its body ends after a reason to finish, which some models tell
with every event. The usage is cumulative and comes with every event: the last one counts.

Source: https://ai.google.dev/api/generate-content#method:-models.streamgeneratecontent
"""

from collections.abc import Mapping
from typing import Any, Final, Literal

from apps.core.errors import GatewayError
from apps.core.usage import Usage
from apps.proxy.dialects.gemini_answer import (
    FAILURES,
    Unreadable,
    block_reason,
    first_candidate,
    parts_of,
    stop_reason,
    text_of,
    tool_use,
)
from apps.proxy.dialects.gemini_parameters import member, word
from apps.proxy.dialects.gemini_parts import signed_thought
from apps.proxy.dialects.gemini_searches import Searches, with_searches
from apps.proxy.dialects.gemini_usage import parse_gemini_usage
from apps.proxy.dialects.neutral import (
    ArgumentsPiece,
    Delta,
    Done,
    Failure,
    PartEnd,
    RedactedThinking,
    Start,
    Stop,
    TextPiece,
    ThinkingPiece,
    ToolStart,
    UsageReport,
)
from apps.proxy.dialects.openai_chunks import load_chunk
from apps.proxy.sse import events_with_data

_DECLINED: Final = "SAFETY"


class GeminiStreamReader:
    """Follows one stream. After `Done` or `Failure` it gives nothing any more."""

    __slots__ = (
        "_calls",
        "_id",
        "_is_over",
        "_is_started",
        "_open",
        "_reason",
        "_searches",
        "_usage",
    )

    def __init__(self) -> None:
        self._open: Literal["text", "thinking"] | None = None
        self._calls = 0
        self._id = ""
        self._reason: str | None = None
        self._searches = Searches()
        self._usage: Mapping[str, Any] | None = None
        self._is_started = False
        self._is_over = False

    def read(self, block: bytes) -> list[Delta]:
        """Return what a block of complete events says."""
        deltas: list[Delta] = []
        for _, data in events_with_data(block):
            if self._is_over:
                break
            document = load_chunk(data)
            if document is None or document.get("error") is not None:
                self._fail(document or {}, deltas)
                continue
            try:
                self._take(document, deltas)
            except Unreadable:
                self._fail(document, deltas)
        return deltas

    def end(self) -> list[Delta]:
        """Return what the end of the body says: nothing where it came too early."""
        if self._is_over or self._reason is None:
            return []
        deltas: list[Delta] = []
        self._close(deltas)
        usage = self._known_usage()
        if usage is not None:
            deltas.append(UsageReport(usage))
        if self._reason in FAILURES:
            self._fail({}, deltas)
            return deltas
        self._is_over = True
        deltas += (Stop(stop_reason(self._reason, has_tools=self._calls > 0)), Done())
        return deltas

    def _fail(self, document: dict[str, Any], deltas: list[Delta]) -> None:
        self._is_over = True
        deltas.append(Failure(GatewayError("E60")))

    def _known_usage(self) -> Usage | None:
        usage = None if self._usage is None else parse_gemini_usage(self._usage)
        return None if usage is None else with_searches(usage, self._searches.count)

    def _take(self, document: dict[str, Any], deltas: list[Delta]) -> None:
        usage = member(document, "usageMetadata")
        if isinstance(usage, dict):
            self._usage = usage
        candidate = first_candidate(document)
        if candidate is not None and member(candidate, "groundingMetadata") is not None:
            self._searches.take(document)
        if candidate is None and not block_reason(document):
            return
        if not self._is_started:
            self._is_started = True
            self._id = word(document, "responseId")
            deltas.append(Start(self._id, word(document, "modelVersion"), self._known_usage()))
        if candidate is None:
            self._reason = _DECLINED
            return
        for part in parts_of(candidate):
            self._read_part(part, deltas)
        self._reason = word(candidate, "finishReason") or self._reason

    def _read_part(self, part: Mapping[str, Any], deltas: list[Delta]) -> None:
        if len(part) == 1 and self._open == "text":
            text = part.get("text")
            if type(text) is str and text:
                # Almost all parts are such; what follows looks for everything else.
                deltas.append(TextPiece(text))
                return
        signature = word(part, "thoughtSignature")
        call = member(part, "functionCall")
        if call is not None:
            use = tool_use(call, f"{self._id} {self._calls}")
            self._sign(signature, deltas)
            self._close(deltas)
            self._calls += 1
            deltas += (ToolStart(use.id, use.name), ArgumentsPiece(use.arguments), PartEnd())
            return
        text = text_of(part)
        if part.get("thought") is True:
            if text:
                self._begin("thinking", deltas)
                deltas.append(ThinkingPiece(text))
            self._sign(signature, deltas)
            return
        self._sign(signature, deltas)
        if text:
            self._begin("text", deltas)
            deltas.append(TextPiece(text))

    def _sign(self, signature: str, deltas: list[Delta]) -> None:
        """Sign the thought that is open, or tell one that has nothing but a signature."""
        thought = signed_thought(signature)
        if thought is None:
            return
        if thought.redacted:
            self._close(deltas)
            deltas += (RedactedThinking(thought.redacted), PartEnd())
            return
        self._begin("thinking", deltas)
        deltas.append(ThinkingPiece(signature=thought.signature))
        self._close(deltas)

    def _begin(self, kind: Literal["text", "thinking"], deltas: list[Delta]) -> None:
        if self._open != kind:
            self._close(deltas)
            self._open = kind

    def _close(self, deltas: list[Delta]) -> None:
        if self._open is not None:
            self._open = None
            deltas.append(PartEnd())
