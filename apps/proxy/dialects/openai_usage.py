"""OpenAI's `usage` object, and what the servers that imitate it make of it.

OpenAI's `prompt_tokens` include cached, audio and image tokens, and its `completion_tokens`
include reasoning; here every token is counted in exactly one class (I-29). Some servers leave
reasoning or cached tokens out of those two numbers: their `total_tokens` give them away. Others
pass on what their own upstream said, in the shape of its dialect.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from apps.core.usage import Usage
from apps.proxy.dialects.anthropic_usage import is_anthropic_usage, parse_anthropic_usage
from apps.proxy.dialects.bedrock_usage import BEDROCK_NAMES, parse_bedrock_usage
from apps.proxy.dialects.cohere_usage import COHERE_NAMES, parse_cohere_usage
from apps.proxy.dialects.gemini_usage import GEMINI_NAMES, parse_gemini_usage
from apps.proxy.dialects.local_usage import LOCAL_NAMES, parse_local_usage
from apps.proxy.dialects.usage_pieces import has_pieces, read_pieces, with_pieces
from apps.proxy.dialects.usage_reader import (
    TOKENS_MAX,
    UsageReader,
    cache_writes,
    disjoint,
    include,
)

# Mistral and the Realtime API leave out an s.
_INPUT_DETAILS: Final = (
    "prompt_tokens_details",
    "input_tokens_details",
    "input_token_details",
    "prompt_token_details",
)
_OUTPUT_DETAILS: Final = (
    "completion_tokens_details",
    "output_tokens_details",
    "output_token_details",
)
# What OpenAI reports of every chat, and of every response: the two counts, and their details.
_CHAT_NAMES: Final = (
    "prompt_tokens",
    "completion_tokens",
    "prompt_tokens_details",
    "completion_tokens_details",
)
_RESPONSE_NAMES: Final = (
    "input_tokens",
    "output_tokens",
    "input_tokens_details",
    "output_tokens_details",
)
_TOTAL: Final = "total_tokens"
_USUAL: Final = {names: {*names, _TOTAL} for names in (_CHAT_NAMES, _RESPONSE_NAMES)}
_USUAL_INPUTS: Final = frozenset({"audio_tokens", "cached_tokens"})
_USUAL_OUTPUTS: Final = frozenset(
    {
        "accepted_prediction_tokens",
        "audio_tokens",
        "reasoning_tokens",
        "rejected_prediction_tokens",
    }
)
_IMAGE_DETAILS: Final = frozenset({"image_tokens", "text_tokens"})
_FOREIGN: Final[tuple[tuple[frozenset[str], Callable[[Mapping[str, Any]], Usage | None]], ...]] = (
    (GEMINI_NAMES, parse_gemini_usage),
    (BEDROCK_NAMES, parse_bedrock_usage),
    (LOCAL_NAMES, parse_local_usage),
    (COHERE_NAMES, parse_cohere_usage),
)


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
    if "prompt_tokens" not in value and "completion_tokens" not in value:
        if is_anthropic_usage(value):
            return parse_anthropic_usage(value)
        for names, parse in _FOREIGN:
            if not names.isdisjoint(value):
                return parse(value)
    return _parse_openai_usage(value)


def parse_input_usage(document: Mapping[str, Any]) -> tuple[Usage | None, bool]:
    """Return the usage in an answer that says nothing, and whether there was anything to read.

    A total alone is what was read (Jina, Voyage, vLLM). Cohere counts under `meta`.
    """
    reported = document.get("usage")
    if reported is None:
        meta = document.get("meta")
        is_counted = isinstance(meta, Mapping) and not COHERE_NAMES.isdisjoint(meta)
        reported = meta if is_counted else None
    usage = parse_usage(reported)
    if isinstance(reported, Mapping) and (usage is None or not usage.total_tokens):
        usage = _total_usage(reported) or usage
    if usage is not None and usage.output_tokens:
        usage = usage._replace(is_suspect=True)
    return usage, reported is not None


def openai_usage(usage: Usage) -> dict[str, Any]:
    """Return a usage in OpenAI's shape, whose counts sum to the same tokens (I-29).

    What was written to a cache is told as OpenAI tells it, and per lifetime where that differs.
    """
    inputs: dict[str, Any] = {"cached_tokens": usage.cache_read, "audio_tokens": usage.audio_in}
    written = usage.cache_write_5m + usage.cache_write_1h
    if written:
        inputs["cache_write_tokens"] = written
    if usage.cache_write_1h:
        inputs["cache_creation_token_details"] = {
            "ephemeral_5m_input_tokens": usage.cache_write_5m,
            "ephemeral_1h_input_tokens": usage.cache_write_1h,
        }
    if usage.image_in:
        inputs["image_tokens"] = usage.image_in
    outputs = {"reasoning_tokens": usage.reasoning, "audio_tokens": usage.audio_out}
    if usage.image_out:
        outputs["image_tokens"] = usage.image_out
    told: dict[str, Any] = {
        "prompt_tokens": usage.input_tokens,
        "completion_tokens": usage.output_tokens,
        "total_tokens": usage.total_tokens,
        "prompt_tokens_details": inputs,
        "completion_tokens_details": outputs,
    }
    if usage.web_search:
        # As OpenRouter tells it; OpenAI has no place for it.
        told["server_tool_use"] = {"web_search_requests": usage.web_search}
    return told


def _plain_usage(value: Mapping[str, Any]) -> Usage | None:
    """Return the usage of three counts that agree, where nothing unusual is to be read.

    Nearly every usage is one: this is a shorter way to what `_parse_openai_usage` says of it.
    """
    names = _CHAT_NAMES if "prompt_tokens" in value else _RESPONSE_NAMES
    if len(value) != 3 and value.keys() != _USUAL[names]:
        return None
    prompt, completion, total = value.get(names[0]), value.get(names[1]), value.get(_TOTAL)
    # type() and not isinstance(): true is an int.
    if type(prompt) is not int or type(completion) is not int or type(total) is not int:
        return None
    if prompt < 0 or completion < 0 or total > TOKENS_MAX or total != prompt + completion:
        return None
    if len(value) == 3:
        return Usage(input=prompt, output=completion, source="reported")
    inputs, outputs = value[names[2]], value[names[3]]
    if type(inputs) is not dict or not inputs.keys() <= _USUAL_INPUTS:
        return None
    if type(outputs) is not dict or not outputs.keys() <= _USUAL_OUTPUTS:
        return None
    if any(type(part) is not int or part < 0 for part in (*inputs.values(), *outputs.values())):
        return None
    cached, audio_in = inputs.get("cached_tokens", 0), inputs.get("audio_tokens", 0)
    reasoning, audio_out = outputs.get("reasoning_tokens", 0), outputs.get("audio_tokens", 0)
    if cached + audio_in > prompt or reasoning + audio_out > completion:
        return None
    return Usage(
        input=prompt - cached - audio_in,
        cache_read=cached,
        output=completion - reasoning - audio_out,
        reasoning=reasoning,
        audio_in=audio_in,
        audio_out=audio_out,
        source="reported",
    )


def _total_usage(value: Mapping[str, Any]) -> Usage | None:
    """Return the usage of an object that tells nothing but a total, all of it read.

    Voyage tells the text of it too where there are images.
    """
    reader = UsageReader()
    total = reader.read(value, "total_tokens")
    if total is None:
        return None
    has_images = bool(reader.read(value, "image_pixels"))
    text = reader.read(value, "text_tokens") if has_images else None
    images = max(total - text, 0) if text is not None else 0
    return disjoint(reader, Usage(image_in=images), read=total, written=0)


def _parse_openai_usage(value: Mapping[str, Any]) -> Usage | None:
    reader = UsageReader()
    pieces = read_pieces(reader, value)
    # The last names are of OpenRouter's record of a call.
    prompt = reader.read(value, "prompt_tokens", "input_tokens", "native_tokens_prompt")
    completion = reader.read(
        value, "completion_tokens", "output_tokens", "native_tokens_completion"
    )
    total = reader.read(value, "total_tokens")
    if prompt is None and completion is None:
        if not has_pieces(pieces):
            return None
        return pieces._replace(source="reported", is_suspect=reader.is_suspect)
    read, written = _fill_gaps(prompt, completion, total, reader)
    inputs = reader.details(value, *_INPUT_DETAILS)
    outputs = reader.details(value, *_OUTPUT_DETAILS)
    parts = _cache_parts(reader, value, inputs)
    cache = parts.input_tokens
    reasoning = reader.read_any(outputs, "reasoning_tokens") or reader.read_any(
        value, "reasoning_tokens", "native_tokens_reasoning"
    )
    if "citation_tokens" in value or "num_search_queries" in value:
        # Perplexity bills what it read and thought meanwhile beside its own total.
        citations = reader.read(value, "citation_tokens") or 0
        apart = 0 if outputs else reasoning
        if total in (None, read + written, read + written + citations + apart):
            read, written = reader.add((read, citations)), reader.add((written, apart))
            total = None
    elif pieces.second and total is not None and total > read + written:
        # Mistral: speech is in the total, and in neither of the others.
        parts = parts._replace(audio_in=min(total, TOKENS_MAX) - read - written)
        read = total - written
    elif value.get("usage_semantic") == "anthropic" and total in (None, read + written):
        # New API, where it passes on what Anthropic said.
        read, total = reader.add((read, cache)), None
    elif total is None and cache > read:
        # It can only be beside the prompt; without a total that is a guess, and the dearer one.
        reader.is_suspect = True
        read = reader.add((read, cache))
    read, written, reasoning = include(
        reader, (read, written), total, cache=cache, reasoning=reasoning
    )
    parts = _add_media(reader, parts, value, inputs)
    image_out = reader.read_any(outputs, "image_tokens")
    if not outputs and value.get("input_tokens_details") and inputs.keys() == _IMAGE_DETAILS:
        # OpenAI's images: all that was written is one.
        image_out = written
    parts = parts._replace(
        reasoning=reasoning,
        audio_out=reader.read_any(outputs, "audio_tokens"),
        image_out=image_out,
    )
    return disjoint(reader, with_pieces(parts, pieces), read=read, written=written)


def _cache_parts(reader: UsageReader, value: Mapping[str, Any], inputs: Mapping[str, Any]) -> Usage:
    """Return what was read from and written to a cache."""
    cached = reader.read_any(inputs, "cached_tokens") or reader.read_any(
        value,
        "prompt_cache_hit_tokens",  # DeepSeek
        "cached_tokens",  # Moonshot
        "num_cached_tokens",  # Mistral
        "cache_read_input_tokens",  # Anthropic behind a server that translates
        "native_tokens_cached",
    )
    missed = reader.read(value, "prompt_cache_miss_tokens")
    if missed and cached + missed != value.get("prompt_tokens"):
        reader.is_suspect = True
    lifetimes = reader.details(
        inputs, "cache_creation_token_details", "cache_creation", "cache_write_tokens_details"
    ) or reader.details(value, "cache_creation")
    five_minutes, hour = cache_writes(
        reader,
        reader.read_any(
            inputs, "cache_write_tokens", "cache_creation_tokens", "cache_creation_input_tokens"
        )
        or reader.read_any(value, "cache_creation_input_tokens")
        or reader.read_any(lifetimes, "cache_creation_input_tokens")
        or None,
        lifetimes,
    )
    return Usage(cache_read=cached, cache_write_5m=five_minutes, cache_write_1h=hour)


def _add_media(
    reader: UsageReader, parts: Usage, value: Mapping[str, Any], inputs: Mapping[str, Any]
) -> Usage:
    """Return parts with the audio and the images that were read and not cached.

    Alibaba's own API tells them beside the text. A video is read as a row of images.
    """
    cached = reader.details(inputs, "cached_tokens_details")
    holder = inputs if inputs else value
    audio = reader.read_any(holder, "audio_tokens") - reader.read_any(cached, "audio_tokens")
    images = reader.read_any(holder, "image_tokens") - reader.read_any(cached, "image_tokens")
    videos = reader.read_any(holder, "video_tokens")
    if audio < 0 or images < 0:
        reader.is_suspect = True
        audio, images = max(audio, 0), max(images, 0)
    return parts._replace(audio_in=audio or parts.audio_in, image_in=reader.add((images, videos)))


def _fill_gaps(
    prompt: int | None, completion: int | None, total: int | None, reader: UsageReader
) -> tuple[int, int]:
    """Return prompt and completion, a missing one computed from the total where that is possible.

    Embeddings report no completion; without a total one cannot tell, and the usage is suspect.
    """
    if prompt is not None and completion is not None:
        return prompt, completion
    if total == TOKENS_MAX:
        total = None
    if prompt is None:
        known = completion or 0
        # What makes images of nothing but a sentence reports no input.
        if total != known:
            reader.is_suspect = True
        return (max(total - known, 0) if total is not None else 0), known
    if total is None or total < prompt:
        reader.is_suspect = True
        return prompt, 0
    return prompt, total - prompt
