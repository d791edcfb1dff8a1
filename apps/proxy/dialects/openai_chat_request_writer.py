"""Writes requests in the neutral form as OpenAI's Chat Completions.

What this dialect cannot say is adapted by a rule that stands here, or refused by the client's own
name for it. A stream always asks for usage (I-31).

Source: https://platform.openai.com/docs/api-reference/chat/create
"""

from collections.abc import Sequence
from typing import Any, Final

from apps.proxy.dialects.cache_marks import cache_members
from apps.proxy.dialects.media_sources import data_url, document_text
from apps.proxy.dialects.neutral import (
    Audio,
    CacheMark,
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
from apps.proxy.dialects.openai_parameters import short_name
from apps.proxy.dialects.openai_refusals import inexpressible
from apps.proxy.dialects.reasoning import effort_name
from apps.proxy.dialects.sampling import with_sampling
from apps.proxy.dialects.strict_schemas import is_strict
from apps.proxy.dialects.tool_choices import find_tool_choice
from apps.proxy.dialects.tool_names import told_name
from apps.proxy.dialects.tool_schemas import told_schema
from apps.proxy.dialects.web_search import CHAT_PARAMETER, chat_search

_STOPS_MAX: Final = 4
TOOL_NAME_LENGTH_MAX: Final = 64
# Both are not documented; OpenAI refuses what is longer. Claude Code's user is.
# Sources: https://github.com/vercel/ai/issues/5171, https://github.com/maximhq/bifrost/pull/1000
_ID_LENGTH_MAX: Final = 40
USER_LENGTH_MAX: Final = 64
# A result has no other place to say that the tool failed.
ERROR_MARK: Final = "Error: "
# Which OpenAI refuses.
_SILENCE: Final = {"role": "assistant", "content": None}
# Efforts that are none.
RESTING: Final = (None, "none")
CHOICE_MODES: Final = {"auto": "auto", "none": "none", "any": "required"}
_PDF: Final = "application/pdf"
# The name of a document is told to the model, and has to be there.
FILE_NAME: Final = "document.pdf"


def write_request(request: Request, target: Target) -> dict[str, Any]:
    """Return the body to send; raises E14 with the client's name of what cannot be said."""
    writer = _Writer(request, target)
    effort = writer.effort()
    request = with_sampling(request, target, is_thinking=effort not in RESTING)
    body: dict[str, Any] = {"model": target.model, "messages": writer.messages()}
    limit = target.output_cap if target.output_cap is not None else request.output_limit
    members: dict[str, Any] = {
        target.cap_parameter: limit,
        "temperature": request.temperature,
        "top_p": request.top_p,
        "top_k": writer.top_k(),
        "frequency_penalty": request.frequency_penalty,
        "presence_penalty": request.presence_penalty,
        "stop": writer.stop(),
        "n": request.choices if request.choices != 1 else None,
        "seed": request.seed,
        "tools": [writer.tool(tool) for tool in request.tools] or None,
        "tool_choice": _tool_choice(request),
        CHAT_PARAMETER: chat_search(request, target),
        # Without tools OpenAI refuses to be told.
        "parallel_tool_calls": request.is_parallel if request.tools else None,
        "reasoning_effort": effort,
        "verbosity": request.verbosity,
        "response_format": None if request.format is None else _format(request.format),
        "user": short_name(request.user, USER_LENGTH_MAX) or None,
        "metadata": request.metadata,
        "service_tier": "default" if request.is_standard_tier else None,
    }
    body.update((name, value) for name, value in members.items() if value is not None)
    if request.is_stream:
        body["stream"] = True
        body["stream_options"] = {"include_usage": True}
    return body


class _Writer:
    """What needs to know the request and the target at once."""

    __slots__ = ("_request", "_target")

    def __init__(self, request: Request, target: Target) -> None:
        self._request = request
        self._target = target

    def top_k(self) -> int | None:
        """Return the number of candidates, which not every server of this dialect knows."""
        return self._request.top_k if "top_k" in self._target.extensions else None

    def stop(self) -> list[str] | None:
        """Return the texts that end an answer."""
        if len(self._request.stop) > _STOPS_MAX:
            raise self._request.refuse("stop")
        return list(self._request.stop) or None

    def effort(self) -> str | None:
        """Return how hard the model is to think."""
        asked = self._request.reasoning
        if asked is None:
            return None
        if self._target.reasoning == "none":
            # What does not think need not be told so.
            if asked.is_required:
                raise self._request.refuse("reasoning")
            return None
        return effort_name(asked, self._target)

    def tool(self, tool: Tool) -> dict[str, Any]:
        """Return a tool."""
        function: dict[str, Any] = {"name": told_name(tool, TOOL_NAME_LENGTH_MAX)}
        if tool.description is not None:
            function["description"] = tool.description
        schema = told_schema(tool)
        if schema is not None:
            function["parameters"] = schema
        if tool.is_strict is not None:
            function["strict"] = tool.is_strict and is_strict(tool.schema or {})
        return {"type": "function", "function": function, **self._cache(tool.cache)}

    def messages(self) -> list[dict[str, Any]]:
        """Return the messages, the system's first."""
        turns = self._request.turns
        if self._request.is_continued:
            # Here it would be answered, and not continued.
            raise inexpressible(turns[-1].at)
        messages: list[dict[str, Any]] = []
        if self._request.system:
            messages.append({"role": "system", "content": self._content(self._request.system)})
        for turn in turns:
            if turn.role == "assistant":
                messages += self._assistant(turn)
            elif turn.role == "system":
                messages.append({"role": "system", "content": self._content(turn.parts)})
            else:
                messages += self._user(turn)
        if not messages:
            raise self._request.refuse("turns")
        return messages

    def _cache(self, mark: CacheMark | None) -> dict[str, Any]:
        # OpenAI caches every prompt by itself.
        return cache_members(mark) if "cache_control" in self._target.extensions else {}

    def _user(self, turn: Turn) -> list[dict[str, Any]]:
        """Return the messages of a user: first what tools answered, as it has to follow the calls.

        A tool answers with text only: its images and documents follow in the user's message.
        """
        messages: list[dict[str, Any]] = []
        rest: list[Part] = []
        for part in turn.parts:
            if not isinstance(part, ToolResult):
                continue
            texts = [inner for inner in part.parts if isinstance(inner, Text)]
            rest += [inner for inner in part.parts if not isinstance(inner, Text)]
            content = self._content(texts)
            if part.is_error:
                content = _marked_as_error(content)
            result = {"role": "tool", "tool_call_id": _id(part.id), "content": content}
            messages.append({**result, **self._cache(part.cache)})
        rest += [part for part in turn.parts if not isinstance(part, ToolResult)]
        if rest or not messages:
            messages.append({"role": "user", "content": self._content(rest)})
        return messages

    def _assistant(self, turn: Turn) -> list[dict[str, Any]]:
        """Return what the model said as a message, none where nothing of it can be told."""
        message: dict[str, Any] = {"role": "assistant"}
        said = [part for part in turn.parts if isinstance(part, Text | Image | Document | Audio)]
        message["content"] = self._content(said) if said else None
        thoughts = [part for part in turn.parts if isinstance(part, Thinking)]
        text = "".join(thought.text for thought in thoughts)
        # Elsewhere a thought is of no use: only who had it could read its signature.
        if text and "reasoning_content" in self._target.extensions:
            message["reasoning_content"] = text
        refusals = [part.text for part in turn.parts if isinstance(part, Refusal)]
        if refusals:
            message["refusal"] = "".join(refusals)
        calls = [
            {
                "id": _id(part.id),
                "type": "function",
                "function": {"name": part.name, "arguments": part.arguments},
            }
            for part in turn.parts
            if isinstance(part, ToolUse)
        ]
        if calls:
            message["tool_calls"] = calls
        return [] if message == _SILENCE else [message]

    def _content(self, parts: Sequence[Part]) -> Any:
        """Return a content: a text where that says all, else an array of parts."""
        if not parts:
            return ""
        written = [self._part(part) for part in parts]
        if len(written) == 1 and written[0].keys() == {"type", "text"}:
            return written[0]["text"]
        return written

    def _part(self, part: Part) -> dict[str, Any]:
        if isinstance(part, Text):
            return {"type": "text", "text": part.text, **self._cache(part.cache)}
        if isinstance(part, Image):
            url = part.url or data_url(part.media_type, part.data)
            detail = {"detail": part.detail} if part.detail else {}
            image = {"url": url, **detail}
            return {"type": "image_url", "image_url": image, **self._cache(part.cache)}
        if isinstance(part, Audio):
            sound = {"data": part.data, "format": part.format}
            return {"type": "input_audio", "input_audio": sound}
        if isinstance(part, Document):
            return self._document(part)
        # What has a place of its own in a message cannot be part of its content.
        raise inexpressible(part.at)

    def _document(self, part: Document) -> dict[str, Any]:
        """Return a document: a PDF as a file, a plain text as a text under its title."""
        if part.text:
            return {"type": "text", "text": document_text(part), **self._cache(part.cache)}
        if part.url or part.media_type != _PDF:
            raise inexpressible(part.at)
        if part.context:
            raise inexpressible(f"{part.at.rpartition('.')[0]}.context")
        file = {
            "filename": part.title or FILE_NAME,
            "file_data": data_url(part.media_type, part.data),
        }
        return {"type": "file", "file": file, **self._cache(part.cache)}


def _id(identifier: str) -> str:
    """Return an id of a call of a tool."""
    return short_name(identifier, _ID_LENGTH_MAX)


def _marked_as_error(content: Any) -> Any:
    if isinstance(content, str):
        return ERROR_MARK + content
    return [{"type": "text", "text": ERROR_MARK}, *content]


def _tool_choice(request: Request) -> str | dict[str, Any] | None:
    choice = find_tool_choice(request)
    if choice is None:
        return None
    if choice.mode == "tool":
        return {"type": "function", "function": {"name": choice.name}}
    return CHOICE_MODES[choice.mode]


def _format(asked: OutputFormat) -> dict[str, Any]:
    if asked.schema is None:
        return {"type": "json_object"}
    described: dict[str, Any] = {"name": asked.name or "answer", "schema": asked.schema}
    if asked.description:
        described["description"] = asked.description
    if asked.is_strict and is_strict(asked.schema):
        described["strict"] = True
    return {"type": "json_schema", "json_schema": described}
