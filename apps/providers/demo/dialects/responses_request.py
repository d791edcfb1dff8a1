"""Requests of OpenAI's Responses API, checked as far as the demo provider reads them.

Source: https://platform.openai.com/docs/api-reference/responses/create. Raises ProviderError for
what OpenAI would refuse.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from apps.providers.demo.answers import UNLIMITED, Asked, Wishes
from apps.providers.demo.building import count_tokens, read_count, read_stream
from apps.providers.demo.dialects.openai_request import list_functions, read_choice, read_tier
from apps.providers.demo.errors import ProviderError
from apps.providers.demo.images import count_image

OUTPUT_TOKENS_MIN: Final = 16
# What an answer repeats of its request, with what it says where nothing was asked.
_REPEATED: Final[dict[str, Any]] = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "store": True,
    "temperature": 1.0,
    "tool_choice": "auto",
    "tools": [],
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}


def read_response(body: dict[str, Any], *, told_tokens: int) -> Asked:
    """Return what a call asks for; `told_tokens` are those of the conversation before it."""
    reasoning = body.get("reasoning")
    reasoning = reasoning if isinstance(reasoning, dict) else {}
    items = list_items(body)
    repeated = {name: _or_usual(body.get(name), usual) for name, usual in _REPEATED.items()}
    text = body.get("text")
    repeated["reasoning"] = {"effort": reasoning.get("effort"), "summary": reasoning.get("summary")}
    repeated["text"] = text if isinstance(text, dict) else {"format": {"type": "text"}}
    return Asked(
        prompt_tokens=count_prompt(body, items) + told_tokens,
        wishes=_read_wishes(body, items),
        is_stream=read_stream(body),
        maximum=_read_maximum(body),
        shows_reasoning=reasoning.get("summary") is not None,
        is_stored=body.get("store") is not False,
        service_tier=read_tier(body),
        data=orjson.dumps(repeated),
    )


def list_items(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the items of the input. Raises ProviderError."""
    value = body.get("input")
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    if isinstance(value, list) and value and all(isinstance(item, dict) for item in value):
        return value
    message = "Invalid 'input': expected a text or a list of items."
    raise ProviderError(400, message, code="invalid_type", param="input")


def count_prompt(body: dict[str, Any], items: list[dict[str, Any]]) -> int:
    """Return the tokens of instructions, items and tools."""
    characters = len(str(body.get("instructions") or ""))
    images = 0
    for item in items:
        match item:
            case {"type": "function_call", "arguments": str(text)}:
                characters += len(text)
            case {"type": "function_call_output", "output": content} | {"content": content}:
                texts, more_images = _read_content(content)
                characters += len(texts)
                images += more_images
            case _:
                pass
    if body.get("tools"):
        characters += len(orjson.dumps(body["tools"]))
    return count_tokens(characters) + images


def _or_usual(value: Any, usual: Any) -> Any:
    return usual if value is None else value


def _read_content(content: Any) -> tuple[str, int]:
    """Return the text of a content, and the tokens of its images."""
    if isinstance(content, str):
        return content, 0
    parts = (
        [part for part in content if isinstance(part, dict)] if isinstance(content, list) else []
    )
    texts = [part["text"] for part in parts if isinstance(part.get("text"), str)]
    addresses = [part["image_url"] for part in parts if "image_url" in part]
    return "".join(texts), sum(count_image({"url": address}) for address in addresses)


def _read_maximum(body: dict[str, Any]) -> int:
    maximum = read_count(body, "max_output_tokens")
    if maximum is None:
        return UNLIMITED
    if maximum < OUTPUT_TOKENS_MIN:
        message = (
            "Invalid 'max_output_tokens': integer below minimum value. Expected a value >= "
            f"{OUTPUT_TOKENS_MIN}, but got {maximum} instead."
        )
        raise ProviderError(400, message, code="integer_below_min_value", param="max_output_tokens")
    return maximum


def _read_wishes(body: dict[str, Any], items: list[dict[str, Any]]) -> Wishes | None:
    """Return what is asked about the form of the answer, None for the usual text."""
    last = items[-1]
    told = None
    if last.get("type") == "function_call_output":
        told, _ = _read_content(last.get("output"))
    text = body.get("text")
    asked = text.get("format") if isinstance(text, dict) else None
    tools, choice = body.get("tools"), body.get("tool_choice")
    if not (tools or choice or told is not None or asked):
        return None
    word, named = read_choice(choice, choice)
    form = asked if isinstance(asked, dict) else {}
    is_json = form.get("type") in ("json_schema", "json_object")
    return Wishes(
        functions=list_functions(tools if isinstance(tools, list) else []),
        choice=word,
        named=named,
        told=told,
        is_json=is_json,
        schema=form.get("schema") if is_json else None,
        schema_param="text.format.schema",
    )
