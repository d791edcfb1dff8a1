"""Whole answers of Google's generateContent, from and into the neutral form.

Only one candidate: more are not asked for. Ratings, and notes about sources and searches, have no
place elsewhere. A prompt that Google declined has no candidate but tells why.

Source: https://ai.google.dev/api/generate-content#generatecontentresponse
"""

from collections.abc import Mapping
from typing import Any, Final

from apps.core.errors import GatewayError
from apps.core.usage import Usage
from apps.proxy.dialects.gemini_parameters import member, word
from apps.proxy.dialects.gemini_parts import (
    add_signature,
    add_thought,
    call_part,
    join_thoughts,
    thought_part,
)
from apps.proxy.dialects.gemini_searches import count_searches, with_searches
from apps.proxy.dialects.gemini_usage import gemini_usage, parse_gemini_usage
from apps.proxy.dialects.neutral import (
    Answer,
    Part,
    Refusal,
    StopReason,
    Text,
    Thinking,
    ToolUse,
)
from apps.proxy.dialects.tool_arguments import arguments_text
from apps.proxy.dialects.tool_call_ids import call_id

# What a part may hold beside what it says.
_BESIDE: Final = frozenset(
    {"partMetadata", "part_metadata", "thought", "thoughtSignature", "thought_signature"}
)
_STOPS: Final[dict[str, StopReason]] = {
    "STOP": "end",
    "MAX_TOKENS": "length",
    # The client may go on from there, as after any answer that is not complete.
    "CONTINUATION": "length",
    "BLOCKLIST": "refusal",
    "ESCALATION": "refusal",
    "IMAGE_PROHIBITED_CONTENT": "refusal",
    "IMAGE_RECITATION": "refusal",
    "IMAGE_SAFETY": "refusal",
    "LANGUAGE": "refusal",
    "MODEL_ARMOR": "refusal",
    "PROHIBITED_CONTENT": "refusal",
    "PUP_LIMITED_DISABLED": "refusal",
    "RECITATION": "refusal",
    "SAFETY": "refusal",
    "SPII": "refusal",
}
# The model wrote what cannot be told, and Google keeps it: there is no answer.
FAILURES: Final = frozenset(
    {
        "MALFORMED_FUNCTION_CALL",
        "MALFORMED_RESPONSE",
        "MISSING_THOUGHT_SIGNATURE",
        "TOO_MANY_TOOL_CALLS",
        "UNEXPECTED_TOOL_CALL",
    }
)
_FINISH_REASONS: Final[dict[StopReason, str]] = {
    "end": "STOP",
    "stop_sequence": "STOP",
    "tool_use": "STOP",
    "length": "MAX_TOKENS",
    "context_length": "MAX_TOKENS",
    "pause": "MAX_TOKENS",
    "refusal": "SAFETY",
}


class Unreadable(Exception):
    """The provider sent what this dialect does not know, or what has no equal elsewhere."""


def stop_reason(finish_reason: object, *, has_tools: bool) -> StopReason:
    """Return why an answer ended; a word that nobody knows is a usual end.

    Google says `STOP` where the model waits for its functions.
    """
    reason = _STOPS.get(finish_reason, "end") if isinstance(finish_reason, str) else "end"
    return "tool_use" if reason == "end" and has_tools else reason


def finish_reason(stop: StopReason) -> str:
    """Return why an answer ended in this dialect's words."""
    return _FINISH_REASONS[stop]


def first_candidate(document: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the only candidate, None if there is none."""
    candidates = document.get("candidates")
    first = candidates[0] if isinstance(candidates, list) and candidates else None
    return first if isinstance(first, dict) else None


def block_reason(document: Mapping[str, Any]) -> str:
    """Return why the prompt was declined, nothing where it was not."""
    feedback = member(document, "promptFeedback")
    return word(feedback, "blockReason") if isinstance(feedback, Mapping) else ""


def parts_of(candidate: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the parts of a candidate; raises Unreadable."""
    content = candidate.get("content")
    parts = content.get("parts") if isinstance(content, dict) else None
    if parts is None and (content is None or isinstance(content, dict)):
        # A model that only thought, or was stopped at once.
        return []
    if not isinstance(parts, list) or not all(isinstance(part, dict) for part in parts):
        raise Unreadable
    return parts


def text_of(part: Mapping[str, Any]) -> str:
    """Return the text of a part that holds nothing else; raises Unreadable."""
    if part.keys() - _BESIDE - {"text"}:
        # Such as code that Google ran, or an image.
        raise Unreadable
    text = part.get("text", "")
    if not isinstance(text, str):
        raise Unreadable
    return text


def tool_use(call: object, place: str) -> ToolUse:
    """Return a call of a function; `place` is where it stands, of which it gets an id.

    Raises Unreadable.
    """
    if not isinstance(call, Mapping):
        raise Unreadable
    name, arguments = call.get("name"), call.get("args", {})
    # Pieces of arguments come only to those who ask for them.
    if not isinstance(name, str) or not name or not isinstance(arguments, Mapping | None):
        raise Unreadable
    if member(call, "partialArgs") or member(call, "willContinue"):
        raise Unreadable
    return ToolUse(word(call, "id") or call_id(place), name, arguments_text(arguments or {}))


def read_answer(document: Mapping[str, Any]) -> Answer:
    """Return what a response says; raises E49 if it is none, or says what has no equal."""
    candidate = first_candidate(document)
    identifier = word(document, "responseId")
    reported = member(document, "usageMetadata")
    usage = (parse_gemini_usage(reported) if isinstance(reported, Mapping) else None) or Usage()
    answer = Answer(
        id=identifier,
        model=word(document, "modelVersion"),
        parts=(),
        stop="refusal",
        usage=with_searches(usage, count_searches(document)),
    )
    if candidate is None:
        if not block_reason(document):
            raise GatewayError("E49")
        return answer
    reason = member(candidate, "finishReason")
    if reason in FAILURES:
        raise GatewayError("E49")
    try:
        parts = _read_parts(candidate, identifier)
    except Unreadable as error:
        raise GatewayError("E49") from error
    has_tools = any(isinstance(part, ToolUse) for part in parts)
    return answer._replace(parts=parts, stop=stop_reason(reason, has_tools=has_tools))


def _read_parts(candidate: Mapping[str, Any], identifier: str) -> tuple[Part, ...]:
    parts: list[Part] = []
    calls = 0
    for part in parts_of(candidate):
        signature = word(part, "thoughtSignature")
        call = member(part, "functionCall")
        if call is not None:
            add_signature(parts, signature)
            parts.append(tool_use(call, f"{identifier} {calls}"))
            calls += 1
            continue
        text = text_of(part)
        if part.get("thought") is True:
            add_thought(parts, text)
            add_signature(parts, signature)
            continue
        add_signature(parts, signature)
        if text:
            parts.append(Text(text))
    return join_thoughts(parts)


def write_answer(answer: Answer) -> dict[str, Any]:
    """Return a response."""
    parts = [part_of(part) for part in answer.parts]
    candidate = {
        "content": {"parts": parts, "role": "model"},
        "finishReason": finish_reason(answer.stop),
        "index": 0,
    }
    return {
        "candidates": [candidate],
        "usageMetadata": gemini_usage(answer.usage),
        "modelVersion": answer.model,
        "responseId": answer.id,
    }


def part_of(part: Part) -> dict[str, Any]:
    """Return a part of an answer."""
    if isinstance(part, Text | Refusal):
        return {"text": part.text}
    if isinstance(part, Thinking):
        return thought_part(part)
    if isinstance(part, ToolUse):
        return call_part(part)
    raise ValueError(f"A model does not answer with {type(part).__name__}.")
