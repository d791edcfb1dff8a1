"""Requests in OpenAI's dialect, checked as OpenAI checks them.

Raises ProviderError for what OpenAI would refuse.
"""

from __future__ import annotations

import math
from typing import Any, Final

import orjson

from apps.providers.demo.answers import UNLIMITED, Asked, Function, Wishes
from apps.providers.demo.building import PIECE_CHARACTERS, count_tokens, read_count, read_stream
from apps.providers.demo.errors import ProviderError
from apps.providers.demo.images import count_image

CHOICES_MAX: Final = 128
INPUTS_MAX: Final = 2048


def read_chat(body: dict[str, Any]) -> Asked:
    """Return what a chat asks for."""
    is_stream = read_stream(body)
    return Asked(
        prompt_tokens=_count_messages(body),
        wishes=_read_wishes(body),
        is_stream=is_stream,
        wants_usage=_wants_usage(body, is_stream=is_stream),
        maximum=_read_maximum(body),
        count=read_count(body, "n", CHOICES_MAX) or 1,
        service_tier=read_tier(body),
    )


def read_completion(body: dict[str, Any]) -> Asked:
    """Return what a legacy completion asks for: a choice for each prompt."""
    is_stream = read_stream(body)
    wants_usage = _wants_usage(body, is_stream=is_stream)
    prompts = list_inputs(body.get("prompt", ""), "prompt")
    return Asked(
        prompt_tokens=sum(count_input(item) for item in prompts),
        is_stream=is_stream,
        wants_usage=wants_usage,
        maximum=_read_maximum(body),
        count=len(prompts) * (read_count(body, "n", CHOICES_MAX) or 1),
        service_tier=read_tier(body),
    )


def read_tier(body: dict[str, Any]) -> str:
    """Return the service tier that is served: the one asked for, but for what means the usual."""
    tier = body.get("service_tier")
    return tier if isinstance(tier, str) and tier not in ("", "auto") else "default"


def list_inputs(value: Any, name: str) -> list[Any]:
    """Return the inputs: OpenAI takes a text, texts, tokens, or lists of tokens."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list) and value and len(value) <= INPUTS_MAX:
        if all(isinstance(item, int) and not isinstance(item, bool) for item in value):
            return [value]
        if all(isinstance(item, str) for item in value) or all(
            isinstance(item, list) for item in value
        ):
            return value
    raise ProviderError(400, f"'$.{name}' is invalid.", param=name)


def count_input(item: Any) -> int:
    """Return the tokens of a text or of a list of tokens."""
    return len(item) if isinstance(item, list) else math.ceil(len(item) / PIECE_CHARACTERS)


def list_functions(tools: list[Any]) -> tuple[Function, ...]:
    """Return the functions that have a name."""
    return tuple(
        Function(tool["name"], tool.get("parameters"))
        for tool in tools
        if isinstance(tool, dict) and isinstance(tool.get("name"), str)
    )


def read_choice(choice: Any, named: Any) -> tuple[str, str | None]:
    """Return which tool has to be called: a word of `Wishes.choice`, and a name."""
    if isinstance(choice, dict) and isinstance(named, dict):
        return "named", named.get("name")
    if choice == "required":
        return "any", None
    return ("auto" if choice in (None, "auto") else "none"), None


def _wants_usage(body: dict[str, Any], *, is_stream: bool) -> bool:
    options = body.get("stream_options")
    if options is None:
        return False
    if not is_stream:
        raise ProviderError(
            400,
            "The 'stream_options' parameter is only allowed when 'stream' is enabled.",
            param="stream_options",
        )
    return isinstance(options, dict) and options.get("include_usage") is True


def _read_maximum(body: dict[str, Any]) -> int:
    limits = [read_count(body, name) for name in ("max_tokens", "max_completion_tokens")]
    return min((limit for limit in limits if limit is not None), default=UNLIMITED)


def _count_messages(body: dict[str, Any]) -> int:
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ProviderError(
            400, "Invalid 'messages': expected a list with a message.", param="messages"
        )
    characters = images = 0
    for position, message in enumerate(messages):
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            param = f"messages[{position}]"
            raise ProviderError(400, f"Invalid '{param}': a role is missing.", param=param)
        content = message.get("content")
        if isinstance(content, str):
            characters += len(content)
        elif isinstance(content, list):
            parts = [part for part in content if isinstance(part, dict)]
            texts = [part.get("text") for part in parts]
            characters += sum(len(text) for text in texts if isinstance(text, str))
            images += sum(count_image(part["image_url"]) for part in parts if "image_url" in part)
    if body.get("tools"):
        characters += len(orjson.dumps(body["tools"]))
    return count_tokens(characters) + images


def _read_wishes(body: dict[str, Any]) -> Wishes | None:
    """Return what is asked about the form of the answer, None for the usual text."""
    last = body["messages"][-1]
    is_told = last["role"] == "tool" and isinstance(last.get("content"), str)
    tools, choice = body.get("tools"), body.get("tool_choice")
    response_format = body.get("response_format")
    if not (tools or choice or is_told or response_format):
        return None
    offered = tools if isinstance(tools, list) else []
    functions = [tool.get("function") for tool in offered if isinstance(tool, dict)]
    word, named = read_choice(choice, choice.get("function") if isinstance(choice, dict) else None)
    is_json, schema = _read_format(response_format)
    return Wishes(
        functions=list_functions(functions),
        choice=word,
        named=named,
        told=last["content"] if is_told else None,
        is_json=is_json,
        schema=schema,
    )


def _read_format(response_format: Any) -> tuple[bool, dict[str, Any] | None]:
    """Return whether JSON is wanted, and its schema."""
    if not isinstance(response_format, dict):
        return False, None
    if response_format.get("type") != "json_schema":
        return response_format.get("type") == "json_object", None
    described = response_format.get("json_schema")
    if not isinstance(described, dict) or not isinstance(described.get("schema"), dict):
        message = "Missing required parameter: 'response_format.json_schema.schema'."
        raise ProviderError(400, message, param="response_format.json_schema.schema")
    return True, described["schema"]
