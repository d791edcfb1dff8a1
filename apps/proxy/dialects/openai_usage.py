"""OpenAI's `usage` object, and what the servers that imitate it make of it.

OpenAI's `prompt_tokens` include cached, audio and image tokens, and its `completion_tokens`
include reasoning; here every token is counted in exactly one class (I-29). Some servers leave
reasoning or cached tokens out of those two numbers: their `total_tokens` give them away.

Numbers come from a foreign system: what is no whole number between 0 and TOKENS_MAX, and parts
that exceed their whole, make a usage suspect, never negative (I-28).
"""

from collections.abc import Mapping
from typing import Any, Final

from apps.core.usage import Usage

TOKENS_MAX: Final = 10_000_000


class _Counts:
    """Reads counts from an object and remembers whether one of them was not a count."""

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


def parse_usage(value: object) -> Usage | None:
    """Return what a `usage` object says, None if nothing in it can be used.

    The classes sum to the provider's total. Where its numbers contradict each other the usage is
    suspect: details are then ignored in favour of the plain classes, and a total above the parts
    counts as reasoning.
    """
    if not isinstance(value, Mapping):
        return None
    plain = _plain_usage(value)
    if plain is not None:
        return plain
    counts = _Counts()
    prompt = counts.read(value, "prompt_tokens", "input_tokens")
    completion = counts.read(value, "completion_tokens", "output_tokens")
    total = counts.read(value, "total_tokens")
    if prompt is None and completion is None:
        return None
    if total == TOKENS_MAX:
        # Not a number to compute with: it may stand for something larger.
        total = None
    prompt, completion = _fill_gaps(prompt, completion, total, counts)

    inputs = counts.details(value, "prompt_tokens_details", "input_tokens_details")
    outputs = counts.details(value, "completion_tokens_details", "output_tokens_details")
    cached = (
        counts.read(inputs, "cached_tokens")
        # DeepSeek, Moonshot, and Anthropic behind a translating proxy.
        or counts.read(value, "prompt_cache_hit_tokens", "cached_tokens", "cache_read_input_tokens")
        or 0
    )
    written = (
        counts.read(inputs, "cache_write_tokens", "cache_creation_tokens")
        or counts.read(value, "cache_creation_input_tokens")
        or 0
    )
    write_details = counts.details(inputs, "cache_creation_token_details")
    written_1h = counts.read(write_details, "ephemeral_1h_input_tokens") or 0
    audio_in = counts.read(inputs, "audio_tokens") or 0
    image_in = counts.read(inputs, "image_tokens") or 0
    reasoning = counts.read(outputs, "reasoning_tokens") or 0
    audio_out = counts.read(outputs, "audio_tokens") or 0
    image_out = counts.read(outputs, "image_tokens") or 0

    if total is not None and total != prompt + completion:
        beyond = total - prompt - completion
        cache = cached + written
        if beyond == reasoning:
            completion += reasoning
        elif beyond == cache:
            prompt += cache
        elif beyond == reasoning + cache:
            completion += reasoning
            prompt += cache
        else:
            counts.is_suspect = True
            if beyond > 0:
                completion += beyond
                reasoning += beyond
    if cached + written + audio_in + image_in > prompt or written_1h > written:
        counts.is_suspect = True
        cached = written = written_1h = audio_in = image_in = 0
    if reasoning + audio_out + image_out > completion:
        counts.is_suspect = True
        reasoning = audio_out = image_out = 0
    return Usage(
        input=prompt - cached - written - audio_in - image_in,
        cache_read=cached,
        cache_write_5m=written - written_1h,
        cache_write_1h=written_1h,
        output=completion - reasoning - audio_out - image_out,
        reasoning=reasoning,
        audio_in=audio_in,
        audio_out=audio_out,
        image_in=image_in,
        image_out=image_out,
        source="reported",
        is_suspect=counts.is_suspect,
    )


def parse_input_usage(document: Mapping[str, Any]) -> tuple[Usage | None, bool]:
    """Return the usage in an answer that says nothing, and whether there was anything to read.

    A total alone is what was read (Jina, Voyage, vLLM). Cohere counts under `meta`, and gives no
    tokens at all for rerank: then there is nothing to read.
    """
    reported = document.get("usage")
    if reported is None:
        meta = document.get("meta")
        reported = meta.get("tokens") if isinstance(meta, Mapping) else None
    usage = parse_usage(reported)
    if usage is None and isinstance(reported, Mapping):
        counts = _Counts()
        total = counts.read(reported, "total_tokens")
        if total is not None:
            usage = Usage(input=total, source="reported", is_suspect=counts.is_suspect)
    if usage is not None and usage.output_tokens:
        usage = usage._replace(is_suspect=True)
    return usage, reported is not None


def _plain_usage(value: Mapping[str, Any]) -> Usage | None:
    """Return the usage of three counts that agree, where nothing else is to be read."""
    if len(value) != 3:
        return None
    prompt, completion = value.get("prompt_tokens"), value.get("completion_tokens")
    total = value.get("total_tokens")
    # type() and not isinstance(): true is an int.
    if type(prompt) is not int or type(completion) is not int or type(total) is not int:
        return None
    if prompt < 0 or completion < 0 or total > TOKENS_MAX or total != prompt + completion:
        return None
    return Usage(input=prompt, output=completion, source="reported")


def _fill_gaps(
    prompt: int | None, completion: int | None, total: int | None, counts: _Counts
) -> tuple[int, int]:
    """Return prompt and completion, a missing one computed from the total where that is possible.

    Embeddings report no completion; without a total one cannot tell, and the usage is suspect.
    """
    if prompt is not None and completion is not None:
        return prompt, completion
    if prompt is None:
        counts.is_suspect = True
        known = completion or 0
        return (max(total - known, 0) if total is not None else 0), known
    if total is None or total < prompt:
        counts.is_suspect = True
        return prompt, 0
    return prompt, total - prompt
