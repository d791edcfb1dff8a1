"""From what is asked to an `Answer`, alike in every dialect and deterministic."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

from apps.providers.demo.answers import (
    UNLIMITED,
    Answer,
    Asked,
    Choice,
    Usage,
    make_pieces,
)
from apps.providers.demo.errors import ProviderError
from apps.providers.demo.forced import find_forced
from apps.providers.demo.options import DEFAULT_TOKENS, OptionError, Options, parse_model_name

if TYPE_CHECKING:
    from apps.providers.demo.dialects.dialect import DemoDialect, Incoming

PIECE_CHARACTERS: Final = 4
MODELS: Final = ("demo-chat", "demo-embedding")

_NO_CHOICE = Choice((), "stop")


def parse_options(model: str) -> Options:
    """Return the options in the model name. Raises ProviderError."""
    try:
        return parse_model_name(model)
    except OptionError as error:
        raise refuse_option(error) from error


def refuse_option(error: OptionError) -> ProviderError:
    """Return the refusal of a model name that asks for what there is not."""
    message = f"The demo provider does not know this model name: {error}."
    return ProviderError(400, message, code="invalid_demo_option", param="model")


def build_answer(dialect: DemoDialect, incoming: Incoming, asked: Asked) -> Answer:
    """Return the answer that says something. Raises ProviderError."""
    options = incoming.options
    choice, reasoning = _build_choice(options, asked)
    prompt = options.prompt if options.prompt is not None else asked.prompt_tokens
    cached = min(options.cached, prompt)
    written_5m = min(options.cache_write_5m, prompt - cached)
    usage = Usage(
        prompt=prompt,
        output=(choice.tokens + reasoning) * asked.count,
        cached=cached,
        written_5m=written_5m,
        written_1h=min(options.cache_write_1h, prompt - cached - written_5m),
        reasoning=reasoning * asked.count,
    )
    return Answer(
        dialect=dialect,
        endpoint=incoming.endpoint,
        model=incoming.model,
        is_stream=asked.is_stream,
        choice=choice,
        choice_count=asked.count,
        prompt_tokens=prompt,
        reasoning_tokens=reasoning,
        usage=None if options.usage == "off" else usage,
        has_usage_event=options.usage == "always" or (asked.wants_usage and options.usage == "on"),
        has_null_usage=asked.wants_usage and options.usage != "off",
        shows_reasoning=asked.shows_reasoning,
        is_stored=asked.is_stored,
        data=asked.data,
        service_tier=asked.service_tier,
    )


def build_fixed(
    dialect: DemoDialect,
    incoming: Incoming,
    data: bytes,
    *,
    prompt: int = 0,
    has_usage: bool = False,
) -> Answer:
    """Return an answer in which nothing is said: a list, a count, vectors."""
    return Answer(
        dialect=dialect,
        endpoint=incoming.endpoint,
        model=incoming.model,
        is_stream=False,
        choice=_NO_CHOICE,
        choice_count=1,
        prompt_tokens=prompt,
        reasoning_tokens=0,
        usage=Usage(prompt) if has_usage and incoming.options.usage != "off" else None,
        has_usage_event=False,
        data=data,
    )


def count_tokens(characters: int) -> int:
    """Return how many tokens a prompt of so many characters has, at least one."""
    return max(1, math.ceil(characters / PIECE_CHARACTERS))


def read_count(body: dict[str, Any], name: str, maximum: int = UNLIMITED) -> int | None:
    """Return a number from one to the maximum, None where none is given. Raises ProviderError."""
    value = body.get(name)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= maximum:
        message = f"Invalid value for '{name}': expected an integer from 1 to {maximum}."
        raise ProviderError(400, message, code="invalid_value", param=name)
    return value


def read_stream(body: dict[str, Any]) -> bool:
    """Return whether a stream is asked for. Raises ProviderError."""
    stream = body.get("stream")
    if stream is not None and not isinstance(stream, bool):
        raise ProviderError(400, "Invalid type for 'stream': expected a boolean.", param="stream")
    return stream is True


def _build_choice(options: Options, asked: Asked) -> tuple[Choice, int]:
    """Return what is said and the reasoning tokens spent before it, cut at the maximum."""
    maximum = asked.maximum
    wishes = asked.wishes
    forced = None if wishes is None else find_forced(wishes, calls_tools=options.tools == "on")
    if forced is not None:
        tool, text, reason = forced
        pieces = _cut_into_pieces(text)
        reasoning = min(options.reasoning, maximum)
        room = max(0, maximum - reasoning - (tool is not None))
        if len(pieces) > room:
            return Choice(pieces[:room], "length", tool), _fit(reasoning, maximum, tool)
        return Choice(pieces, reason, tool), reasoning
    wanted = DEFAULT_TOKENS if options.tokens is None else options.tokens
    output = min(wanted, maximum)
    reasoning = min(options.reasoning, output)
    reason = "length" if wanted > maximum else "stop"
    return Choice(make_pieces(output - reasoning), reason), reasoning


def _fit(reasoning: int, maximum: int, tool: str | None) -> int:
    # A tool's name counts as one token, which must also stay below the maximum.
    return min(reasoning, maximum - (tool is not None))


def _cut_into_pieces(text: str) -> tuple[str, ...]:
    # At least two, so that every tool call's arguments arrive in several deltas.
    size = min(PIECE_CHARACTERS, max(1, len(text) // 2))
    return tuple(text[at : at + size] for at in range(0, len(text), size))
