"""What a model name asks of the demo provider: `base:option=value,option=value`.

`demo-chat:latency=0.2,tokens=50,pace=0.01` is the model `demo-chat` with three options. A colon
that no `option=` follows belongs to the base name (`llama3:8b`). `OPTIONS` lists the options,
`faults.py` the faults.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

LATENCY_SECONDS_MAX = 600.0
PACE_SECONDS_MAX = 60.0
TOKENS_MAX = 100_000
PROMPT_TOKENS_MAX = 10_000_000
RETRY_AFTER_SECONDS_MAX = 86_400
DEFAULT_TOKENS = 16

OPTIONS = {
    "latency": "seconds before the first byte of the answer (0)",
    "tokens": f"output tokens, reasoning included, up to the client's maximum ({DEFAULT_TOKENS})",
    "pace": "seconds between the events of a stream (0)",
    "prompt": "prompt tokens reported (default: a quarter of the text's characters)",
    "cached": "how many of the prompt tokens are reported as cached (0)",
    "cache_write_5m": "how many are reported as written to a cache, where that is told (0)",
    "cache_write_1h": "the same for a cache that lasts an hour (0)",
    "reasoning": "how many of the output tokens are reasoning, shown where a dialect shows it (0)",
    "tools": "on: a tool that is offered is called, and what it answers is told (off)",
    "usage": "on, off, always: a stream reports usage as a dialect does, never, unasked too (on)",
    "retry_after": "seconds after which a status fault wants to be asked again (429: 1)",
    "fault": "one misbehaviour from the list below",
}

_START_OF_OPTIONS = re.compile(r":(?=[a-z_][a-z0-9_]*=)")
_FAULT = re.compile(r"([a-z0-9_]+)(?:\((.*)\))?", re.DOTALL)


class OptionError(ValueError):
    """The model name asks for something the demo provider does not offer."""


@dataclass(frozen=True, slots=True)
class Options:
    """What a model name asks for."""

    latency: float = 0.0  # seconds
    tokens: int | None = None
    pace: float = 0.0  # seconds
    prompt: int | None = None
    cached: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    reasoning: int = 0
    tools: str = "off"
    usage: str = "on"
    retry_after: int | None = None  # seconds
    fault: str = "ok"
    fault_arguments: tuple[str, ...] = ()


@lru_cache(maxsize=4096)
def parse_model_name(model: str) -> Options:
    """Return the options in a model name. Raises OptionError."""
    parts = _START_OF_OPTIONS.split(model, maxsplit=1)
    if len(parts) == 1:
        return Options()
    values: dict[str, object] = {}
    for item in _split_outside_brackets(parts[1]):
        name, equals, text = item.partition("=")
        if not equals or name not in OPTIONS:
            raise OptionError(f"unknown option {item!r}; known are {', '.join(OPTIONS)}")
        if name in values:
            raise OptionError(f"the option {name!r} stands twice")
        if name == "fault":
            values["fault"], values["fault_arguments"] = _parse_fault(text)
        else:
            values[name] = _PARSERS[name](name, text)
    return Options(**values)  # type: ignore[arg-type]  # each value comes from its option's parser


def _split_outside_brackets(text: str) -> list[str]:
    items = [""]
    depth = 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if character == "," and depth <= 0:
            items.append("")
        else:
            items[-1] += character
    return items


def _parse_fault(text: str) -> tuple[str, tuple[str, ...]]:
    match = _FAULT.fullmatch(text)
    if match is None:
        raise OptionError(f"{text!r} is not a fault: write NAME or NAME(ARGUMENT)")
    name, arguments = match.groups()
    if not arguments:
        return name, ()
    return name, tuple(argument.strip() for argument in arguments.split(","))


def parse_integer(name: str, text: str, maximum: int = 2**40, minimum: int = 0) -> int:
    """Return a whole number between the limits. Raises OptionError."""
    if re.fullmatch(r"-?[0-9]{1,15}", text) is None or not minimum <= int(text) <= maximum:
        raise OptionError(f"{name} must be a whole number from {minimum} to {maximum}")
    return int(text)


def parse_seconds(name: str, text: str, maximum: float = LATENCY_SECONDS_MAX) -> float:
    """Return seconds between zero and the limit. Raises OptionError."""
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0 <= seconds <= maximum:
        raise OptionError(f"{name} must be a number of seconds from 0 to {maximum:g}")
    return seconds


def _parse_tools(name: str, text: str) -> str:
    if text not in {"on", "off"}:
        raise OptionError(f"{name} must be on or off")
    return text


def _parse_usage(name: str, text: str) -> str:
    if text not in {"on", "off", "always"}:
        raise OptionError(f"{name} must be on, off or always")
    return text


_PARSERS: dict[str, Callable[[str, str], object]] = {
    "latency": parse_seconds,
    "pace": lambda name, text: parse_seconds(name, text, PACE_SECONDS_MAX),
    "tokens": lambda name, text: parse_integer(name, text, TOKENS_MAX),
    "prompt": lambda name, text: parse_integer(name, text, PROMPT_TOKENS_MAX),
    "cached": lambda name, text: parse_integer(name, text, PROMPT_TOKENS_MAX),
    "cache_write_5m": lambda name, text: parse_integer(name, text, PROMPT_TOKENS_MAX),
    "cache_write_1h": lambda name, text: parse_integer(name, text, PROMPT_TOKENS_MAX),
    "reasoning": lambda name, text: parse_integer(name, text, TOKENS_MAX),
    "retry_after": lambda name, text: parse_integer(name, text, RETRY_AFTER_SECONDS_MAX),
    "tools": _parse_tools,
    "usage": _parse_usage,
}
