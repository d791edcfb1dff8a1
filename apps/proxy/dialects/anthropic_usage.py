"""Anthropic's `usage` object: `input_tokens` leave out what was read from and written to a cache.

`output_tokens` include thinking. In a stream `message_start` reports the input and each
`message_delta` the output so far: numbers are cumulative, and a later one replaces an earlier.

Source: https://platform.claude.com/docs/en/api/messages
"""

from collections.abc import Mapping
from typing import Any, Final

from apps.core.usage import Usage
from apps.proxy.dialects.usage_pieces import read_pieces
from apps.proxy.dialects.usage_reader import UsageReader, cache_writes, disjoint

_OWN_NAMES: Final = frozenset(
    {
        "cache_creation",
        "cache_creation_input_tokens",
        "cache_read_input_tokens",
        "iterations",
        "server_tool_use",
    }
)

# Passes of other models than the one that was asked.
_OTHER_MODELS: Final = ("advisor_message", "fallback_message")
# Whoever is refused for one of these pays for what was read, though nothing was written.
# Source: https://platform.claude.com/docs/en/build-with-claude/handling-stop-reasons
_BILLED_CATEGORIES: Final = ("bio", "frontier_llm", "reasoning_extraction")


def is_anthropic_usage(value: Mapping[str, Any]) -> bool:
    """Return whether a usage is Anthropic's, which has no total."""
    return (
        ("input_tokens" in value or "output_tokens" in value)
        and "total_tokens" not in value
        and not _OWN_NAMES.isdisjoint(value)
    )


def is_billed_refusal(holder: Mapping[str, Any]) -> bool:
    """Return whether an answer, or what ends a stream, is a refusal that Anthropic bills."""
    details = holder.get("stop_details")
    return isinstance(details, Mapping) and details.get("category") in _BILLED_CATEGORIES


def merge_usage(earlier: Mapping[str, Any], later: Mapping[str, Any]) -> dict[str, Any]:
    """Return the usage of a stream after one more event: what the later one says counts (I-30)."""
    return {**earlier, **{name: value for name, value in later.items() if value is not None}}


def parse_anthropic_usage(value: Mapping[str, Any]) -> Usage | None:
    """Return what Anthropic's usage object says, None if nothing in it can be used."""
    reader = UsageReader()
    passes = _passes(reader, value)
    usages = [_parse_pass(reader, item) for item in passes]
    found = [usage for usage in usages if usage is not None]
    if not found:
        return None
    pieces = read_pieces(reader, value)
    parts = pieces._replace(
        cache_read=reader.add(usage.cache_read for usage in found),
        cache_write_5m=reader.add(usage.cache_write_5m for usage in found),
        cache_write_1h=reader.add(usage.cache_write_1h for usage in found),
        reasoning=reader.add(usage.reasoning for usage in found),
    )
    plain = reader.add(usage.input for usage in found)
    return disjoint(
        reader,
        parts,
        read=plain + parts.input_tokens,
        written=reader.add(usage.output_tokens for usage in found),
    )


def _passes(reader: UsageReader, value: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the objects that a call is billed by: itself, or each pass of the model.

    A pass that compacts the conversation is not in the numbers of the whole, but is billed. After
    a fallback, and with an advisor, the passes are of several models, of which only one has a price
    here: suspect. One that was refused before it wrote anything is not billed.
    """
    passes = reader.entries(value, "iterations")
    kinds = [item.get("type") for item in passes]
    if any(kind in _OTHER_MODELS for kind in kinds):
        reader.is_suspect = True
    elif "compaction" not in kinds:
        return [value]
    return [item for item in passes if item.get("output_tokens")] or [value]


def _parse_pass(reader: UsageReader, value: Mapping[str, Any]) -> Usage | None:
    """Return input, cache, output and reasoning of one pass of the model."""
    read = reader.read(value, "input_tokens")
    written = reader.read(value, "output_tokens")
    if read is None and written is None:
        return None
    if read is None or written is None:
        reader.is_suspect = True
    five_minutes, hour = cache_writes(
        reader,
        reader.read(value, "cache_creation_input_tokens"),
        reader.details(value, "cache_creation"),
    )
    thinking = reader.read_any(
        reader.details(value, "output_tokens_details"), "thinking_tokens", "reasoning_tokens"
    )
    if thinking > (written or 0):
        reader.is_suspect = True
        thinking = 0
    return Usage(
        input=read or 0,
        cache_read=reader.read(value, "cache_read_input_tokens") or 0,
        cache_write_5m=five_minutes,
        cache_write_1h=hour,
        output=(written or 0) - thinking,
        reasoning=thinking,
    )


def anthropic_usage(usage: Usage) -> dict[str, Any]:
    """Return a usage in Anthropic's shape, whose counts sum to the same tokens (I-29).

    It has no classes for sounds and images: they are part of the plain input and output.
    """
    told: dict[str, Any] = {
        "input_tokens": usage.input + usage.audio_in + usage.image_in,
        "cache_creation_input_tokens": usage.cache_write_5m + usage.cache_write_1h,
        "cache_read_input_tokens": usage.cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": usage.cache_write_5m,
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        },
        "output_tokens": usage.output_tokens,
    }
    if usage.reasoning:
        told["output_tokens_details"] = {"thinking_tokens": usage.reasoning}
    if usage.web_search:
        told["server_tool_use"] = {"web_search_requests": usage.web_search}
    return told
