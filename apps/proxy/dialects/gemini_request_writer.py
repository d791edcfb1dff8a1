"""Writes requests in the neutral form as Google's generateContent.

What this dialect cannot say is adapted by a rule that stands here, or refused by the client's own
name for it. The model and whether it is to be a stream go into the path: `without_path` takes them
out of the body. Models of the form `effort` are Gemini 3 and later, `budget` Gemini 2.5.

Sources: https://ai.google.dev/api/generate-content, https://ai.google.dev/gemini-api/docs/thinking
and https://ai.google.dev/gemini-api/docs/function-calling
"""

from collections.abc import Mapping
from typing import Any, Final

from apps.proxy.dialects.gemini_media import media_parts
from apps.proxy.dialects.gemini_parts import NO_SIGNATURE
from apps.proxy.dialects.neutral import (
    Audio,
    Document,
    Effort,
    Image,
    OutputFormat,
    Part,
    Reasoning,
    Refusal,
    Request,
    Target,
    Text,
    Thinking,
    Tool,
    ToolResult,
    ToolUse,
)
from apps.proxy.dialects.openai_refusals import inexpressible
from apps.proxy.dialects.reasoning import BUDGET_TOKENS, asked_effort, budget_of_effort
from apps.proxy.dialects.sampling import with_sampling
from apps.proxy.dialects.sealed_thoughts import find_googles
from apps.proxy.dialects.tool_arguments import arguments_object
from apps.proxy.dialects.tool_choices import find_tool_choice
from apps.proxy.dialects.web_search import google_search

# What a client's path said, and a provider's will.
_OF_PATHS: Final = ("alt", "model", "stream")
_STOPS_MAX: Final = 5
_MEDIA_RESULTS: Final = "media_results"
_MODES: Final = {"none": "NONE", "any": "ANY"}
# The model chooses, and what it calls matches the schema.
_STRICT_MODE: Final = "VALIDATED"
# The most that each model with budgets takes.
_BUDGET_TOKENS_MAX: Final = 24_576
_AS_IT_LIKES: Final = -1
_NO_THOUGHTS: Final = {"thinkingBudget": 0}
# Above there is no level that every model with levels knows.
_LEVELS: Final[dict[Effort, str]] = {
    "minimal": "MINIMAL",
    "low": "LOW",
    "medium": "MEDIUM",
    "high": "HIGH",
    "xhigh": "HIGH",
    "max": "HIGH",
}


def without_path(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return a body without what belongs into its path."""
    return {name: value for name, value in body.items() if name not in _OF_PATHS}


def write_request(request: Request, target: Target) -> dict[str, Any]:
    """Return the body to send; raises E14 with the client's name of what cannot be said."""
    _check(request)
    writer = _Writer(request, target)
    system, contents = writer.conversation()
    limit = target.output_cap if target.output_cap is not None else request.output_limit
    thinking = writer.thinking(limit)
    request = with_sampling(request, target, is_thinking=thinking not in (None, _NO_THOUGHTS))
    config: dict[str, Any] = {
        "maxOutputTokens": limit,
        "temperature": request.temperature,
        "topP": request.top_p,
        "topK": request.top_k,
        "frequencyPenalty": request.frequency_penalty,
        "presencePenalty": request.presence_penalty,
        "stopSequences": list(request.stop) or None,
        "seed": request.seed,
        "thinkingConfig": thinking,
        **({} if request.format is None else _format(request.format)),
    }
    declared = [_tool(tool) for tool in request.tools]
    search = google_search(request, target)
    tools = [{"functionDeclarations": declared}] if declared else []
    if search is not None:
        tools.append(search)
    members: dict[str, Any] = {
        "systemInstruction": {"parts": system} if system else None,
        "contents": contents,
        "tools": tools or None,
        "toolConfig": _tool_config(request),
        "generationConfig": {name: value for name, value in config.items() if value is not None},
        "serviceTier": "standard" if request.is_standard_tier else None,
        "stream": True if request.is_stream else None,
    }
    return {
        "model": target.model,
        **{name: value for name, value in members.items() if value not in (None, {})},
    }


def _check(request: Request) -> None:
    """Raise E14 for what no parameter of this dialect tells.

    That one function is called at a time is a wish: Google's models call as many as they like, and
    whoever can answer one can answer them one by one.
    """
    unknown = {
        "metadata": request.metadata,
        "verbosity": request.verbosity,
        "choices": request.choices if request.choices != 1 else None,
        "stop": request.stop if len(request.stop) > _STOPS_MAX else None,
    }
    for field, value in unknown.items():
        if value is not None:
            raise request.refuse(field)
    if request.is_continued:
        # Here it would be answered, and not continued.
        raise inexpressible(request.turns[-1].at)


class _Writer:
    """What needs to know the request and the target at once."""

    __slots__ = ("_names", "_request", "_target")

    def __init__(self, request: Request, target: Target) -> None:
        self._request = request
        self._target = target
        # Of the calls up to here, by their ids, which some clients use again.
        self._names: dict[str, str] = {}

    def conversation(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return what the system says, and the contents.

        What the system says between the turns moves before them. Turns of one side that follow
        each other become one, since all answers of functions have to stand in one.
        """
        system = list(self._request.system)
        merged: list[tuple[str, list[Part]]] = []
        for turn in self._request.turns:
            parts = [part for part in turn.parts if _says_something(part)]
            if turn.role == "system":
                system += [part for part in parts if isinstance(part, Text)]
            elif merged and merged[-1][0] == turn.role:
                merged[-1][1].extend(parts)
            elif parts:
                merged.append((turn.role, parts))
        contents = [
            {"role": "model", "parts": self._model(parts)}
            if role == "assistant"
            else {"role": "user", "parts": self._user(parts)}
            for role, parts in merged
        ]
        if not contents:
            raise self._request.refuse("turns")
        return [{"text": text.text} for text in system if text.text], contents

    def _user(self, parts: list[Part]) -> list[dict[str, Any]]:
        """Return what a user says, first what his functions answered.

        An answer is text: its documents follow all answers, and so do its images for models that
        do not take them within.
        """
        answers: list[dict[str, Any]] = []
        rest: list[Part] = []
        for part in parts:
            if isinstance(part, ToolResult):
                answers.append(self._answer(part))
                rest += [inner for inner in part.parts if not self._is_in_answer(inner)]
        rest += [part for part in parts if not isinstance(part, ToolResult)]
        return [*answers, *(told for part in rest for told in _told(part))]

    def _answer(self, part: ToolResult) -> dict[str, Any]:
        name = self._names.get(part.id)
        if name is None:
            # An answer names its function, which only the call tells.
            raise inexpressible(part.at)
        texts = [inner.text for inner in part.parts if isinstance(inner, Text)]
        said: Any = texts[0] if len(texts) == 1 else texts or ""
        response = {"error" if part.is_error else "output": said}
        told: dict[str, Any] = {"id": part.id, "name": name, "response": response}
        images = [
            inner for inner in part.parts if isinstance(inner, Image) and self._is_in_answer(inner)
        ]
        if images:
            told["parts"] = [written for image in images for written in media_parts(image)]
        return {"functionResponse": told}

    def _is_in_answer(self, part: Text | Image | Document) -> bool:
        if isinstance(part, Image):
            return _MEDIA_RESULTS in self._target.extensions
        return isinstance(part, Text)

    def _model(self, parts: list[Part]) -> list[dict[str, Any]]:
        """Return what the model said.

        A signature stands on the first call that its thought led to, where there is none on what
        came next. Calls without one are told to be of another model.
        """
        written: list[dict[str, Any]] = []
        signature = ""
        for part, is_calling in zip(parts, _calls_on(parts), strict=True):
            if isinstance(part, Thinking):
                own = _signature(part)
                if signature and own:
                    written.append({"text": "", "thoughtSignature": signature})
                signature = own or signature
                if part.text:
                    written.append({"text": part.text, "thought": True})
                continue
            if isinstance(part, ToolUse):
                self._names[part.id] = part.name
            told = _told(part)
            if signature and told and (isinstance(part, ToolUse) or not is_calling):
                told[0]["thoughtSignature"] = signature
                signature = ""
            written += told
        if signature:
            written.append({"text": "", "thoughtSignature": signature})
        self._mark_unsigned(written)
        return written

    def _mark_unsigned(self, written: list[dict[str, Any]]) -> None:
        first = next((told for told in written if "functionCall" in told), None)
        if first is not None and self._target.reasoning == "effort":
            first.setdefault("thoughtSignature", NO_SIGNATURE)

    def thinking(self, limit: int | None) -> dict[str, Any] | None:
        """Return how the model is to think, None where it is not told."""
        asked = self._request.reasoning
        if asked is None:
            return None
        if self._target.reasoning == "none":
            # What does not think need not be told so.
            if asked.is_required:
                raise self._request.refuse("reasoning")
            return None
        is_by_level = self._target.reasoning == "effort"
        if asked.is_on is False:
            # Models with levels always think: as little as they can.
            return {"thinkingLevel": "MINIMAL"} if is_by_level else _NO_THOUGHTS
        if asked.is_on is None and asked.effort is None:
            return None
        told = _level(asked) if is_by_level else _budget(asked, limit)
        # To show thoughts that are not thought is refused.
        is_shown = not asked.is_hidden and told != _NO_THOUGHTS
        return {**told, **({"includeThoughts": True} if is_shown else {})} or None


def _says_something(part: Part) -> bool:
    """Return whether a part can be told.

    Google refuses an empty text, and nobody else can read what its own provider hides.
    """
    if isinstance(part, Thinking):
        return bool(part.text or _signature(part))
    return not isinstance(part, Text) or bool(part.text)


def _signature(thought: Thinking) -> str:
    """Return a signature that Google can read, "" for none and for one of another."""
    return find_googles(thought.signature) or ""


def _calls_on(parts: list[Part]) -> list[bool]:
    """Return for each part whether from it on a function is called before there is a thought."""
    found: list[bool] = []
    is_calling = False
    for part in reversed(parts):
        is_calling = isinstance(part, ToolUse) or (is_calling and not isinstance(part, Thinking))
        found.append(is_calling)
    found.reverse()
    return found


def _level(asked: Reasoning) -> dict[str, Any]:
    effort = asked_effort(asked)
    return {} if effort is None else {"thinkingLevel": _LEVELS[effort]}


def _budget(asked: Reasoning, limit: int | None) -> dict[str, Any]:
    budget = asked.budget_tokens
    if budget is None and asked.effort is not None:
        budget = BUDGET_TOKENS[asked.effort]
        if limit is not None:
            # Without room to think it thinks nothing.
            budget = budget_of_effort(asked.effort, limit) or 0
    elif budget is None:
        budget = _AS_IT_LIKES
    return {"thinkingBudget": min(budget, _BUDGET_TOKENS_MAX)}


def _told(part: Part) -> list[dict[str, Any]]:
    """Return a part that is no thought; before some stands what is told about them."""
    if isinstance(part, Text | Refusal):
        return [{"text": part.text}]
    if isinstance(part, Image | Document | Audio):
        return media_parts(part)
    if isinstance(part, ToolUse):
        called = arguments_object(part.arguments)
        return [{"functionCall": {"id": part.id, "name": part.name, "args": called}}]
    raise inexpressible(part.at)


def _tool(tool: Tool) -> dict[str, Any]:
    if tool.schema is not None and tool.schema.get("type", "object") != "object":
        raise inexpressible(tool.schema_at)
    return {
        "name": tool.name,
        **({} if tool.description is None else {"description": tool.description}),
        **({"parametersJsonSchema": tool.schema} if tool.schema else {}),
    }


def _tool_config(request: Request) -> dict[str, Any] | None:
    """Return which functions are to be called.

    A call that has to be made matches its schema in any case; one that may be made does so where
    any tool asks for it.
    """
    choice = find_tool_choice(request)
    calling: dict[str, Any] | None = None
    if choice is not None and choice.mode == "tool":
        calling = {"mode": "ANY", "allowedFunctionNames": [choice.name]}
    elif choice is not None and choice.mode != "auto":
        calling = {"mode": _MODES[choice.mode]}
    elif any(tool.is_strict for tool in request.tools):
        calling = {"mode": _STRICT_MODE}
    elif choice is not None:
        calling = {"mode": "AUTO"}
    return None if calling is None else {"functionCallingConfig": calling}


def _format(asked: OutputFormat) -> dict[str, Any]:
    told: dict[str, Any] = {"responseMimeType": "application/json"}
    if asked.schema is not None:
        described = {"description": asked.description} if asked.description else {}
        told["responseJsonSchema"] = {**described, **asked.schema}
    return told
