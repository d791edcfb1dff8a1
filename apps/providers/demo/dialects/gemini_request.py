"""Requests of Google's Gemini API, checked as far as the demo provider reads them.

Source: https://ai.google.dev/api/generate-content. Names may be written in camel case or with
underscores, as Google takes both. Raises ProviderError for what Google would refuse.
"""

from __future__ import annotations

from typing import Any, Final

import orjson

from apps.providers.demo.answers import UNLIMITED, Asked, Function, Wishes
from apps.providers.demo.building import count_tokens, read_count
from apps.providers.demo.errors import ProviderError
from apps.providers.demo.images import IMAGE_TOKENS
from apps.providers.demo.instances import DEPTH_MAX

CANDIDATES_MAX: Final = 8
EMBEDDINGS_MAX: Final = 100


def read_generation(body: dict[str, Any], *, is_stream: bool) -> Asked:
    """Return what a call of the model asks for."""
    config = _take_object(body, "generationConfig")
    thinking = _take_object(config, "thinkingConfig")
    return Asked(
        prompt_tokens=count_prompt(body),
        wishes=_read_wishes(body, config),
        is_stream=is_stream,
        maximum=_read_number(config, "maxOutputTokens", UNLIMITED) or UNLIMITED,
        count=_read_number(config, "candidateCount", CANDIDATES_MAX) or 1,
        shows_reasoning=take(thinking, "includeThoughts") is True,
    )


def count_prompt(body: dict[str, Any]) -> int:
    """Return the tokens of system instruction, contents and tools."""
    contents = list_contents(body)
    turns = [_take_object(body, "systemInstruction"), *contents]
    characters = images = 0
    for part in (part for turn in turns for part in _list_parts(turn)):
        if isinstance(part.get("text"), str):
            characters += len(part["text"])
        elif take(part, "inlineData") is not None or take(part, "fileData") is not None:
            images += 1
        else:
            characters += len(orjson.dumps(part))
    if body.get("tools"):
        characters += len(orjson.dumps(body["tools"]))
    return count_tokens(characters) + images * IMAGE_TOKENS


def list_contents(body: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the turns of a conversation. Raises ProviderError."""
    contents = body.get("contents")
    if not isinstance(contents, list) or not contents:
        message = "* GenerateContentRequest.contents: contents is not specified\n"
        raise ProviderError(400, message, param="contents")
    for position, turn in enumerate(contents):
        if not isinstance(turn, dict) or turn.get("role", "user") not in ("user", "model"):
            message = "Please use a valid role: user, model."
            raise ProviderError(400, message, param=f"contents[{position}].role")
    return contents


def read_text(content: Any) -> str:
    """Return the text of a content."""
    parts = _list_parts(content if isinstance(content, dict) else {})
    return "".join(part["text"] for part in parts if isinstance(part.get("text"), str))


def read_dimensions(body: dict[str, Any], maximum: int) -> int | None:
    """Return how long a vector is to be, None for the usual length. Raises ProviderError."""
    return _read_number(body, "outputDimensionality", maximum)


def take(holder: dict[str, Any], name: str) -> Any:
    """Return a member by its name in camel case or with underscores."""
    if name in holder:
        return holder[name]
    return holder.get(
        "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
    )


def _take_object(holder: dict[str, Any], name: str) -> dict[str, Any]:
    value = take(holder, name)
    return value if isinstance(value, dict) else {}


def _read_number(holder: dict[str, Any], name: str, maximum: int) -> int | None:
    return read_count({name: take(holder, name)}, name, maximum)


def _list_parts(turn: dict[str, Any]) -> list[dict[str, Any]]:
    parts = turn.get("parts")
    return [part for part in parts if isinstance(part, dict)] if isinstance(parts, list) else []


def _read_wishes(body: dict[str, Any], config: dict[str, Any]) -> Wishes | None:
    """Return what is asked about the form of the answer, None for the usual text."""
    tools = body.get("tools")
    calling = _take_object(_take_object(body, "toolConfig"), "functionCallingConfig")
    told = _find_told(body["contents"][-1])
    is_json = take(config, "responseMimeType") == "application/json"
    if not (tools or calling or told is not None or is_json):
        return None
    names = take(calling, "allowedFunctionNames")
    word = {"ANY": "any", "NONE": "none"}.get(str(calling.get("mode")), "auto")
    is_named = word == "any" and isinstance(names, list) and bool(names)
    schema = take(config, "responseJsonSchema") or take(config, "responseSchema")
    return Wishes(
        functions=_list_functions(tools),
        choice="named" if is_named else word,
        named=str(names[0]) if is_named else None,
        told=told,
        is_json=is_json,
        schema=None if schema is None else _lower_types(schema),
        schema_param="generationConfig.responseSchema",
    )


def _list_functions(tools: Any) -> tuple[Function, ...]:
    groups = tools if isinstance(tools, list) else []
    declared = [take(group, "functionDeclarations") for group in groups if isinstance(group, dict)]
    return tuple(
        Function(
            function["name"],
            take(function, "parametersJsonSchema") or _lower_types(function.get("parameters")),
        )
        for functions in declared
        if isinstance(functions, list)
        for function in functions
        if isinstance(function, dict) and isinstance(function.get("name"), str)
    )


def _lower_types(schema: Any, depth: int = 0) -> Any:
    """Return a schema whose types are JSON schema's: Google writes them in capitals."""
    if depth > DEPTH_MAX:
        return schema
    if isinstance(schema, list):
        return [_lower_types(item, depth + 1) for item in schema]
    if not isinstance(schema, dict):
        return schema
    lowered = {name: _lower_types(value, depth + 1) for name, value in schema.items()}
    if isinstance(schema.get("type"), str):
        lowered["type"] = schema["type"].lower()
    return lowered


def _find_told(turn: dict[str, Any]) -> str | None:
    """Return what a function answered, where the last turn has it."""
    for part in _list_parts(turn):
        told = take(part, "functionResponse")
        if isinstance(told, dict):
            response = told.get("response")
            values = list(response.values()) if isinstance(response, dict) else []
            if len(values) == 1 and isinstance(values[0], str):
                return values[0]
            return orjson.dumps(response).decode()
    return None
