"""Whole answers of OpenAI's Responses, from and into the neutral form.

Each part of an answer is an item of its own, with an id made of the answer's and its position. An
answer repeats what was asked. Notes about sources (`annotations`) have no place elsewhere.

Source: https://platform.openai.com/docs/api-reference/responses/object
"""

from collections.abc import Mapping
from typing import Any, Final

from apps.core.errors import GatewayError
from apps.core.usage import Usage
from apps.proxy.dialects.neutral import (
    Answer,
    Part,
    Refusal,
    StopReason,
    Text,
    Thinking,
    ToolUse,
)
from apps.proxy.dialects.openai_usage import openai_usage
from apps.proxy.dialects.responses_input_reader import PARAGRAPH
from apps.proxy.dialects.responses_metering import SEARCH_ITEM, reported_usage
from apps.proxy.dialects.responses_tools import (
    ClientTool,
    called_name,
    client_tools,
    custom_arguments,
    custom_input,
)
from apps.proxy.dialects.sealed_thoughts import encrypted_content, read_thought
from apps.proxy.dialects.tool_arguments import NO_ARGUMENTS

_INCOMPLETE: Final[dict[str, StopReason]] = {
    "content_filter": "refusal",
    "max_output_tokens": "length",
}
# Reasons for which an answer is not complete; all others say that it is.
_CUT_SHORT: Final[dict[StopReason, str]] = {
    "context_length": "max_output_tokens",
    "length": "max_output_tokens",
    # The client may go on from there, as after any answer that is not complete.
    "pause": "max_output_tokens",
    "refusal": "content_filter",
}
# What an answer repeats of the request, and what holds where it was not told.
_REPEATED: Final[dict[str, Any]] = {
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "parallel_tool_calls": True,
    "prompt_cache_key": None,
    "safety_identifier": None,
    "temperature": 1.0,
    "tool_choice": "auto",
    "top_p": 1.0,
    "metadata": {},
    "user": None,
}
_REASONING: Final = {"effort": None, "summary": None}
_TEXT: Final = {"format": {"type": "text"}, "verbosity": "medium"}
_FUNCTION: Final = {"description": None, "parameters": None, "strict": False}


def stop_reason(document: Mapping[str, Any], *, has_tools: bool, has_refusal: bool) -> StopReason:
    """Return why an answer ended; one that is cut short for an unknown reason is too long."""
    if document.get("status") == "incomplete":
        details = document.get("incomplete_details")
        reason = details.get("reason") if isinstance(details, Mapping) else None
        return _INCOMPLETE.get(reason, "length") if isinstance(reason, str) else "length"
    if has_tools:
        return "tool_use"
    return "refusal" if has_refusal else "end"


def read_answer(document: Mapping[str, Any]) -> Answer:
    """Return what a response says; raises E49 if it is none, or says what has no equal."""
    output = document.get("output")
    if not isinstance(output, list) or document.get("status") in ("failed", "cancelled"):
        raise GatewayError("E49")
    parts = [part for item in output for part in read_item(item)]
    return Answer(
        id=_word(document.get("id")),
        model=_word(document.get("model")),
        parts=tuple(parts),
        stop=stop_reason(
            document,
            has_tools=any(isinstance(part, ToolUse) for part in parts),
            has_refusal=any(isinstance(part, Refusal) for part in parts),
        ),
        usage=reported_usage(document) or Usage(),
    )


def read_item(item: object) -> list[Part]:
    """Return what an item of the output says; raises E49 for what has no equal."""
    if isinstance(item, dict):
        kind = item.get("type")
        if kind == "message":
            return [_read_content(part) for part in _objects(item.get("content"))]
        if kind == "reasoning":
            return _read_reasoning(item)
        if kind == SEARCH_ITEM:
            # It has no equal elsewhere, and what the model says of it is a message.
            return []
        if kind == "function_call":
            return [_read_call(item, item.get("arguments") or NO_ARGUMENTS)]
        if kind == "custom_tool_call" and isinstance(item.get("input"), str):
            return [_read_call(item, custom_arguments(item["input"]))]
    # Such as the work of another tool that OpenAI runs, which no client can have asked for.
    raise GatewayError("E49")


def _read_call(item: Mapping[str, Any], arguments: object) -> ToolUse:
    if not isinstance(arguments, str):
        raise GatewayError("E49")
    name = called_name(_word(item.get("name")), _word(item.get("namespace")))
    return ToolUse(_word(item.get("call_id")), name, arguments)


def _read_content(part: Mapping[str, Any]) -> Part:
    kind = part.get("type")
    if kind == "output_text" and isinstance(part.get("text"), str):
        return Text(part["text"])
    if kind == "refusal" and isinstance(part.get("refusal"), str):
        return Refusal(part["refusal"])
    raise GatewayError("E49")


def _read_reasoning(item: Mapping[str, Any]) -> list[Part]:
    told = [*_objects(item.get("content")), *_objects(item.get("summary"))]
    texts = [_word(part.get("text")) for part in told]
    thought = read_thought(PARAGRAPH.join(texts), _word(item.get("encrypted_content")))
    # OpenAI often shows nothing of a thought.
    return [thought] if any(thought) else []


def _objects(value: object) -> list[Mapping[str, Any]]:
    """Return the objects of an array, none where there is none."""
    if value is None:
        return []
    if not isinstance(value, list) or not all(isinstance(item, Mapping) for item in value):
        raise GatewayError("E49")
    return value


def _word(value: object) -> str:
    return value if isinstance(value, str) else ""


def write_answer(answer: Answer, *, created: int, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return a response; `created` is in seconds since 1970, `asked` the client's request."""
    tools = client_tools(asked)
    status = answer_status(answer.stop, has_refusal=any_refusal(answer))
    items = [
        part_item(part, item_id(part, answer.id, position, tools), tools)
        for position, part in enumerate(answer.parts)
    ]
    if items and status == "incomplete" and "status" in items[-1]:
        items[-1]["status"] = status
    return response_document(
        {"id": answer.id, "created_at": created, "status": status, "model": answer.model},
        asked,
        output=items,
        incomplete_details=incomplete_details(answer.stop, status),
        usage=responses_usage(answer.usage),
    )


def any_refusal(answer: Answer) -> bool:
    """Return whether the model declined in words."""
    return any(isinstance(part, Refusal) for part in answer.parts)


def answer_status(stop: StopReason, *, has_refusal: bool) -> str:
    """Return the status of an answer: a model that declines in words has completed it."""
    is_cut = stop in _CUT_SHORT and not (stop == "refusal" and has_refusal)
    return "incomplete" if is_cut else "completed"


def incomplete_details(stop: StopReason, status: str) -> dict[str, str] | None:
    """Return why an answer is not complete, None if it is."""
    return {"reason": _CUT_SHORT[stop]} if status == "incomplete" else None


def response_document(
    head: Mapping[str, Any], asked: Mapping[str, Any], **told: Any
) -> dict[str, Any]:
    """Return a response of these members, which repeats what was asked and says what was done."""
    repeated = {
        name: default if asked.get(name) is None else asked[name]
        for name, default in _REPEATED.items()
    }
    return {
        "id": head["id"],
        "object": "response",
        **head,
        "background": False,
        "error": None,
        "incomplete_details": None,
        "output": [],
        "previous_response_id": None,
        **repeated,
        "reasoning": {**_REASONING, **_given(asked.get("reasoning"))},
        "service_tier": "default",
        "store": False,
        "text": {**_TEXT, **_given(asked.get("text"))},
        "tools": [
            {**_FUNCTION, **tool} if tool.get("type") == "function" else tool
            for tool in asked.get("tools") or ()
        ],
        "top_logprobs": 0,
        "truncation": "disabled",
        "usage": None,
        **told,
    }


def _given(members: object) -> dict[str, Any]:
    """Return what is told in an object, nothing where it is none."""
    if not isinstance(members, Mapping):
        return {}
    return {name: value for name, value in members.items() if value is not None}


def item_id(part: Part, answer_id: str, position: int, tools: Mapping[str, ClientTool]) -> str:
    """Return the id of an item, which begins as OpenAI's do."""
    kind = "msg"
    if isinstance(part, Thinking):
        kind = "rs"
    elif isinstance(part, ToolUse):
        kind = "ctc" if is_custom(part, tools) else "fc"
    return f"{kind}_{answer_id}_{position}"


def is_custom(part: ToolUse, tools: Mapping[str, ClientTool]) -> bool:
    """Return whether the client knows the tool as one that takes any text."""
    return part.name in tools and tools[part.name].is_custom


def part_item(
    part: Part, identifier: str, tools: Mapping[str, ClientTool], status: str = "completed"
) -> dict[str, Any]:
    """Return a part as an item of the output."""
    match part:
        case Text() | Refusal():
            content = [content_part(part)]
            return {
                "id": identifier,
                "type": "message",
                "status": status,
                "content": content,
                "role": "assistant",
            }
        case Thinking():
            sealed = encrypted_content(signature=part.signature, redacted=part.redacted)
            summary = [{"type": "summary_text", "text": part.text}] if part.text else []
            return {
                "id": identifier,
                "type": "reasoning",
                "summary": summary,
                **({"encrypted_content": sealed} if sealed else {}),
            }
        case ToolUse():
            return _call_item(part, identifier, tools.get(part.name), status)
        case _:
            raise ValueError(f"A model does not answer with {type(part).__name__}.")


def content_part(part: Text | Refusal) -> dict[str, Any]:
    """Return what stands in a message."""
    if isinstance(part, Refusal):
        return {"type": "refusal", "refusal": part.text}
    return {"type": "output_text", "annotations": [], "logprobs": [], "text": part.text}


def _call_item(
    part: ToolUse, identifier: str, tool: ClientTool | None, status: str
) -> dict[str, Any]:
    """Return a call of a tool as the client knows it."""
    tool = tool or ClientTool(part.name)
    called = {"call_id": part.id, "name": tool.name}
    if tool.namespace:
        called["namespace"] = tool.namespace
    if tool.is_custom:
        text = custom_input(part.arguments) if part.arguments else ""
        return {
            "id": identifier,
            "type": "custom_tool_call",
            "status": status,
            "input": text,
            **called,
        }
    return {
        "id": identifier,
        "type": "function_call",
        "status": status,
        "arguments": part.arguments,
        **called,
    }


def responses_usage(usage: Usage) -> dict[str, Any]:
    """Return a usage in this dialect's shape, whose counts sum to the same tokens (I-29).

    What it has no name for is told as Chat Completions tell it, where there is any.
    """
    told = openai_usage(usage)
    inputs, outputs = told["prompt_tokens_details"], told["completion_tokens_details"]
    always = ("cached_tokens", "reasoning_tokens")
    renamed: dict[str, Any] = {
        "input_tokens": told["prompt_tokens"],
        "input_tokens_details": {
            "cache_write_tokens": 0,
            **{name: count for name, count in inputs.items() if count or name in always},
        },
        "output_tokens": told["completion_tokens"],
        "output_tokens_details": {
            name: count for name, count in outputs.items() if count or name in always
        },
        "total_tokens": told["total_tokens"],
    }
    if "server_tool_use" in told:
        renamed["server_tool_use"] = told["server_tool_use"]
    return renamed
