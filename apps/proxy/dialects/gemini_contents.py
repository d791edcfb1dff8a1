"""Reads the contents of a request to Google: who said what, in which parts.

Source: https://ai.google.dev/api/caching#Content. Calls of functions and what they answered belong
together by their ids where they have some, else by their names and order.
"""

from collections import deque
from collections.abc import Mapping
from itertools import groupby
from typing import Any, Final, Literal

import orjson

from apps.proxy.dialects.gemini_media import read_media
from apps.proxy.dialects.gemini_parameters import GoogleParameters
from apps.proxy.dialects.gemini_parts import (
    add_signature,
    add_thought,
    join_thoughts,
    standard_base64,
)
from apps.proxy.dialects.neutral import (
    Audio,
    Document,
    Image,
    Part,
    Text,
    ToolResult,
    ToolUse,
    Turn,
)
from apps.proxy.dialects.openai_refusals import missing, wrong_value
from apps.proxy.dialects.tool_arguments import arguments_text
from apps.proxy.dialects.tool_call_ids import call_id

# The last one is that of answers of functions in older SDKs.
_ROLES: Final = ("user", "model", "function")
_KINDS: Final = ("text", "inlineData", "fileData", "functionCall", "functionResponse")
_CONTENTS: Final = "contents"
# Of a request, as far as they are looked at: each takes a twentieth of the time to read it.
_EVENTS_MAX: Final = 200_000
# Under these a function answers, and nothing else is told beside.
_OUTPUT: Final = "output"
_ERROR: Final = "error"


class _Call:
    """A call of a function, which is answered once."""

    __slots__ = ("id", "is_answered")

    def __init__(self, identifier: str) -> None:
        self.id: Final = identifier
        self.is_answered = False


class _Calls:
    """The calls of functions that were not answered so far."""

    __slots__ = ("_by_id", "_by_name")

    def __init__(self) -> None:
        # Each in its order; what was answered by its other name is dropped when it comes up.
        self._by_id: dict[str, deque[_Call]] = {}
        self._by_name: dict[str, deque[_Call]] = {}

    def clear(self) -> None:
        """Forget them: nobody answers once the model has gone on."""
        self._by_id.clear()
        self._by_name.clear()

    def add(self, identifier: str, name: str) -> None:
        """Take a call."""
        call = _Call(identifier)
        self._by_id.setdefault(identifier, deque()).append(call)
        self._by_name.setdefault(name, deque()).append(call)

    def answer(self, identifier: str | None, name: str) -> str | None:
        """Return the id of the call that is answered, None if there is none.

        Some clients keep ids that others drop: without its id it is the first call of that name.
        """
        call = _first_open(self._by_id.get(identifier)) if identifier is not None else None
        call = call or _first_open(self._by_name.get(name))
        if call is None:
            return None
        call.is_answered = True
        return call.id


def _first_open(calls: deque[_Call] | None) -> _Call | None:
    while calls and calls[0].is_answered:
        calls.popleft()
    return calls[0] if calls else None


def read_contents(given: GoogleParameters) -> tuple[Turn, ...]:
    """Return the turns; contents of one side in a row, as SDKs gather from a stream, are one."""
    told = given.take(_CONTENTS)
    contents = (
        [
            GoogleParameters(content, f"{given.name(_CONTENTS)}[{position}]")
            for position, content in _joined(told)
        ]
        if isinstance(told, list)
        else given.objects(_CONTENTS)
    )
    if not contents:
        raise missing("contents")
    calls = _Calls()
    turns: list[tuple[Literal["user", "assistant"], str, list[Part]]] = []
    for content in contents:
        role = content.text("role") or "user"
        if role not in _ROLES:
            raise wrong_value(content.name("role"), f"one of {', '.join(_ROLES)}")
        side: Literal["user", "assistant"] = "assistant" if role == "model" else "user"
        if not turns or turns[-1][0] != side:
            turns.append((side, content.at, []))
            if side == "assistant":
                calls.clear()
        for part in content.objects("parts"):
            _read_part(part, side, turns[-1][2], calls)
        content.finish()
    return tuple(
        Turn(side, join_thoughts(_without_ends(parts) if side == "assistant" else parts), at)
        for side, at, parts in turns
    )


def _without_ends(parts: list[Part]) -> list[Part]:
    """Return what a model says without the empty texts that end streams, unless that is all."""
    return [part for part in parts if not isinstance(part, Text) or part.text] or parts


def with_streams_joined(body: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a body in which what a client kept of streams is as short as it is read; the same
    one where that is too long to be looked at.
    """
    told = body.get(_CONTENTS)
    if not isinstance(told, list) or len(told) > _EVENTS_MAX:
        return body
    return {**body, _CONTENTS: [content for _, content in _joined(told)]}


def _joined(contents: list[Any]) -> list[tuple[int, Any]]:
    """Return contents with their positions, those that were events of one stream as one.

    Google's SDKs keep each event as a content, mostly one for each token, and send all of them.
    """
    joined: list[tuple[int, Any]] = []
    runs = groupby(enumerate(contents), key=lambda numbered: _kind_streamed(numbered[1]))
    for kind, run in runs:
        if kind is None:
            joined += run
            continue
        events = list(run)
        text = "".join([content["parts"][0]["text"] for _, content in events])
        part = {"text": text, "thought": True} if kind == "thought" else {"text": text}
        joined.append((events[0][0], {"role": "model", "parts": [part]}))
    return joined


def _kind_streamed(content: Any) -> Literal["text", "thought"] | None:
    """Return of what a content is a piece, None for one that may be more than a piece."""
    if type(content) is not dict or content.keys() != {"parts", "role"}:
        return None
    parts = content["parts"]
    if content["role"] != "model" or type(parts) is not list or len(parts) != 1:
        return None
    part = parts[0]
    if type(part) is not dict or type(part.get("text")) is not str:
        return None
    if len(part) == 1:
        return "text"
    return "thought" if len(part) == 2 and part.get("thought") is True else None


def read_texts(content: GoogleParameters) -> tuple[Text, ...]:
    """Return a content that is nothing but text."""
    texts: list[Text] = []
    for part in content.objects("parts"):
        texts.append(Text(part.require_text("text"), at=part.at))
        part.finish()
    return tuple(texts)


def _read_part(part: GoogleParameters, side: str, parts: list[Part], calls: _Calls) -> None:
    """Add what a part says to those before it."""
    signature = standard_base64(part.text("thoughtSignature") or "")
    is_thought = part.flag("thought") or False
    # Notes of the client's for itself.
    part.ignore("partMetadata")
    kinds = [kind for kind in _KINDS if kind in part]
    if len(kinds) > 1:
        raise wrong_value(part.at, "one kind of data")
    if is_thought:
        add_thought(parts, part.require_text("text"), part.at)
        add_signature(parts, signature, part.at)
        part.finish()
        return
    add_signature(parts, signature, part.at)
    text, media = part.text("text"), read_media(part)
    call, answer = part.member("functionCall"), part.member("functionResponse")
    if text or (text is not None and not signature):
        parts.append(Text(text, at=part.at))
    elif media is not None:
        parts.append(media)
    elif call is not None:
        if side != "assistant":
            raise wrong_value(part.name("functionCall"), "a call by the model")
        parts.append(_read_call(call, calls))
    elif answer is not None:
        if side != "user":
            raise wrong_value(part.name("functionResponse"), "an answer to the model")
        parts.append(_read_answer(answer, calls))
    part.finish()
    if not kinds and not signature:
        raise missing(part.name("text"))


def _read_call(call: GoogleParameters, calls: _Calls) -> ToolUse:
    name = call.require_text("name")
    # One without an id has the same each time that it is sent.
    identifier = call.text("id") or call_id(call.at)
    use = ToolUse(identifier, name, arguments_text(call.mapping("args") or {}), at=call.at)
    call.ignore("willContinue", unless=(False,))
    call.finish()
    calls.add(identifier, name)
    return use


def _read_answer(answer: GoogleParameters, calls: _Calls) -> ToolResult:
    name = answer.require_text("name")
    identifier = calls.answer(answer.text("id"), name)
    if identifier is None:
        raise wrong_value(answer.name("name"), "the name of a function that was called before")
    response = answer.mapping("response")
    if response is None:
        raise missing(answer.name("response"))
    said, is_error = _said(response)
    parts: list[Text | Image | Document] = [Text(said, at=answer.name("response"))] if said else []
    for part in answer.objects("parts"):
        media = read_media(part)
        if media is None or isinstance(media, Audio):
            raise part.refuse("inlineData")
        parts.append(media)
        part.finish()
    answer.ignore("willContinue", unless=(False,))
    answer.finish()
    return ToolResult(identifier, tuple(parts), is_error, at=answer.at)


def _said(response: Mapping[str, Any]) -> tuple[str, bool]:
    """Return what a function answers as a text, and whether it failed."""
    is_error = response.keys() == {_ERROR}
    value: object = response
    if is_error or response.keys() == {_OUTPUT}:
        (value,) = response.values()
    return value if isinstance(value, str) else orjson.dumps(value).decode(), is_error
