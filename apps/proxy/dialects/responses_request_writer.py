"""Writes requests in the neutral form as OpenAI's Responses.

What this dialect cannot say is adapted by a rule that stands here, or refused by the client's own
name for it. Nothing is left with OpenAI: it is told not to store the answer, which it otherwise
does, and to seal thoughts so that the client can give them back.

Source: https://platform.openai.com/docs/api-reference/responses/create
"""

from collections.abc import Sequence
from typing import Any, Final

from apps.proxy.dialects.media_sources import data_url, document_text
from apps.proxy.dialects.neutral import (
    Audio,
    Document,
    Image,
    OutputFormat,
    Part,
    Refusal,
    Request,
    Target,
    Text,
    Thinking,
    Tool,
    ToolResult,
    ToolUse,
    Turn,
)
from apps.proxy.dialects.openai_chat_request_writer import (
    CHOICE_MODES,
    ERROR_MARK,
    FILE_NAME,
    RESTING,
    TOOL_NAME_LENGTH_MAX,
    USER_LENGTH_MAX,
)
from apps.proxy.dialects.openai_parameters import short_name
from apps.proxy.dialects.openai_refusals import inexpressible
from apps.proxy.dialects.reasoning import effort_name
from apps.proxy.dialects.sampling import with_sampling
from apps.proxy.dialects.sealed_thoughts import encrypted_content, is_openais
from apps.proxy.dialects.strict_schemas import is_strict
from apps.proxy.dialects.tool_choices import find_tool_choice
from apps.proxy.dialects.tool_names import told_name
from apps.proxy.dialects.tool_schemas import told_schema
from apps.proxy.dialects.web_search import responses_search

# Source: https://git.x-ys.cn/badlogic/pi-mono/issues/1022 (what OpenAI answers to others)
_CALL_ID_LENGTH_MAX: Final = 64
# Source: https://platform.openai.com/docs/api-reference/responses/create
_OUTPUT_TOKENS_MIN: Final = 16
# The name of a format has to be there, and is told to the model.
_FORMAT_NAME: Final = "answer"


def write_request(request: Request, target: Target) -> dict[str, Any]:
    """Return the body to send; raises E14 with the client's name of what cannot be said."""
    _check(request)
    limit = target.output_cap if target.output_cap is not None else request.output_limit
    if limit is not None and limit < _OUTPUT_TOKENS_MIN:
        raise request.refuse("output_limit")
    reasoning, include = _reasoning(request, target)
    is_thinking = (reasoning or {}).get("effort") not in RESTING
    request = with_sampling(request, target, is_thinking=is_thinking)
    instructions, items = _conversation(request)
    tools: list[dict[str, Any]] = [_tool(tool) for tool in request.tools]
    search = responses_search(request)
    if search is not None:
        tools.append(search[0])
    members: dict[str, Any] = {
        "instructions": instructions,
        "input": items,
        "max_output_tokens": limit,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "tools": tools or None,
        # The client's own tools are none of these.
        "max_tool_calls": None if search is None else search[1],
        "tool_choice": _tool_choice(request),
        "parallel_tool_calls": request.is_parallel if request.tools else None,
        "reasoning": reasoning,
        "include": include,
        "text": _text(request),
        "user": short_name(request.user, USER_LENGTH_MAX) or None,
        "metadata": request.metadata,
        "service_tier": "default" if request.is_standard_tier else None,
        "store": False,
        "stream": True if request.is_stream else None,
    }
    body: dict[str, Any] = {"model": target.model}
    body.update((name, value) for name, value in members.items() if value is not None)
    return body


def _check(request: Request) -> None:
    """Raise E14 for what no parameter of this dialect tells."""
    unknown = {
        # A penalty of 0 is none.
        "frequency_penalty": request.frequency_penalty or None,
        "presence_penalty": request.presence_penalty or None,
        "stop": request.stop or None,
        "seed": request.seed,
        "choices": request.choices if request.choices != 1 else None,
    }
    for field, value in unknown.items():
        if value is not None:
            raise request.refuse(field)


def _reasoning(request: Request, target: Target) -> tuple[dict[str, Any] | None, list[str] | None]:
    """Return how hard the model is to think, and what is to come with the answer."""
    asked = request.reasoning
    if asked is None:
        return None, None
    if target.reasoning == "none":
        # What does not think need not be told so.
        if asked.is_required:
            raise request.refuse("reasoning")
        return None, None
    told: dict[str, Any] = {}
    effort = effort_name(asked, target)
    if effort is not None:
        told["effort"] = effort
    if not asked.is_on:
        return told or None, None
    if not asked.is_hidden:
        told["summary"] = "auto"
    return told or None, ["reasoning.encrypted_content"]


def _conversation(request: Request) -> tuple[str | None, list[dict[str, Any]]]:
    """Return the instructions and the items: instructions are one text."""
    if request.is_continued:
        # Here it would be answered, and not continued.
        raise inexpressible(request.turns[-1].at)
    instructions: str | None = None
    items: list[dict[str, Any]] = []
    if len(request.system) == 1 and request.turns:
        instructions = request.system[0].text
    elif request.system:
        items.append(_message("system", request.system))
    for turn in request.turns:
        if turn.role == "assistant":
            items += _said(turn)
        elif turn.role == "system":
            items.append(_message("system", turn.parts))
        else:
            items += _heard(turn)
    if not items:
        raise request.refuse("turns")
    return instructions, items


def _heard(turn: Turn) -> list[dict[str, Any]]:
    """Return what a user says: first what tools answered, as it has to follow the calls."""
    items = [_result(part) for part in turn.parts if isinstance(part, ToolResult)]
    rest = [part for part in turn.parts if not isinstance(part, ToolResult)]
    if rest or not items:
        items.append(_message("user", rest))
    return items


def _said(turn: Turn) -> list[dict[str, Any]]:
    """Return what the model said, in its order: texts that follow each other are one message."""
    items: list[dict[str, Any]] = []
    texts: list[Part] = []
    for part in turn.parts:
        if not isinstance(part, Thinking | ToolUse):
            texts.append(part)
            continue
        if texts:
            items.append(_message("assistant", texts))
            texts = []
        if isinstance(part, ToolUse):
            items.append(_call(part))
        elif is_openais(part.signature):
            # Only its own provider can read a thought.
            items.append(_thought(part))
    if texts:
        items.append(_message("assistant", texts))
    return items


def _message(role: str, parts: Sequence[Part]) -> dict[str, Any]:
    if not parts:
        return {"role": role, "content": ""}
    first = parts[0]
    if len(parts) == 1 and isinstance(first, Text):
        return {"role": role, "content": first.text}
    kind = "output_text" if role == "assistant" else "input_text"
    return {"role": role, "content": [_part(part, kind) for part in parts]}


def _thought(part: Thinking) -> dict[str, Any]:
    summary = [{"type": "summary_text", "text": part.text}] if part.text else []
    sealed = encrypted_content(signature=part.signature)
    return {"type": "reasoning", "summary": summary, "encrypted_content": sealed}


def _call(part: ToolUse) -> dict[str, Any]:
    return {
        "type": "function_call",
        "call_id": _call_id(part.id),
        "name": part.name,
        "arguments": part.arguments,
    }


def _result(result: ToolResult) -> dict[str, Any]:
    """Return what a tool answered; that it failed has no other place than its text."""
    parts = list(result.parts)
    if result.is_error:
        first = parts[0] if parts else None
        if isinstance(first, Text):
            parts[0] = first._replace(text=ERROR_MARK + first.text)
        else:
            parts.insert(0, Text(ERROR_MARK))
    told: Any = [_part(part, "input_text") for part in parts]
    if len(parts) < 2 and all(isinstance(part, Text) for part in parts):
        told = told[0]["text"] if told else ""
    return {"type": "function_call_output", "call_id": _call_id(result.id), "output": told}


def _call_id(identifier: str) -> str:
    return short_name(identifier, _CALL_ID_LENGTH_MAX)


def _part(part: Part, kind: str) -> dict[str, Any]:
    if isinstance(part, Text):
        return {"type": kind, "text": part.text}
    if isinstance(part, Refusal):
        return {"type": "refusal", "refusal": part.text}
    if isinstance(part, Image):
        url = part.url or data_url(part.media_type, part.data)
        return {"type": "input_image", "image_url": url, "detail": part.detail or "auto"}
    if isinstance(part, Document):
        return _document(part, kind)
    if isinstance(part, Audio):
        sound = {"data": part.data, "format": part.format}
        return {"type": "input_audio", "input_audio": sound}
    # What is an item of its own cannot be part of a content.
    raise inexpressible(part.at)


def _document(part: Document, kind: str) -> dict[str, Any]:
    """Return a document: a plain text as a text under its title."""
    if part.text:
        return {"type": kind, "text": document_text(part)}
    if part.context:
        raise inexpressible(f"{part.at.rpartition('.')[0]}.context")
    if part.url:
        named = {"filename": part.title} if part.title else {}
        return {"type": "input_file", "file_url": part.url, **named}
    return {
        "type": "input_file",
        "filename": part.title or FILE_NAME,
        "file_data": data_url(part.media_type, part.data),
    }


def _tool(tool: Tool) -> dict[str, Any]:
    return {
        "type": "function",
        "name": told_name(tool, TOOL_NAME_LENGTH_MAX),
        **({} if tool.description is None else {"description": tool.description}),
        "parameters": told_schema(tool),
        # Here a tool is strict unless it is told otherwise.
        "strict": bool(tool.is_strict) and is_strict(tool.schema or {}),
    }


def _tool_choice(request: Request) -> str | dict[str, Any] | None:
    choice = find_tool_choice(request)
    if choice is None:
        return None
    if choice.mode == "tool":
        return {"type": "function", "name": choice.name}
    return CHOICE_MODES[choice.mode]


def _text(request: Request) -> dict[str, Any] | None:
    """Return the form of the answer and how much it is to say."""
    told: dict[str, Any] = {}
    if request.format is not None:
        told["format"] = _format(request.format)
    if request.verbosity is not None:
        told["verbosity"] = request.verbosity
    return told or None


def _format(asked: OutputFormat) -> dict[str, Any]:
    if asked.schema is None:
        return {"type": "json_object"}
    return {
        "type": "json_schema",
        "name": asked.name or _FORMAT_NAME,
        "schema": asked.schema,
        **({"description": asked.description} if asked.description else {}),
        "strict": asked.is_strict and is_strict(asked.schema),
    }
