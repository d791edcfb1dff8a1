"""What is known of models by their names."""

import pytest

from apps.proxy.dialects.neutral import Target
from apps.proxy.dialects.targets import find_target


def target_of(dialect: str, name: str) -> Target:
    return find_target(dialect=dialect, host="", upstream_name=name, cap_parameter="max_tokens")


@pytest.mark.parametrize(
    ("name", "sampling"),
    [
        ("claude-3-7-sonnet-20250219", "any"),
        ("claude-opus-4-20250514", "any"),
        ("claude-opus-4-1-20250805", "one"),
        ("anthropic.claude-sonnet-4-5-20250929-v1:0", "one"),
        ("claude-haiku-4-5@20251001", "one"),
        ("anthropic/claude-sonnet-4.6", "one"),
        ("claude-opus-4-6", "one"),
        ("claude-opus-4-7", "none"),
        ("anthropic/claude-opus-4.7", "none"),
        ("claude-opus-4-10", "none"),
        ("claude-sonnet-5", "none"),
    ],
)
def test_which_sampling_claude_takes_is_known_by_its_name(name: str, sampling: str) -> None:
    assert target_of("anthropic", name).sampling == sampling


@pytest.mark.parametrize("dialect", ["openai", "openai-responses"])
@pytest.mark.parametrize(
    ("name", "sampling"),
    [
        ("gpt-4o", "any"),
        ("gpt-5-chat-latest", "any"),
        ("gpt-5", "none"),
        ("gpt-5-mini-2025-08-07", "none"),
        ("o3", "none"),
        ("o4-mini", "none"),
        ("gpt-5.2", "resting"),
        ("openai/gpt-5", "any"),
        ("gpt-oss-120b", "any"),
    ],
)
def test_which_sampling_openais_models_take_is_known_by_their_names(
    dialect: str, name: str, sampling: str
) -> None:
    assert target_of(dialect, name).sampling == sampling


@pytest.mark.parametrize(
    ("name", "reasoning"),
    [
        ("claude-3-5-sonnet-20241022", "none"),
        ("anthropic/claude-3.5-haiku", "none"),
        ("anthropic/claude-3.7-sonnet", "budget"),
        ("claude-opus-4-20250514", "budget"),
        ("claude-sonnet-4-5@20250929", "budget"),
        ("anthropic/claude-sonnet-4.5", "budget"),
        ("anthropic/claude-sonnet-4.6", "effort"),
        ("claude-opus-4-6", "effort"),
        ("anthropic/claude-opus-4.7", "effort"),
        ("claude-sonnet-5-20260701", "effort"),
    ],
)
def test_how_claude_is_told_to_think_is_known_by_its_name(name: str, reasoning: str) -> None:
    assert target_of("anthropic", name).reasoning == reasoning


@pytest.mark.parametrize(
    ("name", "thinking_off", "has_forced_tools"),
    [
        ("claude-opus-4-8", "disabled", True),
        ("claude-opus-5", "disabled", True),
        ("claude-sonnet-5-20260701", "disabled", True),
        ("claude-haiku-5-5", "disabled", True),
        ("anthropic/claude-opus-5.5", "", False),
        ("claude-sonnet-5-5", "between_tools", False),
        ("claude-fable-5", "", True),
        ("claude-fable-5-1", "", False),
        ("anthropic.claude-mythos-5-2", "", False),
        ("claude-mythos-preview", "", True),
    ],
)
def test_which_claude_cannot_rest_or_be_made_to_call_tools_is_known_by_its_name(
    name: str, thinking_off: str, has_forced_tools: bool
) -> None:
    target = target_of("anthropic", name)

    assert (target.thinking_off, target.has_forced_tools) == (thinking_off, has_forced_tools)
