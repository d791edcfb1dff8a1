"""What the input of a request consists of, for the count of its tokens. Pure.

A chat is rendered by the provider before the model reads it. OpenAI documents three tokens for each
message and three for the answer (its cookbook, "How to count tokens with tiktoken"); tools become
a namespace of TypeScript types, as found by trying (openai-chat-tokens, MIT), which is close to
what Claude counts too. Other vendors' templates differ by a few tokens; their tools are read as the
JSON that was sent.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

from apps.core.errors import GatewayError
from apps.proxy.dialects.conversion import DIALECTS, read_bounded
from apps.proxy.dialects.gemini_embedding import ENDPOINTS as EMBEDDING_ENDPOINTS
from apps.proxy.dialects.gemini_embedding import texts_of
from apps.proxy.dialects.neutral import Target
from apps.proxy.dialects.parsed_request import ParsedRequest
from apps.proxy.families import Family
from apps.proxy.media import audio_tokens, image_tokens

_MESSAGE_TOKENS: Final = 3
_ANSWER_TOKENS: Final = 3
_NAME_TOKENS: Final = 1
_CALL_TOKENS: Final = 3
# The name of a function that answers stands in the place of its role.
_FUNCTION_TOKENS: Final = 2
_TOOLS_TOKENS: Final = 9
# Tools bring a system message along, or join the one that is there.
_JOINED_TOKENS: Final = -4
_CHOICE_TOKENS: Final = 4
# Anthropic adds a prompt of its own where there are tools.
# Source: https://platform.claude.com/docs/en/agents-and-tools/tool-use/overview
_CLAUDE_TOOLS_TOKENS: Final = 346
# Deeper than any schema that a provider takes.
_DEPTH_MAX: Final = 16


class Prompt(NamedTuple):
    """What a model reads: texts to count, and tokens that are known without."""

    texts: list[str]
    tokens: int = 0
    image_tokens: int = 0
    audio_tokens: int = 0


def read_prompt(
    request: ParsedRequest, family: Family, model: str, image_tokens_max: int
) -> Prompt:
    """Return the input of a request, as a model of this family reads it."""
    if request.endpoint in EMBEDDING_ENDPOINTS:
        return Prompt(list(texts_of(request.body)))
    if request.dialect != "openai":
        return _converted(request, family, model, image_tokens_max)
    body = request.body
    if request.endpoint == "chat/completions":
        return _chat(body, family, model, image_tokens_max)
    if request.endpoint == "rerank":
        # The query is read again with each document.
        documents = [text for item in body["documents"] for text in _document_texts(item)]
        return Prompt([body["query"]] * len(body["documents"]) + documents)
    value = body.get("prompt" if request.endpoint == "completions" else "input")
    texts: list[str] = []
    tokens = images = 0
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, str):
            texts.append(item)
        elif isinstance(item, list):
            tokens += len(item)
        elif isinstance(item, int):
            tokens += 1
        elif isinstance(item, dict) and item.get("type") == "image_url":
            images += image_tokens(item, family, model, image_tokens_max)
        elif isinstance(item, dict) and isinstance(item.get("text"), str):
            texts.append(item["text"])
    return Prompt(texts, tokens, images)


def _converted(request: ParsedRequest, family: Family, model: str, image_tokens_max: int) -> Prompt:
    """Return the input of a request of another dialect, read as the chat that it comes to."""
    try:
        asked = read_bounded(request.dialect, request.body)
        body = DIALECTS["openai"].write_request(asked, Target(model, reasoning="effort"))
    except GatewayError:
        # Only its own provider can express it: what it says is read as it stands.
        return Prompt([json.dumps(request.body, ensure_ascii=False)])
    return _chat(body, family, model, image_tokens_max)


def _document_texts(document: object) -> list[str]:
    if isinstance(document, dict):
        return [value for value in document.values() if isinstance(value, str)]
    return [document] if isinstance(document, str) else []


def _chat(body: Mapping[str, Any], family: Family, model: str, image_tokens_max: int) -> Prompt:
    more, texts = _tools(body, family)
    tokens, images, audio = _ANSWER_TOKENS + more, 0, 0
    for message in body["messages"]:
        tokens += _MESSAGE_TOKENS - (_FUNCTION_TOKENS if message["role"] == "function" else 0)
        texts.append(message["role"])
        content = message.get("content")
        for part in content if isinstance(content, list) else [{"type": "text", "text": content}]:
            kind = part.get("type")
            if kind in ("text", "refusal"):
                _add(texts, part.get(kind))
            elif kind == "input_audio":
                audio += audio_tokens(part, family)
            else:
                images += image_tokens(part, family, model, image_tokens_max)
        if _add(texts, message.get("name")):
            tokens += _NAME_TOKENS
        for call in _calls(message):
            tokens += _CALL_TOKENS
            _add(texts, call.get("name"))
            _add(texts, call.get("arguments"))
    return Prompt(texts, tokens, images, audio)


def _add(texts: list[str], value: object) -> bool:
    if not isinstance(value, str) or not value:
        return False
    texts.append(value)
    return True


def _calls(message: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """Yield the functions that an earlier answer called."""
    calls = message.get("tool_calls")
    functions = [
        call.get(call.get("type", "function"))
        for call in (calls if isinstance(calls, list) else ())
        if isinstance(call, dict) and isinstance(call.get("type", "function"), str)
    ]
    for function in (*functions, message.get("function_call")):
        if isinstance(function, dict):
            yield function


def _tools(body: Mapping[str, Any], family: Family) -> tuple[int, list[str]]:
    """Return the tokens and texts of tools, of what must be called, and of a schema."""
    texts: list[str] = []
    tokens = 0
    tools = body.get("tools") or body.get("functions")
    if isinstance(tools, list) and tools:
        functions = [tool.get("function", tool) for tool in tools if isinstance(tool, dict)]
        if family.name not in ("openai", "claude"):
            texts.append(json.dumps(tools, ensure_ascii=False))
        else:
            texts.append(render_functions(functions))
            tokens += _TOOLS_TOKENS if family.name == "openai" else _CLAUDE_TOOLS_TOKENS
        if family.name == "openai" and any(
            message["role"] == "system" for message in body["messages"]
        ):
            tokens += _JOINED_TOKENS
        choice = body.get("tool_choice", body.get("function_call"))
        if isinstance(choice, dict):
            chosen = choice.get("function", choice)
            if isinstance(chosen, dict) and _add(texts, chosen.get("name")):
                tokens += _CHOICE_TOKENS
        elif choice == "none":
            tokens += 1
    response_format = body.get("response_format")
    if isinstance(response_format, dict) and isinstance(response_format.get("json_schema"), dict):
        schema = response_format["json_schema"].get("schema")
        texts.append(json.dumps(schema, ensure_ascii=False))
    return tokens, texts


def render_functions(functions: list[Any]) -> str:
    """Return functions as the TypeScript that OpenAI's models read."""
    lines = ["namespace functions {", ""]
    for function in functions:
        if not isinstance(function, dict):
            continue
        if function.get("description"):
            lines.append(f"// {function['description']}")
        parameters = function.get("parameters")
        members = _members(parameters, 0, 0) if isinstance(parameters, dict) else ""
        name = function.get("name")
        lines += (
            [f"type {name} = (_: {{", members, "}) => any;"]
            if members
            else [f"type {name} = () => any;"]
        )
        lines.append("")
    lines.append("} // namespace functions")
    return "\n".join(lines)


def _members(schema: Mapping[str, Any], indent: int, depth: int) -> str:
    properties = schema.get("properties")
    required = schema.get("required")
    lines: list[str] = []
    for name, member in properties.items() if isinstance(properties, dict) else ():
        if not isinstance(member, dict):
            continue
        if member.get("description"):
            lines.append(f"// {member['description']}")
        mark = "" if isinstance(required, list) and name in required else "?"
        lines.append(f"{name}{mark}: {_type(member, indent, depth)},")
    return "\n".join(" " * indent + line for line in lines)


def _type(schema: Mapping[str, Any], indent: int, depth: int) -> str:
    kind = schema.get("type")
    if depth > _DEPTH_MAX:
        return "any"
    if isinstance(schema.get("enum"), list):
        quote = '"' if kind == "string" else ""
        return " | ".join(f"{quote}{value}{quote}" for value in schema["enum"])
    if kind == "object":
        return "\n".join(["{", _members(schema, indent + 2, depth + 1), "}"])
    if kind == "array":
        items = schema.get("items")
        inner = _type(items, indent, depth + 1) if isinstance(items, dict) else "any"
        return f"{inner}[]"
    choices = schema.get("anyOf") or schema.get("oneOf")
    if isinstance(choices, list):
        inner_types = (_type(item, indent, depth + 1) for item in choices if isinstance(item, dict))
        return " | ".join(inner_types)
    if isinstance(kind, list):
        return " | ".join(_TYPES.get(str(item), "any") for item in kind)
    return _TYPES.get(str(kind), "any")


_TYPES: Final = {"string": "string", "number": "number", "integer": "number", "boolean": "boolean",
                 "null": "null"}  # fmt: skip
