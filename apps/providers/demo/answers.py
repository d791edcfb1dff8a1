"""Deterministic answers before any dialect writes them: what is asked, what is said, what it uses.

A dialect (`dialects/`) reads a request into an `Asked` and writes an `Answer` as JSON or events.
Every rendering carries `ID_MARK` where the call's own id belongs, so that renderings can be kept
and each call costs one `bytes.replace`. Token counts: `output` includes reasoning, and `prompt`
includes what was read from and written to a cache, as OpenAI's do.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from enum import StrEnum
from itertools import cycle, islice
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from apps.providers.demo.dialects.dialect import DemoDialect

# OpenAI's ids have 29 characters after their prefix. The mark cannot occur in JSON text by chance.
ID_MARK = b"@#" * 14 + b"@"
CREATED = int(time.time())
UNLIMITED = 2**31

_WORDS = (
    " This", " answer", " costs", " nothing", ":", " it", " comes", " from", " a", " café",
    " without", " a", " model", ",", " naïve", " –", " yet", " always", " the", " same", " 文", ".",
)  # fmt: skip


class Endpoint(StrEnum):
    """What was called."""

    CHAT = "chat/completions"
    COMPLETION = "completions"
    EMBEDDING = "embeddings"
    MODERATION = "moderations"
    RERANK = "rerank"
    MODELS = "models"
    MESSAGES = "messages"
    COUNT = "messages/count_tokens"
    RESPONSES = "responses"
    COUNT_INPUT = "responses/input_tokens"
    STORED_RESPONSE = "responses/{id}"
    STORED_INPUT = "responses/{id}/input_items"
    GENERATE = "generateContent"
    STREAM_GENERATE = "streamGenerateContent"
    COUNT_CONTENT = "countTokens"
    EMBED_CONTENT = "embedContent"
    EMBED_CONTENTS = "batchEmbedContents"


@dataclass(frozen=True, slots=True)
class Spoiled:
    """An absurd value in the place of one count of a usage, or of all."""

    literal: bytes | None  # JSON, or nearly; None: the count is missing
    field: str = ""  # empty: all

    def apply(self, counts: dict[str, Any]) -> dict[str, Any]:
        """Return the usage with the value in it."""
        every = [name for name, count in counts.items() if isinstance(count, int)]
        chosen = [name for name in every if self.field in ("", name)]
        if self.literal is None:
            return {name: part for name, part in counts.items() if name not in chosen}
        # A Fragment is written as it stands, so NaN and numbers of any size are possible.
        return counts | dict.fromkeys(chosen, orjson.Fragment(self.literal))


@dataclass(frozen=True, slots=True)
class Usage:
    """What is reported as used."""

    prompt: int
    output: int = 0
    cached: int = 0  # of the prompt
    written_5m: int = 0  # of the prompt, into a cache that lasts five minutes
    written_1h: int = 0
    reasoning: int = 0  # of the output
    spoiled: Spoiled | None = None


@dataclass(frozen=True, slots=True)
class Function:
    """A tool that a request offers."""

    name: str
    schema: Any


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a request asks about the form of its answer."""

    functions: tuple[Function, ...] = ()
    choice: str = "auto"  # auto, none, any (one has to be called), or named
    named: str | None = None
    told: str | None = None  # what a tool answered, where that is the last message
    is_json: bool = False
    schema: Any = None  # of a structured answer
    schema_param: str = "response_format"  # what the client called it


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for."""

    prompt_tokens: int
    wishes: Wishes | None = None  # None: free text
    is_stream: bool = False
    wants_usage: bool = True  # in a stream
    maximum: int = UNLIMITED  # output tokens
    count: int = 1  # of choices
    shows_reasoning: bool = False
    is_stored: bool = False
    service_tier: str = "default"
    data: bytes = b""  # JSON: what the answer repeats of the request


@dataclass(frozen=True, slots=True)
class Choice:
    """What is said: text in pieces of one token each, or a tool call's arguments.

    `finish_reason` is one of stop, length and tool_calls; empty where none is told.
    """

    pieces: tuple[str, ...]
    finish_reason: str
    tool: str | None = None

    @property
    def text(self) -> str:
        """Return the pieces as one text."""
        return "".join(self.pieces)

    @property
    def tokens(self) -> int:
        """Return the visible output tokens: the name of a tool counts as one."""
        return len(self.pieces) + (self.tool is not None)


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer before it is written as JSON or events."""

    dialect: DemoDialect
    endpoint: Endpoint
    model: str
    is_stream: bool
    choice: Choice
    choice_count: int
    prompt_tokens: int
    reasoning_tokens: int  # of each choice
    usage: Usage | None  # None: none is reported
    has_usage_event: bool  # a stream tells its usage at its end
    has_null_usage: bool = False  # every other chunk of a stream says "usage": null
    shows_reasoning: bool = False
    is_stored: bool = False  # can be had again by its id
    data: bytes = b""  # JSON: the whole body, or the part of it that is no choice
    service_tier: str = "default"  # that it says it served

    @property
    def output_tokens(self) -> int:
        """Return the output tokens of all choices, reasoning included."""
        return (self.choice.tokens + self.reasoning_tokens) * self.choice_count

    @property
    def thoughts(self) -> tuple[str, ...]:
        """Return the reasoning that is shown, in pieces of one token each."""
        return make_pieces(self.reasoning_tokens) if self.shows_reasoning else ()


@dataclass(frozen=True, slots=True)
class Event:
    """One piece of a stream, whole: mostly a server-sent event."""

    data: bytes
    tokens: int = 0  # output tokens it delivers
    has_usage: bool = False
    is_content: bool = False  # of the text or of the tool's arguments
    is_finish: bool = False  # says why the answer ends
    is_end: bool = False  # what a reader takes for the end of the stream


def make_pieces(count: int) -> tuple[str, ...]:
    """Return that many tokens of text, always the same."""
    return tuple(
        piece.lstrip() if at == 0 else piece
        for at, piece in enumerate(islice(cycle(_WORDS), count))
    )
