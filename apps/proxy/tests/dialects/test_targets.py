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
