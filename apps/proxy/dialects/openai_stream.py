"""The meter of a stream in OpenAI's dialect: what goes on to the client, and what it cost.

The meter is given complete events. Almost all of them pass after a scan of their bytes; only those
that hold usage, a finish reason, an error or the end are parsed. Text is kept in bounded pieces
and counted in batches, for the case that no usage is reported. Over 400 lines because it is one
machine over one state.
"""

import re
from collections.abc import Iterator
from typing import Any, Final

from apps.core.errors import GatewayError
from apps.core.usage import Usage
from apps.proxy.dialects.json_strings import text_of, unescape
from apps.proxy.dialects.openai_chunks import error_code, find_usage, is_error, load_chunk
from apps.proxy.dialects.openai_request import CHOICES_MAX
from apps.proxy.dialects.openai_usage import parse_usage
from apps.proxy.dialects.plausibility import (
    is_plausible,
    needs_no_look,
    tells_enough,
    tells_too_little,
)
from apps.proxy.estimate import Excerpt, estimate_quarters, tokens_of_quarters
from apps.proxy.media import streamed_tokens
from apps.proxy.sse import event_data, is_done, split_events

# Quotes inside a JSON string are escaped, so a key can never be found within a text.
_MEMBERS: Final = (
    rb'"(?:(?:usage|finish_reason|error)"\s*+:\s*+(?!null)|(?:object|type)"\s*+:\s*+"error")'
)

SPECIAL: Final = re.compile(
    _MEMBERS + rb"|(?:^|[\r\n])(?:data: ?\[DONE\]|event: ?error)",
)
"""Matches in a block of complete events if one of them needs a closer look."""

# What an event that matters holds at least one of: one of these members that is not null, or one of
# these marks. To look for texts is some four times as quick as for one pattern with alternatives.
_VALUED: Final = (b'"finish_reason"', b'"usage"')
_NULL: Final = (b": null", b":null")
_MARKS: Final = (b'"error"', b"[DONE]", b"event:")

_BATCH_BYTES: Final = 16 * 1024
# How much of the text of a stream is kept for a count of its tokens, in case no usage comes: some
# eight thousand tokens; one batch more at most.
_EXCERPT_BYTES: Final = 32 * 1024
_LABEL_LENGTH_MAX: Final = 200

_STRING: Final = rb'"([^"\\]*+(?:\\.[^"\\]*+)*+)"'
_TEXT_KEYS: Final = (b"content", b"refusal", b"arguments", b"reasoning_content", b"reasoning")
_TEXTS: Final = {
    key: re.compile(rb'"' + key + rb'":\s*+' + _STRING, re.DOTALL)
    for key in (*_TEXT_KEYS, b"text", b"thinking", b"transcript")
}
# Sent twice by some servers, under both names.
_SYNONYMS: Final = (b"reasoning_content", b"reasoning")
_TOOL_DELTA: Final = re.compile(rb'"(?:tool_calls":\s*+\[\s*+\{|function_call":\s*+\{)')
# Mistral: content as an array of typed parts.
_CONTENT_PARTS: Final = re.compile(rb'"content":\s*+\[\s*+\{\s*+"type"')
_IMAGES_KEY: Final = b'"images"'
_IMAGE: Final = re.compile(rb'"image_url":\s*+[{"]')
_AUDIO: Final = re.compile(rb'"audio":\s*+\{')
_AUDIO_DATA: Final = re.compile(rb'"data":\s*+"([A-Za-z0-9+/=]*+)"')
_ID: Final = re.compile(rb'"id":\s*+' + _STRING)
_MODEL: Final = re.compile(rb'"model":\s*+' + _STRING)


def clean_label(value: object) -> str | None:
    """Return a short printable name that an upstream gave, None if it is anything else."""
    if isinstance(value, str) and value.isprintable() and 0 < len(value) <= _LABEL_LENGTH_MAX:
        return value
    return None


class StreamMeter:
    """Follows one stream, event by event.

    After an event that ends the stream, `done_seen` is set, or `error`, and nothing goes on any
    more: the end waits for the commit of the charge, an error is told in our own words.
    """

    __slots__ = (
        "_audio_characters",
        "_batch",
        "_batch_bytes",
        "_bytes",
        "_events",
        "_excerpt_bytes",
        "_excerpts",
        "_finished",
        "_has_audio",
        "_has_content",
        "_id",
        "_images",
        "_is_completion",
        "_is_usage_final",
        "_model",
        "_quarters",
        "_strip_usage",
        "_usage_was_unusable",
        "done_seen",
        "error",
        "finish_reason",
        "service_tier",
        "upstream_error_code",
        "usage",
    )

    def __init__(self, *, strip_usage: bool, is_completion: bool = False) -> None:
        """`strip_usage`: the client did not ask for the event that holds nothing but usage."""
        self._strip_usage = strip_usage
        self._is_completion = is_completion
        self._batch: list[bytes] = []
        self._batch_bytes = 0
        self._bytes = 0
        self._events = 0
        self._audio_characters = 0  # of sound, in base64
        self._has_audio = False
        self._has_content = False
        self._images = 0
        self._id: str | None = None
        self._model: str | None = None
        self._quarters: dict[bytes, int] = {}
        self._excerpts: dict[bytes, list[bytes]] = {}
        self._excerpt_bytes = 0
        self._usage_was_unusable = False
        self._finished = 0  # a bit for each choice
        self._is_usage_final = False  # it came when an answer had ended
        self.usage: Usage | None = None  # the last one reported
        self.finish_reason: str | None = None
        self.service_tier: str | None = None  # that it served, where it says so at the end
        self.done_seen = False
        self.error: GatewayError | None = None
        self.upstream_error_code: str | None = None  # for the record, if it is a known one

    def observe(self, block: bytes) -> bytes:
        """Return what of a block of complete events goes on to the client now."""
        if self.done_seen or self.error is not None:
            return b""
        hints = _find_hints(block)
        if hints:
            return self._observe_events(block, hints)
        self._keep(block)
        return block

    @property
    def saw_content(self) -> bool:
        """Return whether the model produced anything: text, reasoning, refusal or a tool call."""
        self._count_batch()
        return self._has_content

    @property
    def finished_choices(self) -> int:
        """Return how many choices have told why they ended."""
        return self._finished.bit_count()

    @property
    def events(self) -> int:
        """Return the number of lines of data so far."""
        self._count_batch()
        return self._events

    @property
    def upstream_id(self) -> str | None:
        """Return the upstream's own id of the answer."""
        if self._id is None and self._batch:
            self._identify(b"".join(self._batch))
        return self._id

    @property
    def upstream_model(self) -> str | None:
        """Return the model that the upstream says it ran."""
        self._count_batch()
        return self._model

    def estimated_output_tokens(self) -> int:
        """Return an estimate of the tokens the model produced so far."""
        self._count_batch()
        return self._counted_tokens()

    def _counted_tokens(self) -> int:
        quarters = sum(
            count for key, count in self._quarters.items() if key not in _SYNONYMS
        ) + max(self._quarters.get(key, 0) for key in _SYNONYMS)
        # A tool call without arguments has no text, and is at least one token.
        return max(tokens_of_quarters(quarters), 1 if self._has_content else 0)

    def excerpts(self) -> list[Excerpt]:
        """Return the beginning of each kind of text the model produced so far."""
        self._count_batch()
        sizes = self._quarters
        doubled = min(_SYNONYMS, key=lambda key: sizes.get(key, 0))
        return [
            Excerpt(text_of(b"".join(self._excerpts.get(key, ()))), size)
            for key, size in sizes.items()
            if key != doubled
        ]

    def final_usage(self, *, estimated_input_tokens: int) -> Usage:
        """Return the usage to charge, whichever way the stream ended.

        Reported usage wins, unless it came too early to tell of the answer. Without it, what was
        received is estimated; where nothing was produced, there is nothing to charge and the
        source is "none".
        """
        reported = self.usage
        # Also without visible content: reasoning alone can use up the maximum.
        if not (reported is not None and reported.output_tokens) and not self.saw_content:
            return Usage()
        if reported is not None and reported.total_tokens:
            usage = self._judged(reported)
        else:
            usage = Usage(
                input=estimated_input_tokens,
                output=self.estimated_output_tokens(),
                audio_out=self._spoken_tokens(),
                source="estimated",
                is_suspect=self._usage_was_unusable or reported is not None,
            )
        images = self._count_images()
        return usage._replace(image=images) if images > usage.image else usage

    def _judged(self, usage: Usage) -> Usage:
        """Return a reported usage, as suspect where what was delivered belies it.

        Its output is replaced by an estimate where more was delivered after it, and no other came.
        """
        if not self._is_plausible(usage):
            return usage._replace(is_suspect=True)
        is_final = self.done_seen or self._is_usage_final
        if not is_final or not tells_enough(usage, streamed_bytes=self._bytes):
            self._count_batch()
        written, spoken = self._counted_tokens(), self._spoken_tokens()
        is_early = not is_final and not usage.output_tokens
        if not is_early and not tells_too_little(usage, delivered_tokens=written + spoken):
            return usage
        if is_final:
            return usage._replace(is_suspect=True)
        # A count that a client can outrun by leaving is no report (I-27).
        return usage._replace(output=written, reasoning=0, audio_out=spoken, source="estimated")

    def _is_plausible(self, usage: Usage) -> bool:
        if needs_no_look(usage, streamed_bytes=self._bytes):
            return True
        delivered = self.estimated_output_tokens()
        if self._images or self._has_audio:
            return True
        return is_plausible(usage, delivered_tokens=delivered)

    def _spoken_tokens(self) -> int:
        return streamed_tokens(self._audio_characters * 3 // 4)

    def _count_images(self) -> int:
        """Return how many images the model sent, beside its text (OpenRouter)."""
        if any(_IMAGES_KEY in block for block in self._batch):
            self._count_batch()
        return self._images

    def _keep(self, block: bytes) -> None:
        self._batch.append(block)
        self._batch_bytes += len(block)
        self._bytes += len(block)
        if self._batch_bytes > _BATCH_BYTES:
            self._count_batch()

    def _count_batch(self) -> None:
        """Count what was kept, and let it go."""
        if not self._batch:
            return
        raw = b"".join(self._batch)
        self._batch.clear()
        self._batch_bytes = 0
        self._events += raw.startswith(b"data:") + raw.count(b"\ndata:")
        if b"\r" in raw:
            self._events += raw.count(b"\rdata:")
        if self._model is None:
            self._identify(raw)
        keys = list(_TEXT_KEYS)
        if self._is_completion:
            keys.append(b"text")
        if _AUDIO.search(raw) is not None:
            self._has_audio = True
            sounds = _AUDIO_DATA.findall(raw)
            self._audio_characters += sum(map(len, sounds))
            self._has_content = self._has_content or any(sounds)
            keys.append(b"transcript")
        if _CONTENT_PARTS.search(raw) is not None:
            keys += [b"text", b"thinking"]
        for key in keys:
            if key in raw:
                text = b"".join(_TEXTS[key].findall(raw))
                if text:
                    self._has_content = True
                    size = estimate_quarters(unescape(text))
                    self._quarters[key] = self._quarters.get(key, 0) + size
                    if self._excerpt_bytes < _EXCERPT_BYTES:
                        self._excerpts.setdefault(key, []).append(text)
                        self._excerpt_bytes += len(text)
        if _IMAGES_KEY in raw:
            self._images += len(_IMAGE.findall(raw))
            self._has_content = self._has_content or self._images > 0
        if not self._has_content:
            self._has_content = _TOOL_DELTA.search(raw) is not None

    def _identify(self, raw: bytes) -> None:
        model = _MODEL.search(raw)
        identifier = _ID.search(raw)
        if model is not None:
            self._model = clean_label(text_of(model[1]))
        if identifier is not None and self._id is None:
            self._id = clean_label(text_of(identifier[1]))

    def _observe_events(self, block: bytes, hints: list[int]) -> bytes:
        going_on: list[bytes] = []
        for part, may_matter in _parts(block, hints):
            if not may_matter or SPECIAL.search(part) is None:
                self._keep(part)
                going_on.append(part)
            elif is_done(part):
                self.done_seen = True
                break
            elif self._inspect(part):
                going_on.append(part)
            if self.error is not None:
                break
        return b"".join(going_on)

    def _inspect(self, event: bytes) -> bool:
        """Take in an event that matters, and return whether it goes on to the client."""
        document = load_chunk(event_data(event))
        if document is None or is_error(event, document):
            self._fail(document or {})
            return False
        self._keep(event)
        choices = document.get("choices")
        for choice in choices if isinstance(choices, list) else ():
            if isinstance(choice, dict) and choice.get("finish_reason") is not None:
                self.finish_reason = clean_label(choice["finish_reason"])
                if self.finish_reason:  # Some servers send "" until then.
                    at = choice.get("index")
                    at = at if type(at) is int and 0 <= at < CHOICES_MAX else 0
                    self._finished |= 1 << at
                if self.finish_reason == "error":
                    self._fail(document)
                    return False
        if "service_tier" in document:
            self.service_tier = clean_label(document["service_tier"]) or self.service_tier
        reported = find_usage(document)
        if reported is None:
            return True
        usage = parse_usage(reported)
        if usage is None:
            self._usage_was_unusable = True
        else:
            # It is cumulative where it comes more than once: the last one counts (I-30).
            self.usage = usage
            self._is_usage_final = self.finish_reason is not None
        return bool(choices) or not self._strip_usage

    def _fail(self, document: dict[str, Any]) -> None:
        self.upstream_error_code = error_code(document)
        self.error = GatewayError("E60")


def _find_hints(block: bytes) -> list[int]:
    """Return the places in a block where something stands that may matter, in order."""
    found: list[int] = []
    for name in _VALUED:
        at = block.find(name)
        while at >= 0:
            end = at + len(name)
            if not block.startswith(_NULL, end):
                found.append(at)
            at = block.find(name, end)
    for mark in _MARKS:
        at = block.find(mark)
        while at >= 0:
            found.append(at)
            at = block.find(mark, at + len(mark))
    found.sort()
    return found


def _parts(block: bytes, hints: list[int]) -> Iterator[tuple[bytes, bool]]:
    """Yield a block in parts, and of each whether it is one event that may need a closer look.

    What lies between those events is not cut apart.
    """
    if b"\r" in block:
        yield from ((event, True) for event in split_events(block))
        return
    start = 0
    for position in hints:
        if position < start:
            continue  # In an event that has been yielded.
        before = block.rfind(b"\n\n", start, position)
        begin = start if before < 0 else before + 2
        after = block.find(b"\n\n", position)
        end = len(block) if after < 0 else after + 2
        if begin > start:
            yield block[start:begin], False
        yield block[begin:end], True
        start = end
    if start < len(block):
        yield block[start:], False
