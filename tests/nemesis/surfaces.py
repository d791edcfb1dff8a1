"""How clients of each dialect call, and by what they know that an answer is whole. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from random import Random
from typing import Any, Final

_SAID: Final = "Say it."
# Anthropic's clients have to say how much may be written; more than any model here writes.
OUTPUT_MAX: Final = 4_096
_TAIL_BYTES: Final = 4_096
# More than the longest of the marks, any of which the network may cut in two.
_CARRIED_BYTES: Final = 128
_EVENT: Final = re.compile(rb"(?:^|\n)event: ([a-z_.]+)\r?\n")


@dataclass(frozen=True, slots=True)
class Surface:
    """One way to call a gateway. The marks stand in what is answered, as bytes."""

    name: str
    dialect: str
    whole: bytes  # in every whole answer
    word: bytes  # in every event that has a word, once
    words_before: int  # events with that mark and without a word
    finish: bytes  # where it stands why the answer ends, before usage where that comes last
    error: bytes  # in what tells inside a stream that it has failed
    ends: tuple[bytes, ...] = ()  # names of the events by which a stream is over; none: others tell

    @property
    def is_array(self) -> bool:
        """Whether a stream is one JSON array."""
        return self.name == "gemini-array"

    def path(self, model: str, *, is_stream: bool) -> str:
        """Return where a model is called."""
        if self.dialect != "gemini":
            return _PATHS[self.dialect]
        method = "streamGenerateContent" if is_stream else "generateContent"
        query = "?alt=sse" if is_stream and not self.is_array else ""
        return f"/v1beta/models/{model}:{method}{query}"

    def headers(self, key: str) -> dict[str, str]:
        """Return the headers of a call, with the key where this dialect's clients put it."""
        told = {"content-type": "application/json"}
        if self.dialect == "gemini":
            return told | {"x-goog-api-key": key}
        if self.dialect == "anthropic":
            return told | {"x-api-key": key, "anthropic-version": "2023-06-01"}
        return told | {"authorization": f"Bearer {key}"}

    def body(self, model: str, *, is_stream: bool, random: Random | None = None) -> dict[str, Any]:
        """Return what is asked; `random` leaves open what clients leave open."""
        turn: dict[str, Any] = {"role": "user", "content": _SAID}
        if self.dialect == "gemini":
            return {"contents": [{"role": "user", "parts": [{"text": _SAID}]}]}
        asked: dict[str, Any] = {"model": model}
        if is_stream:
            asked["stream"] = True
        if self.dialect == "anthropic":
            return asked | {"max_tokens": OUTPUT_MAX, "messages": [turn]}
        if self.dialect == "openai-responses":
            keeps = {} if random is None or random.random() < 0.5 else {"store": False}
            return asked | {"input": _SAID} | keeps
        if is_stream and random is not None and random.random() < 0.5:
            asked["stream_options"] = {"include_usage": random.random() < 0.7}
        return asked | {"messages": [turn]}


_PATHS: Final = {
    "openai": "/v1/chat/completions",
    "anthropic": "/v1/messages",
    "openai-responses": "/v1/responses",
}
OPENAI: Final = Surface(
    "openai",
    "openai",
    whole=b'"choices":[{',
    word=b'"content":',
    words_before=1,
    finish=b'"finish_reason":"stop"',
    error=b'data: {"error":',
)
ANTHROPIC: Final = Surface(
    "anthropic",
    "anthropic",
    whole=b'"type":"message"',
    word=b'"type":"text_delta"',
    words_before=0,
    finish=b'"type":"content_block_stop"',
    error=b"event: error\n",
    ends=(b"message_stop",),
)
GEMINI: Final = Surface(
    "gemini",
    "gemini",
    whole=b'"candidates":[{',
    word=b'"text":',
    words_before=0,
    finish=b'"finishReason":"',
    error=b'data: {"error":',
)
GEMINI_ARRAY: Final = replace(GEMINI, name="gemini-array", error=b'{"error":{"code":')
RESPONSES: Final = Surface(
    "openai-responses",
    "openai-responses",
    whole=b'"object":"response"',
    word=b'"type":"response.output_text.delta"',
    words_before=0,
    finish=b'"type":"response.output_text.done"',
    error=b"event: error\n",
    ends=(b"response.completed", b"response.incomplete"),
)
SURFACES: Final = (OPENAI, ANTHROPIC, GEMINI, GEMINI_ARRAY, RESPONSES)
DIALECTS: Final = ("openai", "anthropic", "gemini", "openai-responses")


def dialect_of(path: str) -> str:
    """Return the dialect of a call by its path, of a gateway or of a provider."""
    if "/models/" in path:
        return "gemini"
    names = [name for name, known in _PATHS.items() if path == known]
    return names[0] if names else "openai"


class Follower:
    """Follows a stream as its client does, whatever pieces it comes in."""

    def __init__(self, surface: Surface) -> None:
        self.surface = surface
        self.tail = b""
        self.words = 0
        self.has_finish = False
        self.has_error = False
        self._carried = b""
        self._event = b""  # the name of the latest

    def feed(self, data: bytes) -> None:
        """Take what has come."""
        surface = self.surface
        seen = self._carried + data
        # A mark that began in what was carried is counted now, one that ended there was counted.
        kept = len(surface.word) - 1
        self.words += (self._carried[-kept:] + data).count(surface.word)
        self.has_finish = self.has_finish or surface.finish in seen
        self.has_error = self.has_error or surface.error in seen
        for name in _EVENT.findall(seen):
            self._event = name
        self._carried = seen[-_CARRIED_BYTES:]
        self.tail = (self.tail + data)[-_TAIL_BYTES:]

    def is_over(self, *, is_clean: bool) -> bool:
        """Return whether its end was seen; some dialects have none but that of the answer."""
        surface = self.surface
        if surface.is_array:
            return is_clean and self.has_finish and self.tail.endswith(b"]")
        if not self.tail.endswith((b"\n\n", b"\n\r\n")):
            return False
        if surface.dialect == "gemini":
            return is_clean and self.has_finish
        if surface.ends:
            return self._event in surface.ends
        return self.tail.endswith(b"data: [DONE]\n\n")
