"""How much a model is to think: efforts of one dialect as budgets of another, and back.

There is no exact equivalence: an effort is a wish, a budget is a bound. The budgets below are what
an effort may use at most; a budget becomes the lowest of the common efforts that may use as much.

Sources: https://platform.claude.com/docs/en/build-with-claude/extended-thinking (a budget is at
least 1,024 tokens and below `max_tokens`),
https://platform.claude.com/docs/en/build-with-claude/effort
"""

from collections.abc import Container, Mapping
from typing import Any, Final, get_args

from apps.proxy.dialects.neutral import Effort, Reasoning, Target
from apps.proxy.dialects.openai_refusals import missing, wrong_value
from apps.proxy.dialects.openai_request import OUTPUT_PARAMETERS
from apps.proxy.dialects.parameters import Parameters

EFFORTS: Final[tuple[Effort, ...]] = get_args(Effort)
_NONE: Final = "none"
BUDGET_TOKENS_MIN: Final = 1024
BUDGET_TOKENS: Final[dict[Effort, int]] = {
    "minimal": 1_024,
    "low": 4_096,
    "medium": 16_384,
    "high": 32_768,
    "xhigh": 49_152,
    "max": 65_536,
}
# Which every model with efforts knows.
_COMMON: Final[tuple[Effort, ...]] = ("low", "medium", "high")
# The least that Claude thinks: notes between calls of tools, on models that cannot do without.
_RESTING: Final = ("disabled", "between_tools")
# What is left for the answer itself: a fifth of what may be written.
_ANSWER_SHARE: Final = 5


def effort_of_budget(budget_tokens: int) -> Effort:
    """Return the effort that comes nearest to a budget."""
    return next((name for name in _COMMON if budget_tokens <= BUDGET_TOKENS[name]), "high")


def budget_of_effort(effort: Effort, output_limit: int) -> int | None:
    """Return the budget for an effort; None if the limit leaves no room to think."""
    return budget_beside_answer(BUDGET_TOKENS[effort], output_limit)


def budget_beside_answer(budget_tokens: int, output_limit: int) -> int | None:
    """Return a budget that leaves a fifth for the answer, None if there is no room to think."""
    return bounded_budget(
        min(budget_tokens, output_limit - output_limit // _ANSWER_SHARE), output_limit
    )


def bounded_budget(budget_tokens: int, output_limit: int) -> int | None:
    """Return a budget that is below the limit, None if the limit leaves no room to think."""
    if output_limit <= BUDGET_TOKENS_MIN:
        return None
    return max(min(budget_tokens, output_limit - 1), BUDGET_TOKENS_MIN)


def read_effort(given: Parameters, name: str) -> Reasoning | None:
    """Return what an effort in OpenAI's words asks for, None where none is told."""
    told = given.one_of(name, (_NONE, *EFFORTS))
    if told is None:
        return None
    effort: Effort | None = next((known for known in EFFORTS if known == told), None)
    return Reasoning(is_on=effort is not None, effort=effort)


def asked_effort(asked: Reasoning) -> Effort | None:
    """Return the effort that is asked for, also by a budget; None where none is."""
    if asked.effort is None and asked.budget_tokens is not None:
        return effort_of_budget(asked.budget_tokens)
    return asked.effort


def nearest_effort(effort: Effort, known: Container[str]) -> Effort | None:
    """Return the highest effort up to this one that a model knows, or else its lowest.

    None for a model that knows none.
    """
    rank = EFFORTS.index(effort)
    nearest_first = (*reversed(EFFORTS[: rank + 1]), *EFFORTS[rank + 1 :])
    return next((name for name in nearest_first if name in known), None)


def effort_name(asked: Reasoning, target: Target) -> str | None:
    """Return the effort in OpenAI's words, None where nothing needs to be told."""
    if asked.is_on is False:
        # Older models always think: as little as they can.
        return _NONE if _NONE in target.efforts else nearest_effort(EFFORTS[0], target.efforts)
    effort = asked_effort(asked)
    return None if effort is None else nearest_effort(effort, target.efforts)


def read_thinking(given: Parameters) -> Reasoning:
    """Return what Anthropic's `thinking` asks for; servers of OpenAI's dialect know it, too.

    Source: https://platform.claude.com/docs/en/build-with-claude/adaptive-thinking
    """
    kind = given.one_of("type", ("adaptive", "enabled", *_RESTING))
    if kind is None:
        raise missing(given.name("type"))
    budget = given.integer("budget_tokens")
    if budget is not None and budget < BUDGET_TOKENS_MIN:
        raise wrong_value(given.name("budget_tokens"), f"at least {BUDGET_TOKENS_MIN}")
    is_hidden = given.one_of("display", ("summarized", "omitted")) == "omitted"
    given.finish()
    is_on = kind not in _RESTING
    return Reasoning(
        is_on,
        budget_tokens=budget if is_on else None,
        is_hidden=is_hidden and is_on,
        is_optional=kind == "adaptive",
    )


def thoughts_bound(target: Target, body: Mapping[str, Any], usual_max: int) -> int:
    """Return how many tokens can be thought beside the maximum of a request, in its provider's
    words; `usual_max` where it does not say.

    That no thoughts are wanted is not believed: models that always think pass over it.
    """
    beside = target.thoughts_beside
    if beside is None or target.reasoning == "none":
        return 0
    given = {name for name in OUTPUT_PARAMETERS if body.get(name) is not None}
    if given and given.isdisjoint(beside.caps):
        return 0
    budget = body.get(beside.budget)
    # type() and not isinstance(): true is an int.
    return budget if type(budget) is int and budget >= 0 else usual_max
