"""Reads requests of OpenAI's Responses into the neutral form.

What lies with OpenAI (earlier answers, conversations, prompts, files) is refused by name, and so
are tools that it runs itself, other than a search. Nothing is stored elsewhere: `store` is refused
where it is asked for, while OpenAI's own default is passed over, and the answer then says that it
is not stored.

Source: https://platform.openai.com/docs/api-reference/responses/create
"""

from collections.abc import Mapping
from typing import Any, Final

from apps.proxy.dialects.neutral import OutputFormat, Reasoning, Request, ToolChoice, Verbosity
from apps.proxy.dialects.openai_parameters import (
    CACHE_HINTS,
    is_standard_tier,
    read_choice_mode,
    read_user,
    read_verbosity,
)
from apps.proxy.dialects.openai_refusals import below_one, inexpressible, missing
from apps.proxy.dialects.parameters import Parameters
from apps.proxy.dialects.reasoning import read_effort
from apps.proxy.dialects.responses_input_reader import read_input
from apps.proxy.dialects.responses_tools import read_tools

_KEPT_BY_OPENAI: Final = ("previous_response_id", "conversation", "prompt")
_THOUGHTS: Final = "reasoning.encrypted_content"
_SUMMARIES: Final = ("auto", "concise", "detailed")
_NAMES: Final = {
    "output_limit": "max_output_tokens",
    "format": "text.format",
    "verbosity": "text.verbosity",
    "is_standard_tier": "service_tier",
    "reasoning": "reasoning.effort",
    "turns": "input",
}


def read_request(body: Mapping[str, Any]) -> Request:
    """Return what a request says; raises E13 and E14 with the parameter at fault."""
    given = Parameters(body)
    for name in _KEPT_BY_OPENAI:
        if name in given:
            raise given.refuse(name)
    system, turns = read_input(given)
    limit = given.integer("max_output_tokens")
    if limit is not None and limit < 1:
        raise below_one("max_output_tokens")
    user, user_name = read_user(given)
    output_format, verbosity = _text(given)
    tools, web_search = read_tools(given)
    request = Request(
        model=given.require_text("model"),
        system=system,
        turns=turns,
        tools=tools,
        web_search=web_search,
        tool_choice=_tool_choice(given),
        is_parallel=given.flag("parallel_tool_calls"),
        reasoning=_reasoning(given),
        format=output_format,
        verbosity=verbosity,
        output_limit=limit,
        temperature=given.number("temperature", 0, 2),
        top_p=given.number("top_p", 0, 1),
        user=user,
        metadata=given.mapping("metadata") or None,
        is_standard_tier=is_standard_tier(given),
        is_stream=given.flag("stream") or False,
        names={**_NAMES, "user": user_name},
    )
    _check_the_rest(given)
    given.finish()
    return request


def _check_the_rest(given: Parameters) -> None:
    """Raise E14 for what is asked of OpenAI alone, and pass over what changes no answer."""
    for position, name in enumerate(given.texts("include")):
        # Thoughts always come with it, if they have it.
        if name != _THOUGHTS:
            raise inexpressible(f"include[{position}]")
    options = given.member("stream_options")
    if options is not None:
        options.ignore("include_obfuscation")
        options.finish()
    # The former is about tools that OpenAI runs, and known where there is one that searches; the
    # latter is Codex's note to OpenAI.
    given.ignore("max_tool_calls", "client_metadata")
    given.ignore(*CACHE_HINTS)
    given.ignore("store", "background", unless=(False,))
    given.ignore("top_logprobs", unless=(0,))
    given.ignore("truncation", unless=("disabled",))


def _reasoning(given: Parameters) -> Reasoning | None:
    asked = given.member("reasoning")
    if asked is None:
        return None
    found = read_effort(asked, "effort")
    for name in ("summary", "generate_summary"):
        # How much of its thoughts a provider shows is its own business.
        asked.one_of(name, _SUMMARIES)
    asked.ignore("context", unless=("auto",))
    asked.ignore("mode", unless=("standard",))
    asked.finish()
    return found


def _text(given: Parameters) -> tuple[OutputFormat | None, Verbosity | None]:
    """Return the form of the answer and how much it is to say."""
    text = given.member("text")
    if text is None:
        return None, None
    asked = text.member("format")
    found = None if asked is None else _format(asked)
    verbosity = read_verbosity(text)
    text.finish()
    return found, verbosity


def _format(asked: Parameters) -> OutputFormat | None:
    kind = asked.require_text("type")
    found: OutputFormat | None = None
    if kind == "json_object":
        found = OutputFormat(None, at=asked.name("type"))
    elif kind == "json_schema":
        schema = asked.mapping("schema")
        if schema is None:
            raise missing(asked.name("schema"))
        found = OutputFormat(
            schema,
            name=asked.require_text("name"),
            description=asked.text("description") or "",
            is_strict=asked.flag("strict") or False,
            at=asked.name("schema"),
        )
    elif kind != "text":
        raise asked.refuse("type")
    asked.finish()
    return found


def _tool_choice(given: Parameters) -> ToolChoice | None:
    value = given.take("tool_choice")
    if value is None:
        return None
    if isinstance(value, str):
        return read_choice_mode(value)
    chosen = Parameters(value, "tool_choice")
    if chosen.require_text("type") not in ("function", "custom"):
        raise chosen.refuse("type")
    found = ToolChoice("tool", chosen.require_text("name"))
    chosen.finish()
    return found
