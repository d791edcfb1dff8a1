"""What is known of models by their names."""

import pytest

from apps.ai_models.overrides import EFFORT_NAMES
from apps.proxy.dialects.neutral import USUAL_TARGET, Target
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


@pytest.mark.parametrize(
    ("dialect", "name", "efforts"),
    [
        ("openai", "o4-mini", ("low", "medium", "high")),
        ("openai", "openai/gpt-5-mini", ("minimal", "low", "medium", "high")),
        ("openai", "gpt-5-pro-2025-10-06", ("high",)),
        ("openai-responses", "gpt-5.1", ("none", "low", "medium", "high")),
        ("openai", "gpt-5.1-codex-max", ("none", "low", "medium", "high", "xhigh")),
        ("openai", "gpt-5.2-2025-12-11", ("none", "low", "medium", "high", "xhigh")),
        ("openai-responses", "gpt-5.5", ("none", "low", "medium", "high", "xhigh")),
        ("openai", "gpt-5.6-terra", ("none", "low", "medium", "high", "xhigh", "max")),
        ("anthropic", "claude-haiku-4-5-20251001", ()),
        ("anthropic", "claude-opus-4-5", ("low", "medium", "high")),
        ("anthropic", "anthropic/claude-sonnet-4.6", ("low", "medium", "high", "max")),
        ("anthropic", "claude-opus-4-8", USUAL_TARGET.efforts),
        ("openai", "gpt-oss-120b", USUAL_TARGET.efforts),
    ],
)
def test_which_efforts_a_model_knows_is_known_by_its_name(
    dialect: str, name: str, efforts: tuple[str, ...]
) -> None:
    assert target_of(dialect, name).efforts == efforts


def test_a_route_can_name_every_effort() -> None:
    assert USUAL_TARGET.efforts == EFFORT_NAMES
