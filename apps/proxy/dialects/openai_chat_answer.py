"""Whole answers of OpenAI's Chat Completions, from and into the neutral form.

Only one choice: more are asked for in no other dialect. Thoughts come as `reasoning_content`, and
whole with their signatures as `thinking_blocks` (https://docs.litellm.ai/docs/reasoning_content),
which a client gives back. Notes about sources (`annotations`) have no place elsewhere.

Source: https://platform.openai.com/docs/api-reference/chat/object
"""

from collections.abc import Iterable, Mapping
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
from apps.proxy.dialects.openai_chat_request_reader import read_thoughts
from apps.proxy.dialects.openai_usage import openai_usage, parse_usage
from apps.proxy.dialects.parameters import Parameters
from apps.proxy.dialects.tool_arguments import NO_ARGUMENTS
from apps.proxy.dialects.tool_call_ids import call_id

# What a message may hold that has no equal in another dialect, and cannot have been asked for.
UNEQUALLED: Final = ("audio", "function_call", "images")
_ANSWERED: Final = (Refusal, Text, Thinking, ToolUse)
_STOPS: Final[dict[str, StopReason]] = {
    "stop": "end",
    "length": "length",
    "tool_calls": "tool_use",
    "function_call": "tool_use",
    "content_filter": "refusal",
}
_FINISH_REASONS: Final[dict[StopReason, str]] = {
    "end": "stop",
    "stop_sequence": "stop",
    "length": "length",
    # The client may go on from there, as after any answer that is not complete.
    "context_length": "length",
    "pause": "length",
    "tool_use": "tool_calls",
    "refusal": "content_filter",
}


def stop_reason(finish_reason: object, *, has_tools: bool, has_refusal: bool) -> StopReason:
    """Return why an answer ended; a word that nobody knows is a usual end.

    Some servers say `stop` where the model waits for its tools.
    """
    reason = _STOPS.get(finish_reason, "end") if isinstance(finish_reason, str) else "end"
    if reason != "end":
        return reason
    if has_tools:
        return "tool_use"
    return "refusal" if has_refusal else "end"


def finish_reason(stop: StopReason, *, has_refusal: bool) -> str:
    """Return why an answer ended in this dialect's words.

    A model that declines in words has completed its answer.
    """
    return _FINISH_REASONS["end" if stop == "refusal" and has_refusal else stop]


def read_answer(document: Mapping[str, Any]) -> Answer:
    """Return what a chat completion says; raises E49 if it is none, or says what has no equal."""
    choices = document.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    message = first.get("message") if isinstance(first, dict) else None
    if not isinstance(first, dict) or not isinstance(message, dict):
        raise GatewayError("E49")
    if any(message.get(member) for member in UNEQUALLED):
        raise GatewayError("E49")
    try:
        thoughts = read_thoughts(Parameters(message))
    except GatewayError as error:
        # It is the provider's fault, and not the client's.
        raise GatewayError("E49") from error
    parts: list[Part] = [thought._replace(at="") for thought in thoughts]
    parts += _said(message.get("content"))
    refusal = message.get("refusal")
    if isinstance(refusal, str) and refusal:
        parts.append(Refusal(refusal))
    told = message.get("tool_calls") or []
    if not isinstance(told, list):
        raise GatewayError("E49")
    identifier = _word(document.get("id"))
    calls = [_read_call(call, f"{identifier} {place}") for place, call in enumerate(told)]
    return Answer(
        id=identifier,
        model=_word(document.get("model")),
        parts=(*parts, *calls),
        stop=stop_reason(
            first.get("finish_reason"), has_tools=bool(calls), has_refusal=bool(refusal)
        ),
        usage=parse_usage(document.get("usage")) or Usage(),
    )


def _said(content: object) -> list[Part]:
    """Return what a content says: a text, or an array of typed parts (Mistral)."""
    if content is None or content == "":
        return []
    if isinstance(content, str):
        return [Text(content)]
    if not isinstance(content, list):
        raise GatewayError("E49")
    return [_read_said(part) for part in content]


def _read_said(part: object) -> Part:
    if isinstance(part, dict):
        text = part.get("text")
        if part.get("type") == "text" and isinstance(text, str):
            return Text(text)
        thoughts = part.get("thinking")
        if part.get("type") == "thinking" and isinstance(thoughts, list):
            texts = (item.get("text") for item in thoughts if isinstance(item, dict))
            return Thinking("".join(text for text in texts if isinstance(text, str)))
    raise GatewayError("E49")


def _read_call(call: object, place: str) -> ToolUse:
    """Return a call; `place` is where it stands, of which it gets an id where it has none."""
    function = call.get("function") if isinstance(call, dict) else None
    if not isinstance(call, dict) or not isinstance(function, dict):
        raise GatewayError("E49")
    arguments = function.get("arguments")
    if not isinstance(arguments, str | None):
        raise GatewayError("E49")
    name = _word(function.get("name"))
    return ToolUse(_word(call.get("id")) or call_id(place), name, arguments or NO_ARGUMENTS)


def _word(value: object) -> str:
    return value if isinstance(value, str) else ""


def thinking_block(thought: Thinking) -> dict[str, Any]:
    """Return a thought as a client gives it back."""
    if thought.redacted:
        return {"type": "redacted_thinking", "data": thought.redacted}
    return {"type": "thinking", "thinking": thought.text, "signature": thought.signature}


def write_answer(answer: Answer, *, created: int) -> dict[str, Any]:
    """Return a chat completion; `created` is in seconds since 1970.

    Texts are joined: this dialect has one, before all calls of tools.
    """
    for part in answer.parts:
        if not isinstance(part, _ANSWERED):
            raise ValueError(f"A model does not answer with {type(part).__name__}.")
    message: dict[str, Any] = {
        "role": "assistant",
        "content": _joined(part.text for part in answer.parts if isinstance(part, Text)),
        "refusal": _joined(part.text for part in answer.parts if isinstance(part, Refusal)),
    }
    thoughts = [part for part in answer.parts if isinstance(part, Thinking)]
    thought = _joined(part.text for part in thoughts)
    if thought is not None:
        message["reasoning_content"] = thought
    signed = [part for part in thoughts if part.signature or part.redacted]
    if signed:
        message["thinking_blocks"] = [thinking_block(part) for part in signed]
    calls = [
        {
            "id": part.id,
            "type": "function",
            "function": {"name": part.name, "arguments": part.arguments},
        }
        for part in answer.parts
        if isinstance(part, ToolUse)
    ]
    if calls:
        message["tool_calls"] = calls
    choice = {
        "index": 0,
        "message": message,
        "logprobs": None,
        "finish_reason": finish_reason(answer.stop, has_refusal=bool(message["refusal"])),
    }
    return {
        "id": answer.id,
        "object": "chat.completion",
        "created": created,
        "model": answer.model,
        "choices": [choice],
        "usage": openai_usage(answer.usage),
    }


def _joined(texts: Iterable[str]) -> str | None:
    """Return texts as one, None if they say nothing."""
    return "".join(texts) or None
