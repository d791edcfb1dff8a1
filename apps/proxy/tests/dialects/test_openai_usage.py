from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.usage import TOKEN_CLASSES, Usage
from apps.proxy.dialects.openai_usage import parse_usage
from apps.proxy.dialects.usage_reader import TOKENS_MAX
from tests.support.cases import for_all

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


@for_all("name", SUSPECT)
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
