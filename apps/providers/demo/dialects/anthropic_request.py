"""Requests of Anthropic's Messages API, checked as far as the demo provider reads them.

Source: https://platform.claude.com/docs/en/api/messages. Raises ProviderError for what Anthropic
would refuse.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from apps.providers.demo.answers import Asked, Function, Wishes
from apps.providers.demo.building import count_tokens, read_count, read_stream
from apps.providers.demo.errors import ProviderError
from apps.providers.demo.images import IMAGE_TOKENS, count_image

_ROLES: Final = ("user", "assistant")


def read_message(body: dict[str, Any]) -> Asked:
    """Return what a call of the model asks for."""
    maximum = read_count(body, "max_tokens")
    if maximum is None:
        raise ProviderError(400, "max_tokens: Field required", param="max_tokens")
    is_stream = read_stream(body)
    thinking = body.get("thinking")
    is_silent = isinstance(thinking, dict) and thinking.get("type") == "disabled"
    return Asked(
        prompt_tokens=count_prompt(body),
        wishes=_read_wishes(body),
        is_stream=is_stream,
        maximum=maximum,
        shows_reasoning=not is_silent,
    )


def count_prompt(body: dict[str, Any]) -> int:
    """Return the tokens of system prompt, messages and tools."""
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        message = "messages: at least one message is required"
        raise ProviderError(400, message, param="messages")
    characters, images = _count_content(body.get("system"))
    for position, turn in enumerate(messages):
        if not isinstance(turn, dict) or turn.get("role") not in _ROLES:
            param = f"messages.{position}.role"
            raise ProviderError(400, f"{param}: Input should be 'user' or 'assistant'", param=param)
        more, more_images = _count_content(turn.get("content"))
        characters += more
        images += more_images
    if body.get("tools"):
        characters += len(orjson.dumps(body["tools"]))
    return count_tokens(characters) + images * IMAGE_TOKENS


def _count_content(content: Any) -> tuple[int, int]:
    """Return characters and images."""
    if isinstance(content, str):
        return len(content), 0
    characters = images = 0
    for block in content if isinstance(content, list) else []:
        match block:
            case {"type": "image", "source": source}:
                _check_image(source)
                images += 1
            case {"type": "tool_use", "input": called}:
                characters += len(orjson.dumps(called))
            case {"type": "tool_result", "content": told}:
                more, more_images = _count_content(told)
                characters += more
                images += more_images
            case {"text": str(text)} | {"thinking": str(text)}:
                characters += len(text)
            case _:
                pass
    return characters, images


def _check_image(source: Any) -> None:
    match source:
        case {"type": "base64", "media_type": media_type, "data": data}:
            count_image({"url": f"data:{media_type};base64,{data}"})
        case {"type": "url"}:
            count_image(source)
        case _:
            pass


def _read_wishes(body: dict[str, Any]) -> Wishes | None:
    """Return what is asked about the form of the answer, None for the usual text."""
    told = _find_told(body["messages"][-1])
    output = body.get("output_config")
    asked = output.get("format") if isinstance(output, dict) else None
    if not body.get("tools") and not body.get("tool_choice") and told is None and asked is None:
        return None
    tools, choice = body.get("tools"), body.get("tool_choice")
    word, named = _read_choice(choice if isinstance(choice, dict) else {})
    form = asked if isinstance(asked, dict) else {}
    is_json = form.get("type") == "json_schema"
    return Wishes(
        functions=tuple(
            Function(tool["name"], tool.get("input_schema"))
            for tool in (tools if isinstance(tools, list) else [])
            if isinstance(tool, dict) and isinstance(tool.get("name"), str)
        ),
        choice=word,
        named=named,
        told=told,
        is_json=is_json,
        schema=form.get("schema") if is_json else None,
        schema_param="output_config.format.schema",
    )


def _read_choice(choice: dict[str, Any]) -> tuple[str, str | None]:
    match choice.get("type", "auto"):
        case "tool":
            return "named", choice.get("name")
        case "any" | "auto" as word:
            return word, None
        case _:
            return "none", None


def _find_told(message: dict[str, Any]) -> str | None:
    """Return what a tool answered, where the last message has it."""
    content = message.get("content")
    for block in content if isinstance(content, list) else []:
        if isinstance(block, dict) and block.get("type") == "tool_result":
            told = block.get("content")
            if isinstance(told, str):
                return told
            parts = told if isinstance(told, list) else []
            return "".join(str(part.get("text", "")) for part in parts if isinstance(part, dict))
    return None
