from __future__ import annotations

import pytest

from apps.proxy.families import UNKNOWN, Family, find_family, is_older_claude


@pytest.mark.parametrize(
    ("names", "family", "encoding"),
    [
        ("gpt-4o gpt-4o-mini-2024-07-18 gpt-4.1-nano gpt-5 gpt-6-astra", "openai", "o200k_base"),
        ("o1 o3-mini openai/o4-mini chatgpt-4o-latest codex-mini", "openai", "o200k_base"),
        ("ft:gpt-4o:company::1 @cf/openai/gpt-oss-120b", "openai", "o200k_base"),
        ("gpt-4 gpt-4-turbo gpt-3.5-turbo gpt-35-turbo GPT-4-0613", "openai", "cl100k_base"),
        ("text-embedding-3-small text-embedding-ada-002", "openai", "cl100k_base"),
        ("claude-opus-5 us.anthropic.claude-haiku-4-5-20251001-v1:0", "claude", "o200k_base"),
        ("gemini-2.5-pro models/gemini-4-argon gemma-3-27b-it", "gemini", "o200k_base"),
        ("deepseek-chat accounts/fireworks/models/deepseek-v3", "deepseek", "o200k_base"),
        ("qwen-max qwq-32b deepseek-r1-distill-qwen-32b", "qwen", "o200k_base"),
        ("Meta-Llama-3-8B codellama DeepSeek-R1-Distill-Llama-70B", "llama", "o200k_base"),
        ("mistral-large mixtral-8x7b codestral ministral-8b", "mistral", "o200k_base"),
        ("kimi-k2 glm-4.6 grok-4 solo1 my-deployment", "unknown", "o200k_base"),
    ],
)
def test_a_name_tells_the_tokenizer(names: str, family: str, encoding: str) -> None:
    found = [find_family(name) for name in names.split()]

    assert {(item.name, item.encoding) for item in found} == {(family, encoding)}


@pytest.mark.parametrize(
    ("name", "is_older"),
    [
        ("claude-instant-1.2", True),
        ("claude-3-5-sonnet-20241022", True),
        ("claude-sonnet-4-20250514", True),
        ("claude-opus-4-6", True),
        ("claude-opus-4-7", False),
        ("anthropic/claude-opus-4.8", False),
        ("claude-sonnet-5.5", False),
        ("claude-opus-latest", False),
    ],
)
def test_claude_reads_text_otherwise_since_opus_4_7(name: str, is_older: bool) -> None:
    assert is_older_claude(name) is is_older
    assert find_family(name).ascii_factor == (116 if is_older else 152)


def test_ascii_and_the_rest_have_factors_of_their_own() -> None:
    family = Family("test", "o200k_base", 150, 50)

    assert family.tokens(100, ["abcd" * 100]) == 150
    assert family.tokens(100, ["好" * 100]) == 50
    # Half of it by the cheap estimate: a Chinese character is as much as four of ASCII.
    assert family.tokens(100, ["abcd" * 100, "好" * 100]) == 100
    assert family.tokens(0, []) == 0


def test_digits_one_by_one_are_more_than_groups_of_three() -> None:
    family = Family("test", "o200k_base", 100, 99, has_single_digits=True)

    assert family.tokens(3, ["12345678"]) == 8
    assert UNKNOWN.tokens(3, ["12345678"]) == 3
