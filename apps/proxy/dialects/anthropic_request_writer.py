"""Writes requests in the neutral form as Anthropic's Messages API.

What this dialect cannot say is adapted by a rule that stands here, or refused by the client's own
name for it.

Source: https://platform.claude.com/docs/en/api/messages
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from apps.proxy.dialects.anthropic_blocks import content, is_signed, says_something
from apps.proxy.dialects.cache_marks import cache_members
from apps.proxy.dialects.neutral import (
    Effort,
    OutputFormat,
    Part,
    Reasoning,
    Request,
    Target,
    Text,
    Thinking,
    Tool,
    ToolChoice,
    ToolResult,
    ToolUse,
    Turn,
)
from apps.proxy.dialects.openai_refusals import inexpressible
from apps.proxy.dialects.reasoning import (
    asked_effort,
    bounded_budget,
    budget_beside_answer,
    budget_of_effort,
    nearest_effort,
)
from apps.proxy.dialects.sampling import with_sampling, with_sampling_of_thought
from apps.proxy.dialects.strict_schemas import for_claude
from apps.proxy.dialects.tool_choices import find_tool_choice, is_forced
from apps.proxy.dialects.tool_names import told_name
from apps.proxy.dialects.web_search import anthropic_search

_TEMPERATURE_MAX: Final = 1
_TOOL_NAME_LENGTH_MAX: Final = 128
_LEAST_EFFORT: Final = "low"
_THINKING: Final = ("adaptive", "enabled")


def write_request(request: Request, target: Target) -> dict[str, Any]:
    """Return the body to send; raises E14 with the client's name of what cannot be said.

    Raises ValueError where neither the target nor the client limits the answer: it has to be.
    """
    limit = target.output_cap if target.output_cap is not None else request.output_limit
    if limit is None:
        raise ValueError("Anthropic's dialect needs a limit of the output.")
    _check(request)
    writer = _Writer(request, target)
    system, messages = writer.conversation()
    thinking, effort = writer.reasoning(limit)
    is_thinking = thinking is not None and thinking["type"] in _THINKING
    request = with_sampling(request, target, is_thinking=is_thinking)
    if is_thinking:
        request = with_sampling_of_thought(request)
    told: dict[str, Any] = {} if request.format is None else {"format": _format(request.format)}
    if effort is not None:
        told["effort"] = effort
    members: dict[str, Any] = {
        "system": system,
        "messages": messages,
        "temperature": None
        if request.temperature is None
        else min(request.temperature, _TEMPERATURE_MAX),
        "top_p": request.top_p,
        "top_k": request.top_k,
        "stop_sequences": list(request.stop) or None,
        "tools": _tools(request) or None,
        "tool_choice": writer.tool_choice(),
        "thinking": thinking,
        "output_config": told or None,
        "metadata": {"user_id": request.user} if request.user else None,
        "service_tier": "standard_only" if request.is_standard_tier else None,
        "stream": True if request.is_stream else None,
    }
    body: dict[str, Any] = {"model": target.model, "max_tokens": limit}
    body.update((name, value) for name, value in members.items() if value is not None)
    return body | cache_members(request.cache)


def capped(body: Mapping[str, Any], output_cap: int) -> dict[str, Any]:
    """Return a body by which no more may be written, and thought as much as that leaves room for.

    Anthropic refuses a budget that is not below the maximum.
    """
    told = {**body, "max_tokens": output_cap}
    thinking = body.get("thinking")
    # A route may set anything. type() and not isinstance(): true is an int.
    if not isinstance(thinking, Mapping) or type(thinking.get("budget_tokens")) is not int:
        return told
    budget = budget_beside_answer(thinking["budget_tokens"], output_cap)
    if budget is None:
        del told["thinking"]
    else:
        told["thinking"] = {**thinking, "budget_tokens": budget}
    return told


def _check(request: Request) -> None:
    """Raise E14 for what no parameter of this dialect tells."""
    unknown = {
        # A penalty of 0 is none.
        "frequency_penalty": request.frequency_penalty or None,
        "presence_penalty": request.presence_penalty or None,
        "seed": request.seed,
        "metadata": request.metadata,
        "verbosity": request.verbosity,
        "choices": request.choices if request.choices != 1 else None,
    }
    for field, value in unknown.items():
        if value is not None:
            raise request.refuse(field)
    if not all(stop.strip() for stop in request.stop):
        # Anthropic wants to see something in each.
        raise request.refuse("stop")


class _Writer:
    """What needs to know the request and the target at once."""

    __slots__ = ("_request", "_target")

    def __init__(self, request: Request, target: Target) -> None:
        self._request = request
        self._target = target

    def conversation(self) -> tuple[Any, list[dict[str, Any]]]:
        """Return what the system says, and the messages.

        What the system says between the turns moves before them, for models that hear it only
        there, and else behind the user's turn that follows, if one does. Turns of one side that
        follow each other become one, what tools answered first. Raises E14 where the model begins.
        """
        system: list[Text] = list(self._request.system)
        merged: list[tuple[str, list[Part]]] = []
        waiting: list[Text] = []
        for turn in self._request.turns:
            parts = [part for part in turn.parts if says_something(part)]
            if turn.role == "system":
                is_heard = bool(merged) and "system_turns" in self._target.extensions
                said = waiting if is_heard else system
                said += [part for part in parts if isinstance(part, Text)]
                continue
            if turn.role == "assistant" and parts:
                if not merged:
                    raise inexpressible(turn.at)
                if merged[-1][0] == "user":
                    _merge(merged, "system", waiting)
                    waiting = []
            _merge(merged, turn.role, parts)
        if merged and merged[-1][0] == "user":
            _merge(merged, "system", waiting)
        else:
            system += waiting
        messages = []
        for role, parts in merged:
            results: list[Part] = [part for part in parts if isinstance(part, ToolResult)]
            rest = [part for part in parts if not isinstance(part, ToolResult)]
            messages.append({"role": role, "content": content([*results, *rest])})
        if not messages:
            raise self._request.refuse("turns")
        return content(system) or None, messages

    def reasoning(self, limit: int) -> tuple[dict[str, Any] | None, str | None]:
        """Return `thinking` and the effort, each None where it is not told."""
        asked = self._request.reasoning
        if asked is None:
            return None, None
        if asked.is_on is None:
            return None, self._known_effort(asked_effort(asked))
        if self._target.reasoning == "none":
            # What does not think need not be told so.
            if asked.is_required:
                raise self._request.refuse("reasoning")
            return None, None
        if not asked.is_on:
            return self._rest(asked)
        if self._target.reasoning == "effort":
            # From Opus 4.7 on none are shown unasked.
            # Source: https://platform.claude.com/docs/en/build-with-claude/adaptive-thinking
            shown = "omitted" if asked.is_hidden else "summarized"
            told = {"type": "adaptive", "display": shown}
            return told, self._known_effort(asked_effort(asked))
        budget = _budget(asked, limit)
        if budget is None or _is_refused_thought(self._request):
            return None, None
        # Beside a budget an effort is about the whole answer, and not what the budget was made of.
        beside = None if asked.budget_tokens is None else asked.effort
        effort = self._known_effort(beside)
        hidden = {"display": "omitted"} if asked.is_hidden else {}
        return {"type": "enabled", "budget_tokens": budget, **hidden}, effort

    def _rest(self, asked: Reasoning) -> tuple[dict[str, Any] | None, str | None]:
        """Return how not to think: for who always thinks, as little as he can."""
        if self._target.thinking_off:
            return {"type": self._target.thinking_off}, self._known_effort(asked.effort)
        return None, _LEAST_EFFORT

    def _known_effort(self, effort: Effort | None) -> str | None:
        """Return an effort that this dialect and the model know."""
        known = [name for name in self._target.efforts if name != "minimal"]
        return None if effort is None else nearest_effort(effort, known)

    def tool_choice(self) -> dict[str, Any] | None:
        """Return which tools are to be called; whether several at once is told with it."""
        request = self._request
        choice = find_tool_choice(request)
        if is_forced(choice) and not self._target.has_forced_tools:
            raise request.refuse("tool_choice")
        if choice is None:
            if request.is_parallel is not False or not request.tools:
                return None
            choice = ToolChoice("auto")
        told: dict[str, Any] = {"type": choice.mode}
        if choice.mode == "tool":
            told["name"] = choice.name
        if request.is_parallel is not None and choice.mode != "none":
            told["disable_parallel_tool_use"] = not request.is_parallel
        return told


def _budget(asked: Reasoning, limit: int) -> int | None:
    """Return how many tokens may be thought, None if there is no room for it."""
    if asked.budget_tokens is not None:
        return bounded_budget(asked.budget_tokens, limit)
    return budget_of_effort(asked.effort or "high", limit)


def _merge(merged: list[tuple[str, list[Part]]], role: str, parts: Sequence[Part]) -> None:
    """Add what one side says, to its turn where it has just spoken."""
    if merged and merged[-1][0] == role:
        merged[-1][1].extend(parts)
    elif parts:
        merged.append((role, list(parts)))


def _is_refused_thought(request: Request) -> bool:
    """Return whether Anthropic refuses a budget: so it does beside a tool that has to be called.

    Source: https://platform.claude.com/docs/en/build-with-claude/extended-thinking
    """
    return is_forced(request.tool_choice) or _continues_without_thoughts(request.turns)


def _continues_without_thoughts(turns: tuple[Turn, ...]) -> bool:
    """Return whether tools are being called for a turn whose thoughts were not given back.

    Anthropic then refuses to think on.
    Source: https://platform.claude.com/docs/en/build-with-claude/extended-thinking
    """
    last = next((turn for turn in reversed(turns) if turn.role == "assistant"), None)
    if last is None or not any(isinstance(part, ToolUse) for part in last.parts):
        return False
    return not any(is_signed(part) for part in last.parts if isinstance(part, Thinking))


def _tools(request: Request) -> list[dict[str, Any]]:
    """Return the client's tools, and the search that Anthropic runs."""
    tools = [_tool(tool) for tool in request.tools]
    search = anthropic_search(request)
    return tools if search is None else [*tools, search]


def _tool(tool: Tool) -> dict[str, Any]:
    schema = dict(tool.schema) if tool.schema else {"properties": {}}
    if schema.setdefault("type", "object") != "object":
        raise inexpressible(tool.schema_at)
    return {
        "name": told_name(tool, _TOOL_NAME_LENGTH_MAX),
        **({} if tool.description is None else {"description": tool.description}),
        "input_schema": _held_to(schema, tool.schema_at) if tool.is_strict else schema,
        **({} if tool.is_strict is None else {"strict": tool.is_strict}),
        **cache_members(tool.cache),
    }


def _format(asked: OutputFormat) -> dict[str, Any]:
    """Return the schema of the answer, which is always kept to here.

    Source: https://platform.claude.com/docs/en/build-with-claude/structured-outputs
    """
    if asked.schema is None:
        # There is no JSON without a schema.
        raise inexpressible(asked.at)
    described = {"description": asked.description} if asked.description else {}
    return {"type": "json_schema", "schema": _held_to({**described, **asked.schema}, asked.at)}


def _held_to(schema: Mapping[str, Any], at: str) -> dict[str, Any]:
    """Return a schema that is kept to. Raises E14 for one that Anthropic cannot keep to."""
    told = for_claude(schema)
    if told is None:
        raise inexpressible(at)
    return told
