"""Reads requests of Google's generateContent into the neutral form.

Source: https://ai.google.dev/api/generate-content. What Google runs itself and bills (code,
caches that lie there) is refused by name, other than a search: no other provider has it. The model
and whether it is to be a stream are in the path: `with_path` puts them into the body first.
"""

from collections.abc import Mapping
from typing import Any, Final

from apps.proxy.dialects.gemini_contents import read_contents, read_texts
from apps.proxy.dialects.gemini_parameters import GoogleParameters
from apps.proxy.dialects.gemini_schema import json_schema
from apps.proxy.dialects.neutral import (
    Effort,
    OutputFormat,
    Reasoning,
    Request,
    Text,
    Tool,
    ToolChoice,
    WebSearch,
)
from apps.proxy.dialects.openai_refusals import below_one, inexpressible, wrong_value
from apps.proxy.dialects.reasoning import EFFORTS
from apps.proxy.dialects.strict_schemas import closed
from apps.proxy.dialects.web_search import only_one, read_google_search

_MODEL_PREFIX: Final = "models/"
_JSON: Final = "application/json"
# How a stream is asked for, beside its method.
_OF_PATHS: Final = ("alt", "stream")
_TOLD_BY_PATHS: Final = frozenset({*_OF_PATHS, "model"})
_ARRAY: Final = "json"
_MODES: Final = ("MODE_UNSPECIFIED", "AUTO", "ANY", "NONE", "VALIDATED")
# Filters that no other provider has are of no use there, unless they are off.
_NO_FILTER: Final = ("HARM_BLOCK_THRESHOLD_UNSPECIFIED", "BLOCK_NONE", "OFF")
_EVERY_TIER: Final = ("UNSPECIFIED", "STANDARD")
_DYNAMIC: Final = -1
_LEVELS: Final[dict[str, Effort]] = {name.upper(): name for name in EFFORTS if name != "max"}


def with_path(
    body: Mapping[str, Any], *, model: str, is_stream: bool, is_array: bool = False
) -> dict[str, Any]:
    """Return a body with what its path says, as `read_request` takes it.

    `is_array`: the stream is to be one JSON array. Raises E13 where the body names another model,
    and E14 where it has what only a path can say.
    """
    if not body.keys().isdisjoint(_TOLD_BY_PATHS):
        _check_path(body, model)
    told = {**body, "model": model}
    if is_stream:
        told["stream"] = True
    if is_array:
        told["alt"] = _ARRAY
    return told


def _check_path(body: Mapping[str, Any], model: str) -> None:
    """Raise E13 and E14 for what a body says otherwise than its path, or in its place."""
    given = GoogleParameters(body)
    named = given.text("model")
    if named is not None and named.removeprefix(_MODEL_PREFIX) != model:
        raise wrong_value("model", "the model of the path")
    for name in _OF_PATHS:
        if name in body:
            raise given.refuse(name)


def counted_request(body: Mapping[str, Any]) -> dict[str, Any]:
    """Return the request whose tokens are to be counted: the body itself, or one within it.

    Source: https://ai.google.dev/api/tokens. Raises E13 and E14.
    """
    given = GoogleParameters(body)
    within = given.mapping("generateContentRequest")
    if within is None:
        return dict(body)
    given.ignore("model")
    given.finish()
    return dict(within)


def read_request(body: Mapping[str, Any]) -> Request:
    """Return what a request says; raises E13 and E14 with the parameter at fault."""
    given = GoogleParameters(body)
    config = given.member("generationConfig") or GoogleParameters({}, "generationConfig")
    turns = read_contents(given)
    tools, web_search = _tools(given)
    thinking = config.member("thinkingConfig")
    request = Request(
        model=given.require_text("model").removeprefix(_MODEL_PREFIX),
        system=_system(given),
        turns=turns,
        tools=tools,
        web_search=web_search,
        tool_choice=_tool_choice(given, tools),
        reasoning=None if thinking is None else _reasoning(thinking),
        format=_format(config),
        output_limit=_at_least_one(config, "maxOutputTokens"),
        temperature=config.number("temperature", 0, 2),
        top_p=config.number("topP", 0, 1),
        top_k=config.integer("topK"),
        frequency_penalty=config.number("frequencyPenalty", -2, 2),
        presence_penalty=config.number("presencePenalty", -2, 2),
        stop=config.texts("stopSequences"),
        choices=_at_least_one(config, "candidateCount") or 1,
        seed=config.integer("seed"),
        is_standard_tier=_is_standard_tier(given),
        is_stream=given.flag("stream") or False,
        is_continued=turns[-1].role == "assistant",
        names={
            "turns": "contents",
            **{field: config.name(name) for field, name in _NAMES.items()},
            "tool_choice": given.name("toolConfig"),
            "is_standard_tier": given.name("serviceTier"),
        },
    )
    if request.choices > 1:
        # Of several answers only one could be told.
        raise config.refuse("candidateCount")
    _check_filters(given)
    # Of this the answer's writer knows.
    given.ignore("alt", unless=(_ARRAY,))
    given.ignore("store", unless=(False,))
    for name in ("responseLogprobs", "audioTimestamp", "enableEnhancedCivicAnswers"):
        config.ignore(name, unless=(False,))
    config.ignore("logprobs", unless=(0,))
    config.ignore("responseModalities", unless=(["TEXT"], ["text"]))
    config.ignore("mediaResolution", unless=("MEDIA_RESOLUTION_UNSPECIFIED",))
    config.finish()
    given.finish()
    return request


_NAMES: Final = {
    "choices": "candidateCount",
    "format": "responseMimeType",
    "frequency_penalty": "frequencyPenalty",
    "output_limit": "maxOutputTokens",
    "presence_penalty": "presencePenalty",
    "reasoning": "thinkingConfig",
    "seed": "seed",
    "stop": "stopSequences",
    "temperature": "temperature",
    "top_k": "topK",
    "top_p": "topP",
}


def _at_least_one(config: GoogleParameters, name: str) -> int | None:
    value = config.integer(name)
    if value is not None and value < 1:
        raise below_one(config.name(name))
    return value


def _is_standard_tier(given: GoogleParameters) -> bool | None:
    tier = given.text("serviceTier")
    if tier is None:
        return None
    if tier.upper() not in _EVERY_TIER:
        raise given.refuse("serviceTier")
    return True if tier.upper() == "STANDARD" else None


def _check_filters(given: GoogleParameters) -> None:
    """Raise E14 for a filter that is on."""
    for setting in given.objects("safetySettings"):
        setting.ignore("category", "method")
        threshold = setting.text("threshold")
        if threshold is not None and threshold.upper() not in _NO_FILTER:
            raise setting.refuse("threshold")
        setting.finish()


def _system(given: GoogleParameters) -> tuple[Text, ...]:
    instruction = given.member("systemInstruction")
    if instruction is None:
        return ()
    instruction.ignore("role")
    found = read_texts(instruction)
    instruction.finish()
    return found


def _reasoning(thinking: GoogleParameters) -> Reasoning:
    """Return how the model is to think; Google tells no thoughts unless they are asked for."""
    budget = thinking.integer("thinkingBudget")
    level = thinking.one_of("thinkingLevel", ("THINKING_LEVEL_UNSPECIFIED", *_LEVELS))
    is_shown = thinking.flag("includeThoughts") or False
    effort = None if level is None else _LEVELS.get(level)
    if budget is not None and budget < _DYNAMIC:
        raise wrong_value(thinking.name("thinkingBudget"), f"at least {_DYNAMIC}")
    thinking.finish()
    if budget == 0 and effort is None:
        return Reasoning(is_on=False)
    is_asked = effort is not None or budget is not None or is_shown
    bound = budget if budget is not None and budget > 0 else None
    return Reasoning(
        is_on=True if is_asked else None,
        effort=effort,
        budget_tokens=bound,
        is_hidden=not is_shown,
        is_optional=is_asked and effort is None and bound is None,
    )


def _format(config: GoogleParameters) -> OutputFormat | None:
    kind = config.text("responseMimeType")
    own, standard = config.mapping("responseSchema"), config.mapping("responseJsonSchema")
    if own is not None and standard is not None:
        raise wrong_value(config.name("responseSchema"), "one schema")
    name = config.name("responseSchema" if own is not None else "responseJsonSchema")
    if kind == _JSON:
        if own is not None:
            standard = closed(json_schema(own))
        place = config.name("responseMimeType") if standard is None else name
        # Not in the sense of those who say strict: that forbids much that Google allows.
        return OutputFormat(standard, name="answer", is_strict=False, at=place)
    if kind not in (None, "text/plain"):
        raise config.refuse("responseMimeType")
    if own is not None or standard is not None:
        raise wrong_value(config.name("responseMimeType"), f"{_JSON} beside a schema")
    return None


def _tools(given: GoogleParameters) -> tuple[tuple[Tool, ...], WebSearch | None]:
    """Return the client's functions, and whether the provider may search."""
    found: list[Tool] = []
    searches: list[WebSearch] = []
    for tool in given.objects("tools"):
        found += [_read_tool(declared) for declared in tool.objects("functionDeclarations")]
        search = read_google_search(tool)
        if search is not None:
            searches.append(search)
        # A tool of Google's is told by an empty object.
        tool.finish(empty=(None,))
    return tuple(found), only_one(searches)


def _read_tool(declared: GoogleParameters) -> Tool:
    own = declared.mapping("parameters")
    standard = declared.mapping("parametersJsonSchema")
    if own is not None and standard is not None:
        raise wrong_value(declared.name("parameters"), "one schema")
    tool = Tool(
        name=declared.require_text("name"),
        description=declared.text("description"),
        schema=standard if own is None else json_schema(own),
        at=declared.at,
        schema_at=declared.name("parametersJsonSchema" if own is None else "parameters"),
    )
    # What a function answers is told to no other model; the rest is about live conversations.
    declared.ignore("response", "responseJsonSchema")
    declared.ignore("behavior", unless=("UNSPECIFIED", "BLOCKING"))
    declared.finish()
    return tool


def _tool_choice(given: GoogleParameters, tools: tuple[Tool, ...]) -> ToolChoice | None:
    config = given.member("toolConfig")
    if config is None:
        return None
    config.ignore("includeServerSideToolInvocations", unless=(False,))
    calling = config.member("functionCallingConfig")
    config.finish()
    if calling is None:
        return None
    mode = calling.one_of("mode", _MODES)
    allowed = calling.texts("allowedFunctionNames")
    place = calling.name("allowedFunctionNames")
    calling.ignore("streamFunctionCallArguments", unless=(False,))
    calling.finish()
    return _choice(mode, allowed, tools, place)


def _choice(
    mode: str | None, allowed: tuple[str, ...], tools: tuple[Tool, ...], place: str
) -> ToolChoice | None:
    if mode in (None, "MODE_UNSPECIFIED"):
        return None
    if mode == "NONE":
        return ToolChoice("none")
    is_any_allowed = not allowed or {tool.name for tool in tools} <= set(allowed)
    if mode == "ANY" and len(allowed) == 1:
        return ToolChoice("tool", allowed[0])
    if not is_any_allowed:
        # Nobody else lets a model choose among some.
        raise inexpressible(place)
    return ToolChoice("any" if mode == "ANY" else "auto")
