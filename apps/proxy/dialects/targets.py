"""What a route's model takes, where dialects differ within themselves. Data, each with its source.

What a name or a host does not tell, the operator says in the route's overrides (`conversion`).
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from apps.proxy.dialects.gemini_searches import BILLED_BY_PROMPT
from apps.proxy.dialects.neutral import EXTENSIONS, ReasoningForm, SamplingForm, Target


class _Quirk(NamedTuple):
    """What is so of the models that match; later ones go before earlier ones."""

    dialects: tuple[str, ...]
    pattern: re.Pattern[str]  # of the upstream name, or of the host where `is_host`
    is_host: bool = False
    reasoning: ReasoningForm | None = None
    sampling: SamplingForm | None = None
    efforts: tuple[str, ...] | None = None
    thinking_off: str | None = None
    has_forced_tools: bool | None = None
    extensions: frozenset[str] = frozenset()


_USUAL_EFFORTS: Final = ("low", "medium", "high")
_OPENAI: Final = ("openai", "openai-responses")
_ANTHROPIC: Final = ("anthropic",)
_GEMINI: Final = ("gemini",)
_QUIRKS: Final = (
    # Models that search, and once.
    # Source: https://platform.openai.com/docs/guides/tools-web-search
    _Quirk(
        _OPENAI,
        re.compile(r"(?:^|/)gpt-[\w.-]*search-(?:api|preview)"),
        extensions=frozenset({"web_search"}),
    ),
    # Models that do not think at all.
    # Source: https://platform.openai.com/docs/guides/reasoning
    _Quirk(_OPENAI, re.compile(r"(?:^|/)(?:gpt-3|gpt-4|chatgpt-4)"), reasoning="none"),
    # Source: https://platform.openai.com/docs/guides/latest-model (of OpenAI itself: who resells
    # these models leaves out what they do not take)
    _Quirk(_OPENAI, re.compile(r"^(?:o[1-9]|gpt-5(?!-chat))(?:-|$)"), sampling="none"),
    _Quirk(_OPENAI, re.compile(r"^gpt-5\.\d"), sampling="resting"),
    # Source: https://platform.openai.com/docs/api-reference/responses/create ("reasoning.effort")
    _Quirk(_OPENAI, re.compile(r"(?:^|/)o[1-9](?:-|$)"), efforts=_USUAL_EFFORTS),
    _Quirk(_OPENAI, re.compile(r"(?:^|/)gpt-5(?:-|$)"), efforts=("minimal", *_USUAL_EFFORTS)),
    _Quirk(_OPENAI, re.compile(r"(?:^|/)gpt-5-pro"), efforts=("high",)),
    _Quirk(_OPENAI, re.compile(r"(?:^|/)gpt-5\.1"), efforts=("none", *_USUAL_EFFORTS)),
    _Quirk(
        _OPENAI,
        re.compile(r"(?:^|/)gpt-5\.(?:1-codex-max|[2-5]\b)"),
        efforts=("none", *_USUAL_EFFORTS, "xhigh"),
    ),
    _Quirk(
        _OPENAI,
        re.compile(r"(?:^|/)gpt-5\.(?:[6-9]|\d\d)\b"),
        efforts=("none", *_USUAL_EFFORTS, "xhigh", "max"),
    ),
    # Source: https://openrouter.ai/docs/features/prompt-caching
    _Quirk(
        _OPENAI,
        re.compile(r"(?:^|\.)openrouter\.ai$"),
        is_host=True,
        extensions=frozenset({"cache_control"}),
    ),
    # Source: https://api-docs.deepseek.com/guides/thinking_mode
    _Quirk(
        _OPENAI,
        re.compile(r"(?:^|\.)deepseek\.com$"),
        is_host=True,
        extensions=frozenset({"reasoning_content"}),
    ),
    # Source: https://platform.claude.com/docs/en/build-with-claude/extended-thinking
    _Quirk(
        _ANTHROPIC,
        re.compile(r"claude-(?:2|instant|3-(?:opus|sonnet|haiku)|3[-.]5)"),
        reasoning="none",
    ),
    _Quirk(
        _ANTHROPIC,
        re.compile(
            r"claude-(?:3[-.]7|(?:opus|sonnet|haiku)-4(?:[-.][0-5])?(?:[-@]\d{8})?\b(?![-.]\d))"
        ),
        reasoning="budget",
    ),
    # Source: https://platform.claude.com/docs/en/build-with-claude/effort
    _Quirk(
        _ANTHROPIC,
        re.compile(r"claude-(?:3|(?:opus|sonnet|haiku)-4(?:[-.][0-5])?(?:[-@]\d{8})?\b(?![-.]\d))"),
        efforts=(),
    ),
    _Quirk(_ANTHROPIC, re.compile(r"claude-opus-4[-.]5"), efforts=_USUAL_EFFORTS),
    _Quirk(
        _ANTHROPIC,
        re.compile(r"claude-(?:opus|sonnet)-4[-.]6"),
        efforts=(*_USUAL_EFFORTS, "max"),
    ),
    # Source: https://platform.claude.com/docs/en/about-claude/models/migration-guide
    _Quirk(
        _ANTHROPIC,
        re.compile(r"claude-(?:opus-4[-.][1-6]|sonnet-4[-.][56]|haiku-4[-.]5)(?!\d)"),
        sampling="one",
    ),
    # Source: https://platform.claude.com/docs/en/build-with-claude/adaptive-thinking
    _Quirk(
        _ANTHROPIC,
        re.compile(
            r"claude-(?:opus-4[-.](?:[7-9]|\d\d)\b|(?:opus|sonnet|haiku|fable|mythos)-[5-9])"
        ),
        sampling="none",
    ),
    # Source: https://docs.aws.amazon.com/bedrock/latest/userguide/claude-messages-adaptive-thinking
    # and https://platform.claude.com/docs/en/models/opus-5-5/whats-new-opus-5-5
    _Quirk(_ANTHROPIC, re.compile(r"claude-(?:opus-5[-.][5-9]\b|fable|mythos)"), thinking_off=""),
    # Source: https://platform.claude.com/docs/en/models/sonnet-5-5/migration-guide
    _Quirk(_ANTHROPIC, re.compile(r"claude-sonnet-5[-.][5-9]\b"), thinking_off="between_tools"),
    # Source: the same, and
    # https://platform.claude.com/docs/en/models/fable-5-1/whats-new-fable-5-1
    _Quirk(
        _ANTHROPIC,
        re.compile(r"claude-(?:(?:opus|sonnet)-5[-.][5-9]|(?:fable|mythos)-5[-.][1-9])\b"),
        has_forced_tools=False,
    ),
    # Source: https://ai.google.dev/gemini-api/docs/thinking
    _Quirk(_GEMINI, re.compile(r"(?:^|/)(?:gemini-(?:1|2\.0|pro)|gemma)"), reasoning="none"),
    _Quirk(_GEMINI, re.compile(r"(?:^|/)gemini-2\.5"), reasoning="budget"),
    # A search is billed by the prompt, and by the query from 3 on.
    # Source: https://ai.google.dev/gemini-api/docs/pricing
    _Quirk(
        _GEMINI,
        BILLED_BY_PROMPT,
        extensions=frozenset({"web_search"}),
    ),
    # Source: https://ai.google.dev/gemini-api/docs/function-calling#multimodal
    _Quirk(
        _GEMINI,
        re.compile(r"(?:^|/)gemini-(?:[3-9]|\d\d)"),
        extensions=frozenset({"media_results"}),
    ),
)


# What a quirk may say of a model, beside its extensions.
_FACTS: Final = ("reasoning", "sampling", "efforts", "thinking_off", "has_forced_tools")


def find_target(
    *,
    dialect: str,
    host: str,
    upstream_name: str,
    cap_parameter: str,
    reasoning: ReasoningForm | None = None,
    sampling: SamplingForm | None = None,
    efforts: tuple[str, ...] | None = None,
    extensions: Iterable[str] = (),
) -> Target:
    """Return what a writer of requests has to know of a route; what is given goes before what is
    known of its model and its host.
    """
    target = Target(model=upstream_name, cap_parameter=cap_parameter)
    for quirk in _QUIRKS:
        is_meant = quirk.pattern.search(host if quirk.is_host else upstream_name) is not None
        if dialect in quirk.dialects and is_meant:
            facts = {name: getattr(quirk, name) for name in _FACTS}
            target = _change(target, facts, quirk.extensions)
    given = {"reasoning": reasoning, "sampling": sampling, "efforts": efforts}
    return _change(target, given, frozenset(extensions) & EXTENSIONS.keys())


def _change(target: Target, facts: Mapping[str, Any], extensions: frozenset[str]) -> Target:
    told = {name: fact for name, fact in facts.items() if fact is not None}
    return target._replace(**told, extensions=target.extensions | extensions)
