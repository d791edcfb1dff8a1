"""The meter of a stream: what goes on to the client, and what it cost.

The meter is given complete events. Almost all of them pass after a scan of their bytes; only those
that may hold usage, a reason to end, an error or the end are parsed. Text is counted in batches,
and a sample of it kept, for the case that no usage is reported. What is particular to a dialect is
in its subclass.

Over 400 lines because one class holds what a stream has said, and each part reads what others keep.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Final

from apps.core.errors import GatewayError
from apps.core.usage import Usage
from apps.proxy.dialects.json_strings import text_of
from apps.proxy.dialects.plausibility import (
    is_plausible,
    needs_no_look,
    tells_enough,
    tells_too_little,
)
from apps.proxy.dialects.text_samples import TextSamples
from apps.proxy.dialects.upstream_errors import error_code
from apps.proxy.dialects.usage_reader import unbilled
from apps.proxy.estimate import (
    Excerpt,
    Sizes,
    estimate_quarters,
    sizes_of,
    tokens_of_quarters,
)
from apps.proxy.sse import split_events

_NULL: Final = (b": null", b":null")
_BATCH_BYTES: Final = 16 * 1024
_LABEL_LENGTH_MAX: Final = 200
# Of the seal itself, around a thought however short.
_SEAL_CHARACTERS: Final = 256

_STRING: Final = rb'"([^"\\]*+(?:\\.[^"\\]*+)*+)"'


def member_pattern(key: bytes) -> re.Pattern[bytes]:
    """Return a pattern that finds the texts under a key; quotes inside a text are escaped, so that
    a key is never found within one.
    """
    return re.compile(rb'"' + key + rb'":\s*+' + _STRING, re.DOTALL)


_ID: Final = member_pattern(b"id")
_MODEL: Final = member_pattern(b"model")


def clean_label(value: object) -> str | None:
    """Return a short printable name that an upstream gave, None if it is anything else."""
    if isinstance(value, str) and value.isprintable() and 0 < len(value) <= _LABEL_LENGTH_MAX:
        return value
    return None


class StreamMeter(ABC):
    """Follows one stream, event by event.

    After an event that ends the stream, `done_seen` is set, or `error`, and nothing goes on any
    more: the end waits for the commit of the charge, an error is told in our own words.
    """

    # What an event that matters holds at least one of: one of these members that is not null, or
    # one of these marks. To look for texts is some four times as quick as for one pattern with
    # alternatives.
    VALUED: ClassVar[tuple[bytes, ...]]
    MARKS: ClassVar[tuple[bytes, ...]]
    # The texts of the model by their keys.
    TEXTS: ClassVar[Mapping[bytes, re.Pattern[bytes]]]
    # Of these two keys, under which the same text stands twice, only the longer one counts.
    SYNONYMS: ClassVar[tuple[bytes, ...]] = ()
    # The keys of thoughts.
    THOUGHTS: ClassVar[tuple[bytes, ...]] = ()
    ID: ClassVar[re.Pattern[bytes]] = _ID
    MODEL: ClassVar[re.Pattern[bytes]] = _MODEL

    __slots__ = (
        "_batch",
        "_batch_bytes",
        "_bytes",
        "_events",
        "_has_content",
        "_id",
        "_is_usage_final",
        "_model",
        "_quarters",
        "_samples",
        "_sealed_characters",
        "_usage_was_unusable",
        "done_seen",
        "error",
        "finish_reason",
        "last_frame",
        "service_tier",
        "stored_ids",
        "upstream_error_code",
        "usage",
    )

    def __init__(self) -> None:
        self._batch: list[bytes] = []
        self._batch_bytes = 0
        self._bytes = 0
        self._events = 0
        self._has_content = False
        self._id: str | None = None
        self._model: str | None = None
        self._quarters: dict[bytes, int] = {}
        self._samples = TextSamples()
        self._sealed_characters = 0  # of thoughts that only their provider can read
        self._usage_was_unusable = False
        self._is_usage_final = False  # it came when an answer had ended
        self.usage: Usage | None = None  # the last one reported
        self.finish_reason: str | None = None
        self.service_tier: str | None = None  # that it served, where it says so
        self.stored_ids: tuple[str, ...] = ()  # by which what its provider keeps can be named
        self.done_seen = False
        self.last_frame = b""  # what goes to the client when all is settled
        self.error: GatewayError | None = None
        self.upstream_error_code: str | None = None  # for the record, if it is a known one

    # ---- what a dialect says of its events

    @abstractmethod
    def _observe_event(self, event: bytes) -> bool:
        """Take in an event in which something may matter, and return whether it goes on now."""

    @abstractmethod
    def begins_an_answer(self, block: bytes) -> bool | None:
        """Return whether the first events are an answer's, None where they say nothing yet."""

    @abstractmethod
    def is_whole(self, choices: int) -> bool:
        """Return whether a stream that has ended holds an answer with so many choices."""

    # ---- what goes on

    def observe(self, block: bytes) -> bytes:
        """Return what of a block of complete events goes on to the client now."""
        if self.done_seen or self.error is not None:
            return b""
        hints = self._find_hints(block)
        if hints:
            return self._observe_parts(block, hints)
        self._keep(block)
        return block

    def pass_over(self, block: bytes) -> bool:
        """Take in a block of complete events that go on as they are and in which nothing matters.

        Any other is left to `observe`: then this has done nothing and returns False.
        """
        has_ended = self.finish_reason is not None or self.done_seen or self.error is not None
        if has_ended or self._find_hints(block):
            return False
        self._keep(block)
        return True

    def _find_hints(self, block: bytes) -> list[int]:
        """Return the places in a block where something stands that may matter, in order."""
        found: list[int] = []
        for name in self.VALUED:
            at = block.find(name)
            while at >= 0:
                end = at + len(name)
                if not block.startswith(_NULL, end):
                    found.append(at)
                at = block.find(name, end)
        for mark in self.MARKS:
            at = block.find(mark)
            while at >= 0:
                found.append(at)
                at = block.find(mark, at + len(mark))
        found.sort()
        return found

    def _observe_parts(self, block: bytes, hints: list[int]) -> bytes:
        going_on: list[bytes] = []
        for part, may_matter in _parts(block, hints):
            if not may_matter:
                self._keep(part)
                going_on.append(part)
            elif self._observe_event(part):
                going_on.append(part)
            if self.done_seen or self.error is not None:
                break
        return b"".join(going_on)

    def _fail(self, document: Mapping[str, Any]) -> None:
        self.upstream_error_code = error_code(document)
        self.error = GatewayError("E60")

    def _report(self, usage: Usage | None) -> None:
        """Take in a usage, None where it was not usable. The last one counts (I-30)."""
        if usage is None:
            self._usage_was_unusable = True
        else:
            self.usage = usage
            self._is_usage_final = self.finish_reason is not None

    # ---- what was delivered

    @property
    def saw_content(self) -> bool:
        """Return whether the model produced anything: text, reasoning, refusal or a tool call."""
        self._count_batch()
        return self._has_content or self._sealed_characters > 0

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
        # A tool call without arguments has no text, and is at least one token.
        return max(tokens_of_quarters(sum(self._sizes())), 1 if self._has_content else 0)

    def _sizes(self) -> Sizes:
        """Return how much text has been counted."""
        return sizes_of(Excerpt("", size, key in self.THOUGHTS) for key, size in self._counted())

    def _counted(self) -> list[tuple[bytes, int]]:
        """Return the keys of the texts that count, and their sizes in quarters of a token."""
        sizes = self._quarters
        doubled = min(self.SYNONYMS, key=lambda key: sizes.get(key, 0), default=None)
        return [(key, size) for key, size in sizes.items() if key != doubled]

    def excerpts(self) -> list[Excerpt]:
        """Return what was kept of each kind of text the model produced so far."""
        self._count_batch()
        return [
            Excerpt(self._samples.text(key), size, key in self.THOUGHTS)
            for key, size in self._counted()
        ]

    # ---- what it cost

    def final_usage(self, *, estimated_input_tokens: int) -> Usage:
        """Return the usage to charge, whichever way the stream ended.

        Reported usage wins, unless it came too early to tell of the answer. Without it, what was
        received is estimated; where nothing was produced, there is nothing to charge and the
        source is "none"; what was reported is kept with it.
        """
        reported = self.usage
        # Also without visible content: reasoning alone can use up the maximum.
        if not (reported is not None and self._tells_of_output(reported)) and not self.saw_content:
            return unbilled(reported)
        if reported is not None and reported.total_tokens:
            usage = self._judged(reported)
        else:
            self._count_batch()
            is_suspect = self._usage_was_unusable or reported is not None
            usage = self._estimated(Usage(input=estimated_input_tokens, is_suspect=is_suspect))
        images = self._count_images()
        return usage._replace(image=images) if images > usage.image else usage

    def _tells_of_output(self, usage: Usage) -> bool:
        """Return whether a reported usage says that something was written."""
        return usage.output_tokens > 0

    def _is_early(self, usage: Usage) -> bool:
        """Return whether a usage that is not final tells nothing of the output yet."""
        return not usage.output_tokens

    def _judged(self, usage: Usage) -> Usage:
        """Return a reported usage, as suspect where what was delivered belies it.

        Its output is replaced by an estimate where more was delivered after it, and no other came.
        """
        if not self._is_plausible(usage):
            return usage._replace(is_suspect=True)
        is_final = self.done_seen or self._is_usage_final
        if not is_final or not tells_enough(usage, streamed_bytes=self._bytes):
            self._count_batch()
        delivered = self._counted_tokens() + self._spoken_tokens()
        is_early = not is_final and self._is_early(usage)
        if not is_early and not tells_too_little(usage, delivered_tokens=delivered):
            return usage
        if is_final:
            return usage._replace(is_suspect=True)
        # A count that a client can outrun by leaving is no report (I-27).
        return self._estimated(usage)

    def _estimated(self, usage: Usage) -> Usage:
        """Return a usage of what was read at first, with an estimate of what came of it."""
        written, thought = self._sizes()
        # A tool call without arguments has no text, and is at least one token.
        least = 1 if self._has_content and not thought else 0
        return usage._replace(
            input=usage.input + self._found_tokens(),
            output=max(tokens_of_quarters(written), least),
            reasoning=tokens_of_quarters(thought) + self._sealed_tokens(),
            audio_out=self._spoken_tokens(),
            source="estimated",
        )

    def _is_plausible(self, usage: Usage) -> bool:
        if needs_no_look(usage, streamed_bytes=self._bytes):
            return True
        delivered = self.estimated_output_tokens()
        return self._has_unseen_output() or is_plausible(usage, delivered_tokens=delivered)

    def _has_unseen_output(self) -> bool:
        """Return whether there was output whose size its text does not tell."""
        return False

    def _sealed_tokens(self) -> int:
        """Return an estimate of the tokens of thoughts that came sealed: base64 of all of them.

        What was shown of a thought is within its seal, too, and not counted again.
        """
        characters = max(self._sealed_characters - _SEAL_CHARACTERS, 0)
        shown = tokens_of_quarters(self._sizes().thought)
        return max(tokens_of_quarters(characters * 3 // 4) - shown, 0)

    def _found_tokens(self) -> int:
        """Return an estimate of the tokens that the provider gave the model to read meanwhile."""
        return 0

    def _spoken_tokens(self) -> int:
        """Return an estimate of the tokens that were spoken."""
        return 0

    def _count_images(self) -> int:
        """Return how many images the model sent, beside its text."""
        return 0

    # ---- batches

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
        self._count(raw)

    @abstractmethod
    def _count(self, raw: bytes) -> None:
        """Count what some events brought, by `_count_text` and whatever else there is."""

    def _count_text(self, raw: bytes, key: bytes) -> None:
        """Count all texts under a key."""
        if key not in raw:
            return
        self._take_text(key, text_of(b"".join(self.TEXTS[key].findall(raw))))

    def _take_text(self, key: bytes, text: str) -> None:
        """Count a text, as one of those under a key."""
        if text:
            self._has_content = True
            self._quarters[key] = self._quarters.get(key, 0) + estimate_quarters(text)
            self._samples.take(key, text)

    def _identify(self, raw: bytes) -> None:
        model = self.MODEL.search(raw)
        identifier = self.ID.search(raw)
        if model is not None:
            self._model = clean_label(text_of(model[1]))
        if identifier is not None and self._id is None:
            self._id = clean_label(text_of(identifier[1]))


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
