"""What all dialects share in reading what a provider says was used.

Numbers come from a foreign system: what is no whole number between 0 and TOKENS_MAX, and parts that
exceed their whole, make a usage suspect, never negative (I-28). Dialects differ in what a whole
includes; here every token ends in exactly one class (I-29).
"""

from collections.abc import Iterable, Mapping
from math import ceil
from typing import Any, Final

from apps.core.usage import Usage

# Of one kind in one call, tokens and pieces alike: more than any model can handle.
TOKENS_MAX: Final = 10_000_000
# A breakdown has an entry per modality, per lifetime of a cache or per pass of the model.
_ENTRIES_MAX: Final = 64


class UsageReader:
    """Reads counts from objects and remembers whether one of them was not a count."""

    __slots__ = ("is_suspect",)

    def __init__(self) -> None:
        self.is_suspect = False

    def read(self, mapping: Mapping[str, Any], *names: str) -> int | None:
        """Return the first of these counts that is there; null counts as absent."""
        for name in names:
            value = mapping.get(name)
            if value is None:
                continue
            # type() and not isinstance(): true is an int.
            if type(value) is int and 0 <= value <= TOKENS_MAX:
                return value
            self.is_suspect = True
            # More than any model can handle stays expensive; the hold is the caller's bound.
            return TOKENS_MAX if type(value) is int and value > TOKENS_MAX else None
        return None

    def read_any(self, mapping: Mapping[str, Any], *names: str) -> int:
        """Return the first of these counts that is above 0, else 0."""
        return next((count for name in names if (count := self.read(mapping, name))), 0)

    def read_begun(self, mapping: Mapping[str, Any], *names: str) -> int:
        """Return the first of these measures that is there, each begun unit as a whole one."""
        for name in names:
            value = mapping.get(name)
            if type(value) is float and 0 <= value <= TOKENS_MAX:
                return ceil(value)
            count = self.read(mapping, name)
            if count is not None:
                return count
        return 0

    def details(self, mapping: Mapping[str, Any], *names: str) -> Mapping[str, Any]:
        """Return the first of these objects that is there, empty if none is."""
        for name in names:
            value = mapping.get(name)
            if value is None:
                continue
            if isinstance(value, Mapping):
                return value
            self.is_suspect = True
        return {}

    def entries(self, mapping: Mapping[str, Any], *names: str) -> list[Mapping[str, Any]]:
        """Return the objects in the first of these arrays that is there."""
        for name in names:
            value = mapping.get(name)
            if value is None:
                continue
            if not isinstance(value, list) or len(value) > _ENTRIES_MAX:
                self.is_suspect = True
                continue
            found = [entry for entry in value if isinstance(entry, Mapping)]
            self.is_suspect = self.is_suspect or len(found) != len(value)
            return found
        return []

    def add(self, counts: Iterable[int]) -> int:
        """Return the sum of counts, which is a count as well."""
        total = sum(counts)
        if total > TOKENS_MAX:
            self.is_suspect = True
        return min(total, TOKENS_MAX)


def cache_writes(
    reader: UsageReader, written: int | None, lifetimes: Mapping[str, Any]
) -> tuple[int, int]:
    """Return the tokens written to a cache for a short while and for long: five minutes and an hour
    at Anthropic's, half an hour and twelve at OpenAI's.

    `written` is their sum where one is told; what it holds beyond `lifetimes` is the cheaper kind.
    """
    hour = reader.read(lifetimes, "ephemeral_1h_input_tokens", "ttl_12h_tokens") or 0
    five_minutes = reader.read(lifetimes, "ephemeral_5m_input_tokens", "ttl_30m_tokens") or 0
    if written is None:
        return five_minutes, hour
    if five_minutes + hour > written:
        reader.is_suspect = True
        hour = 0
    return written - hour, hour


def include(
    reader: UsageReader,
    wholes: tuple[int, int],
    total: int | None,
    *,
    cache: int,
    reasoning: int,
) -> tuple[int, int, int]:
    """Return input, output and reasoning so that input and output include all that was used.

    Some servers leave cached or reasoning tokens out of the `wholes`: their total gives them away.
    A total that nothing explains is suspect; what it has above the parts counts as reasoning.
    """
    read, written = wholes
    # TOKENS_MAX is no number to compute with: it may stand for something larger.
    if total is None or total in (read + written, TOKENS_MAX):
        return read, written, reasoning
    beyond = total - read - written
    if beyond == reasoning:
        return read, written + reasoning, reasoning
    if beyond == cache:
        return read + cache, written, reasoning
    if beyond == reasoning + cache:
        return read + cache, written + reasoning, reasoning
    reader.is_suspect = True
    beyond = max(beyond, 0)
    return read, written + beyond, reasoning + beyond


def disjoint(reader: UsageReader, parts: Usage, *, read: int, written: int) -> Usage:
    """Return a reported usage whose classes sum to the tokens that were read and written.

    `parts` holds the classes that were told apart, without the plain ones: those are what remains.
    Parts above their whole are suspect and dropped. Cache and media that only together exceed it
    overlap: an image that was cached is a cached token.
    """
    cache = parts.cache_read + parts.cache_write_5m + parts.cache_write_1h
    media = parts.audio_in + parts.image_in
    if cache > read or media > read:
        reader.is_suspect = True
        parts = parts._replace(
            cache_read=0, cache_write_5m=0, cache_write_1h=0, audio_in=0, image_in=0
        )
    elif cache + media > read:
        overlap = cache + media - read
        images = max(parts.image_in - overlap, 0)
        audio = parts.audio_in - (overlap - (parts.image_in - images))
        parts = parts._replace(image_in=images, audio_in=audio)
    if parts.output_tokens > written:
        reader.is_suspect = True
        parts = parts._replace(reasoning=0, audio_out=0, image_out=0)
    return parts._replace(
        input=read - parts.input_tokens,
        output=written - parts.output_tokens,
        source="reported",
        is_suspect=reader.is_suspect,
    )


def unbilled(reported: Usage | None) -> Usage:
    """Return the usage of a call that is charged nothing: what was reported stays on its record."""
    return Usage() if reported is None else reported._replace(source="none", is_suspect=False)
