from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.usage import TOKEN_CLASSES, Usage
from apps.proxy.dialects.openai_usage import TOKENS_MAX, parse_usage

# What each of these providers really sends, and the classes it must become.
GOLDEN: dict[str, tuple[dict[str, Any], Usage]] = {
    "openai chat": (
        {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29},
        Usage(input=19, output=10),
    ),
    "openai cached prompt": (
        {
            "prompt_tokens": 2006,
            "completion_tokens": 300,
            "total_tokens": 2306,
            "prompt_tokens_details": {"cached_tokens": 1920, "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": 0,
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        },
        Usage(input=86, cache_read=1920, output=300),
    ),
    "openai reasoning": (
        {
            "prompt_tokens": 75,
            "completion_tokens": 1186,
            "total_tokens": 1261,
            "completion_tokens_details": {"reasoning_tokens": 1024},
        },
        Usage(input=75, output=162, reasoning=1024),
    ),
    "openai audio in and out": (
        {
            "prompt_tokens": 140,
            "completion_tokens": 95,
            "total_tokens": 235,
            "prompt_tokens_details": {"audio_tokens": 120, "text_tokens": 20, "cached_tokens": 0},
            "completion_tokens_details": {"audio_tokens": 80, "text_tokens": 15},
        },
        Usage(input=20, audio_in=120, output=15, audio_out=80),
    ),
    "openai images": (
        {
            "input_tokens": 1050,
            "output_tokens": 4160,
            "total_tokens": 5210,
            "input_tokens_details": {"image_tokens": 1000, "text_tokens": 50},
            "output_tokens_details": {"image_tokens": 4160},
        },
        Usage(input=50, image_in=1000, image_out=4160),
    ),
    "embeddings": ({"prompt_tokens": 8, "total_tokens": 8}, Usage(input=8)),
    "deepseek": (
        {
            "prompt_tokens": 1000,
            "completion_tokens": 200,
            "total_tokens": 1200,
            "prompt_cache_hit_tokens": 896,
            "prompt_cache_miss_tokens": 104,
            "completion_tokens_details": {"reasoning_tokens": 150},
        },
        Usage(input=104, cache_read=896, output=50, reasoning=150),
    ),
    "moonshot": (
        {"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105, "cached_tokens": 64},
        Usage(input=36, cache_read=64, output=5),
    ),
    "xai leaves reasoning out of the completion": (
        {
            "prompt_tokens": 32,
            "completion_tokens": 9,
            "total_tokens": 135,
            "prompt_tokens_details": {"text_tokens": 32, "cached_tokens": 6},
            "completion_tokens_details": {"reasoning_tokens": 94},
        },
        Usage(input=26, cache_read=6, output=9, reasoning=94),
    ),
    "openrouter with a cache write": (
        {
            "prompt_tokens": 500,
            "completion_tokens": 20,
            "total_tokens": 520,
            "cost": 0.0123,
            "prompt_tokens_details": {"cached_tokens": 100, "cache_write_tokens": 300},
        },
        Usage(input=100, cache_read=100, cache_write_5m=300, output=20),
    ),
    "anthropic behind a proxy that includes the cache": (
        {
            "prompt_tokens": 500,
            "completion_tokens": 20,
            "total_tokens": 520,
            "cache_read_input_tokens": 100,
            "cache_creation_input_tokens": 300,
            "prompt_tokens_details": {
                "cached_tokens": 100,
                "cache_creation_tokens": 300,
                "cache_creation_token_details": {"ephemeral_1h_input_tokens": 200},
            },
        },
        Usage(input=100, cache_read=100, cache_write_5m=100, cache_write_1h=200, output=20),
    ),
    "anthropic behind a proxy that leaves the cache out": (
        {
            "prompt_tokens": 100,
            "completion_tokens": 20,
            "total_tokens": 520,
            "cache_read_input_tokens": 100,
            "cache_creation_input_tokens": 300,
        },
        Usage(input=100, cache_read=100, cache_write_5m=300, output=20),
    ),
    "vllm with null details": (
        {
            "prompt_tokens": 6,
            "completion_tokens": 7,
            "total_tokens": 13,
            "prompt_tokens_details": None,
            "completion_tokens_details": {"reasoning_tokens": None},
        },
        Usage(input=6, output=7),
    ),
    "no total": ({"prompt_tokens": 6, "completion_tokens": 7}, Usage(input=6, output=7)),
    "all zero": ({"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, Usage()),
}

SUSPECT: dict[str, tuple[dict[str, Any], Usage]] = {
    "gemini counts hidden thoughts in the total only": (
        {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 40},
        Usage(input=10, output=5, reasoning=25),
    ),
    "total below the parts": (
        {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 3},
        Usage(input=10, output=5),
    ),
    "more cached than sent": (
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 15,
            "prompt_tokens_details": {"cached_tokens": 11},
        },
        Usage(input=10, output=5),
    ),
    "more reasoning than output": (
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "total_tokens": 15,
            "completion_tokens_details": {"reasoning_tokens": 6},
        },
        Usage(input=10, output=5),
    ),
    "negative completion": (
        {"prompt_tokens": 10, "completion_tokens": -600, "total_tokens": 10},
        Usage(input=10),
    ),
    "negative cached": (
        {
            "prompt_tokens": 10,
            "completion_tokens": 5,
            "prompt_tokens_details": {"cached_tokens": -600},
        },
        Usage(input=10, output=5),
    ),
    "a string": ({"prompt_tokens": 10, "completion_tokens": "2147483647"}, Usage(input=10)),
    "a fraction": ({"prompt_tokens": 10, "completion_tokens": 1.5}, Usage(input=10)),
    "true": ({"prompt_tokens": 10, "completion_tokens": True}, Usage(input=10)),
    "a list": ({"prompt_tokens": 10, "completion_tokens": [5]}, Usage(input=10)),
    "not a number": ({"prompt_tokens": 10, "completion_tokens": float("nan")}, Usage(input=10)),
    "far too many": (
        {"prompt_tokens": 10, "completion_tokens": 2**63 - 1, "total_tokens": 2**63 - 1},
        Usage(input=10, output=10_000_000),
    ),
    "no completion and no total": ({"prompt_tokens": 10}, Usage(input=10)),
    "no prompt": ({"completion_tokens": 5, "total_tokens": 15}, Usage(input=10, output=5)),
    "details of the wrong type": (
        {"prompt_tokens": 10, "completion_tokens": 5, "prompt_tokens_details": [1]},
        Usage(input=10, output=5),
    ),
}


def classes(usage: Usage) -> dict[str, int]:
    return {name: getattr(usage, name) for name in TOKEN_CLASSES if getattr(usage, name)}


@pytest.mark.parametrize("name", GOLDEN)
def test_the_classes_of_a_real_usage_are_disjoint(name: str) -> None:
    reported, expected = GOLDEN[name]

    usage = parse_usage(reported)

    assert usage is not None
    assert classes(usage) == classes(expected)
    assert usage.source == "reported"
    assert not usage.is_suspect
    if "total_tokens" in reported:
        assert usage.total_tokens == reported["total_tokens"]


@pytest.mark.parametrize("name", SUSPECT)
def test_numbers_that_cannot_be_right_are_suspect(name: str) -> None:
    reported, expected = SUSPECT[name]

    usage = parse_usage(reported)

    assert usage is not None
    assert classes(usage) == classes(expected)
    assert usage.source == "reported"
    assert usage.is_suspect


@pytest.mark.parametrize(
    "value",
    [
        None,
        {},
        [],
        "12",
        7,
        True,
        {"total_tokens": 12},
        {"prompt_tokens": "1", "completion_tokens": None},
        {"prompt_tokens": -1, "completion_tokens": -1, "total_tokens": -2},
    ],
)
def test_what_holds_no_count_is_no_usage(value: object) -> None:
    assert parse_usage(value) is None


junk = (
    st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64)
    | st.integers(0, 1000)
    | st.floats()
    | st.text(max_size=3)
)
junk_details = junk | st.dictionaries(
    st.sampled_from(
        ["cached_tokens", "audio_tokens", "image_tokens", "reasoning_tokens", "cache_write_tokens"]
    ),
    junk,
)


@given(
    st.dictionaries(
        st.sampled_from(
            ["prompt_tokens", "completion_tokens", "total_tokens", "prompt_cache_hit_tokens"]
        ),
        junk,
    ),
    junk_details,
    junk_details,
)
def test_no_usage_is_negative_or_without_bound(
    usage: dict[str, object], inputs: object, outputs: object
) -> None:
    parsed = parse_usage(
        usage | {"prompt_tokens_details": inputs, "completion_tokens_details": outputs}
    )

    if parsed is not None:
        assert all(getattr(parsed, name) >= 0 for name in TOKEN_CLASSES)
        assert parsed.total_tokens <= 4 * TOKENS_MAX
