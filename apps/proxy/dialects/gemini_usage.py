"""Gemini's `usageMetadata`: the prompt includes what was cached, and nothing includes the thoughts.

`totalTokenCount` is prompt + candidates + thoughts + what tools gave the model to read. Details
are lists of modalities; those of the cache are a part of those of the prompt.

Source: https://ai.google.dev/api/generate-content#UsageMetadata
"""

from collections.abc import Mapping
from typing import Any, Final

from apps.core.usage import Usage
from apps.proxy.dialects.usage_reader import TOKENS_MAX, UsageReader, disjoint, include

GEMINI_NAMES: Final = frozenset(
    {
        "candidatesTokenCount",
        "candidates_token_count",
        "promptTokenCount",
        "prompt_token_count",
        "responseTokenCount",
    }
)
# What Google reports of a text that was answered with text.
_DETAILS: Final = ("promptTokensDetails", "candidatesTokensDetails")
_PLAIN: Final = frozenset(
    {
        "candidatesTokenCount",
        "promptTokenCount",
        "serviceTier",
        "thoughtsTokenCount",
        "totalTokenCount",
        *_DETAILS,
    }
)
# A video is read as a row of images, and costs as much.
_IMAGES: Final = ("IMAGE", "VIDEO")


def parse_gemini_usage(value: Mapping[str, Any]) -> Usage | None:
    """Return what a `usageMetadata` object says, None if nothing in it can be used."""
    return _plain_usage(value) or _parse_usage(value)


def _plain_usage(value: Mapping[str, Any]) -> Usage | None:
    """Return the usage of counts that agree, of nothing but text: a shorter way to what
    `_parse_usage` says of it.
    """
    if not value.keys() <= _PLAIN:
        return None
    prompt, candidates = value.get("promptTokenCount"), value.get("candidatesTokenCount")
    thoughts, total = value.get("thoughtsTokenCount", 0), value.get("totalTokenCount")
    # type() and not isinstance(): true is an int.
    if type(prompt) is not int or type(candidates) is not int or type(total) is not int:
        return None
    if type(thoughts) is not int or prompt < 0 or candidates < 0 or thoughts < 0:
        return None
    if total > TOKENS_MAX or total != prompt + candidates + thoughts:
        return None
    for name in _DETAILS:
        if name in value and not _is_text(value[name]):
            return None
    return Usage(input=prompt, output=candidates, reasoning=thoughts, source="reported")


def _is_text(details: object) -> bool:
    """Return whether a list of modalities tells of one, and that is text."""
    if type(details) is not list or len(details) != 1 or type(details[0]) is not dict:
        return False
    entry = details[0]
    count = entry.get("tokenCount")
    return entry.get("modality") == "TEXT" and type(count) is int and 0 <= count <= TOKENS_MAX


def _parse_usage(value: Mapping[str, Any]) -> Usage | None:
    reader = UsageReader()
    prompt = reader.read(value, "promptTokenCount", "prompt_token_count")
    # The last name is that of the Live API.
    candidates = reader.read(
        value, "candidatesTokenCount", "candidates_token_count", "responseTokenCount"
    )
    thoughts = reader.read(value, "thoughtsTokenCount", "thoughts_token_count")
    if prompt is None and candidates is None:
        return None
    if prompt is None:
        reader.is_suspect = True
    tools = reader.read(value, "toolUsePromptTokenCount", "tool_use_prompt_token_count") or 0
    reasoning = thoughts or 0
    total = reader.read(value, "totalTokenCount", "total_token_count")
    if candidates is None and total is None and thoughts is None:
        reader.is_suspect = True
    read, written, reasoning = include(
        reader,
        (reader.add((prompt or 0, tools)), reader.add((candidates or 0, reasoning))),
        total,
        cache=0,
        reasoning=reasoning,
    )
    inputs = _modalities(reader, value, "promptTokensDetails", "prompt_tokens_details")
    used = _modalities(
        reader, value, "toolUsePromptTokensDetails", "tool_use_prompt_tokens_details"
    )
    cached = _modalities(reader, value, "cacheTokensDetails", "cache_tokens_details")
    outputs = _modalities(
        reader,
        value,
        "candidatesTokensDetails",
        "candidates_tokens_details",
        "responseTokensDetails",
    )
    parts = Usage(
        cache_read=reader.read(value, "cachedContentTokenCount", "cached_content_token_count") or 0,
        audio_in=_beyond(reader, inputs[0] + used[0], cached[0]),
        image_in=_beyond(reader, inputs[1] + used[1], cached[1]),
        reasoning=reasoning,
        audio_out=outputs[0],
        image_out=outputs[1],
    )
    return disjoint(reader, parts, read=read, written=written)


def _modalities(reader: UsageReader, value: Mapping[str, Any], *names: str) -> tuple[int, int]:
    """Return the tokens of audio and of images in a list of modalities."""
    audio: list[int] = []
    images: list[int] = []
    for entry in reader.entries(value, *names):
        count = reader.read(entry, "tokenCount", "token_count") or 0
        modality = entry.get("modality")
        if modality == "AUDIO":
            audio.append(count)
        elif modality in _IMAGES:
            images.append(count)
    return reader.add(audio), reader.add(images)


def _beyond(reader: UsageReader, whole: int, part: int) -> int:
    if part > whole:
        reader.is_suspect = True
        return 0
    return whole - part


def gemini_usage(usage: Usage) -> dict[str, Any]:
    """Return a usage in Google's shape, whose counts sum to the same tokens (I-29).

    It has no class for what was written to a cache: that is part of the plain prompt.
    """
    told: dict[str, Any] = {
        "promptTokenCount": usage.input_tokens,
        "candidatesTokenCount": usage.output_tokens - usage.reasoning,
        "totalTokenCount": usage.total_tokens,
    }
    if usage.cache_read:
        told["cachedContentTokenCount"] = usage.cache_read
    if usage.reasoning:
        told["thoughtsTokenCount"] = usage.reasoning
    if usage.audio_in or usage.image_in:
        told["promptTokensDetails"] = _told(usage.input_tokens, usage.audio_in, usage.image_in)
    if usage.audio_out or usage.image_out:
        told["candidatesTokensDetails"] = _told(
            usage.output_tokens - usage.reasoning, usage.audio_out, usage.image_out
        )
    return told


def _told(tokens: int, audio: int, images: int) -> list[dict[str, Any]]:
    counts = {"TEXT": tokens - audio - images, "AUDIO": audio, "IMAGE": images}
    return [{"modality": name, "tokenCount": count} for name, count in counts.items() if count]
