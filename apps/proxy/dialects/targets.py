"""What a route's model takes, where dialects differ within themselves. Data, each with its source.

What a name or a host does not tell, the operator says in the route's overrides (`conversion`).
"""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from apps.proxy.dialects.gemini_searches import BILLED_BY_PROMPT
from apps.proxy.dialects.neutral import EXTENSIONS, ReasoningForm, Target, ThoughtsBeside


class _Quirk(NamedTuple):
    """What is so of the models that match; later ones go before earlier ones."""

    dialect: str
    pattern: re.Pattern[str]  # of the upstream name, or of the host where `is_host`
    is_host: bool = False
    reasoning: ReasoningForm | None = None
    has_sampling: bool | None = None
    extensions: frozenset[str] = frozenset()
    thoughts_beside: ThoughtsBeside | None = None
    always_searches: bool = False


_QUIRKS: Final = (
    # Models that search at every call, and once.
    # Source: https://platform.openai.com/docs/guides/tools-web-search
    _Quirk(
        "openai",
        re.compile(r"(?:^|/)gpt-[\w.-]*search-(?:api|preview)"),
        extensions=frozenset({"web_search"}),
        always_searches=True,
    ),
    # Models that do not think at all.
    # Source: https://platform.openai.com/docs/guides/reasoning
    _Quirk("openai", re.compile(r"(?:^|/)(?:gpt-3|gpt-4|chatgpt-4)"), reasoning="none"),
    # Source: https://openrouter.ai/docs/features/prompt-caching
    _Quirk(
        "openai",
        re.compile(r"(?:^|\.)openrouter\.ai$"),
        is_host=True,
        extensions=frozenset({"cache_control"}),
    ),
    # Source: https://api-docs.deepseek.com/guides/thinking_mode
    _Quirk(
        "openai",
        re.compile(r"(?:^|\.)deepseek\.com$"),
        is_host=True,
        extensions=frozenset({"reasoning_content"}),
    ),
    # Source: https://www.alibabacloud.com/help/en/model-studio/deep-thinking
    _Quirk(
        "openai",
        re.compile(r"(?:^|\.)aliyuncs\.com$"),
        is_host=True,
        thoughts_beside=ThoughtsBeside(
            frozenset({"max_completion_tokens", "max_tokens"}), budget="thinking_budget"
        ),
    ),
    # Of its two names for a maximum one is for the answer, the other for all.
    # Source: https://www.volcengine.com/docs/82379/1494384
    _Quirk(
        "openai",
        re.compile(r"(?:^|\.)(?:volces|bytepluses)\.com$"),
        is_host=True,
        thoughts_beside=ThoughtsBeside(frozenset({"max_tokens"})),
    ),
    # Source: https://platform.claude.com/docs/en/build-with-claude/extended-thinking
    _Quirk(
        "anthropic", re.compile(r"claude-(?:2|instant|3-(?:opus|sonnet|haiku|5))"), reasoning="none"
    ),
    _Quirk(
        "anthropic",
        re.compile(
            r"claude-(?:3-7|(?:opus|sonnet|haiku)-4(?:-[0-5])?(?:[-@]\d{8})?(?:\b|$)(?!-\d))"
        ),
        reasoning="budget",
    ),
    # Source: https://platform.claude.com/docs/en/build-with-claude/adaptive-thinking
    _Quirk(
        "anthropic",
        re.compile(r"claude-(?:opus-4-(?:[7-9]|\d\d)\b|(?:opus|sonnet|haiku|fable|mythos)-[5-9])"),
        has_sampling=False,
    ),
    # Source: https://ai.google.dev/gemini-api/docs/thinking
    _Quirk("gemini", re.compile(r"(?:^|/)(?:gemini-(?:1|2\.0|pro)|gemma)"), reasoning="none"),
    _Quirk("gemini", re.compile(r"(?:^|/)gemini-2\.5"), reasoning="budget"),
    # A search is billed by the prompt, and by the query from 3 on.
    # Source: https://ai.google.dev/gemini-api/docs/pricing
    _Quirk(
        "gemini",
        BILLED_BY_PROMPT,
        extensions=frozenset({"web_search"}),
    ),
    # Source: https://ai.google.dev/gemini-api/docs/function-calling#multimodal
    _Quirk(
        "gemini",
        re.compile(r"(?:^|/)gemini-(?:[3-9]|\d\d)"),
        extensions=frozenset({"media_results"}),
    ),
)


def find_target(
    *,
    dialect: str,
    host: str,
    upstream_name: str,
    cap_parameter: str,
    reasoning: ReasoningForm | None = None,
    has_sampling: bool | None = None,
    extensions: Iterable[str] = (),
) -> Target:
    """Return what a writer of requests has to know of a route; what is given goes before what is
    known of its model and its host.
    """
    target = Target(model=upstream_name, cap_parameter=cap_parameter)
    for quirk in _QUIRKS:
        is_meant = quirk.pattern.search(host if quirk.is_host else upstream_name) is not None
        if quirk.dialect == dialect and is_meant:
            target = _change(target, quirk.reasoning, quirk.has_sampling, quirk.extensions)
            target = target._replace(
                thoughts_beside=quirk.thoughts_beside or target.thoughts_beside,
                always_searches=quirk.always_searches or target.always_searches,
            )
    known = frozenset(extensions) & EXTENSIONS.keys()
    return _change(target, reasoning, has_sampling, known)


def _change(
    target: Target,
    reasoning: ReasoningForm | None,
    has_sampling: bool | None,
    extensions: frozenset[str],
) -> Target:
    return target._replace(
        reasoning=reasoning or target.reasoning,
        has_sampling=target.has_sampling if has_sampling is None else has_sampling,
        extensions=target.extensions | extensions,
    )
