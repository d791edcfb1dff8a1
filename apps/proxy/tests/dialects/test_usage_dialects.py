"""What must hold for any object that claims to be a usage, in every dialect."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.usage import COUNTS, TOKEN_CLASSES, Usage
from apps.proxy.dialects.anthropic_usage import merge_usage, parse_anthropic_usage
from apps.proxy.dialects.openai_usage import parse_input_usage, parse_usage
from apps.proxy.dialects.usage_reader import TOKENS_MAX

NAMES = {
    "openai": (
        "prompt_tokens", "completion_tokens", "total_tokens", "prompt_tokens_details",
        "completion_tokens_details", "reasoning_tokens", "citation_tokens", "num_search_queries",
        "prompt_cache_hit_tokens", "prompt_cache_miss_tokens", "cached_tokens", "usage_semantic",
        "cache_creation_input_tokens", "cache_read_input_tokens", "prompt_audio_seconds",
    ),
    "responses": (
        "input_tokens", "output_tokens", "total_tokens", "input_tokens_details",
        "output_tokens_details", "input_token_details", "type", "seconds", "x_tools", "plugins",
        "image_tokens", "audio_tokens", "video_tokens", "num_server_side_tools_used",
        "server_side_tool_usage_details",
    ),
    "anthropic": (
        "input_tokens", "output_tokens", "cache_creation_input_tokens", "cache_read_input_tokens",
        "cache_creation", "server_tool_use", "iterations", "output_tokens_details",
    ),
    "gemini": (
        "promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount", "totalTokenCount",
        "cachedContentTokenCount", "toolUsePromptTokenCount", "promptTokensDetails",
        "cacheTokensDetails", "candidatesTokensDetails", "toolUsePromptTokensDetails",
    ),
    "bedrock": (
        "inputTokens", "outputTokens", "totalTokens", "cacheReadInputTokens",
        "cacheWriteInputTokens", "cacheDetails",
    ),
    "local": (
        "prompt_eval_count", "eval_count", "prompt_eval_cached_count", "tokens_evaluated",
        "tokens_predicted", "total_output_tokens", "reasoning_output_tokens", "input_tokens",
    ),
    "cohere": ("billed_units", "tokens", "total_tokens", "text_tokens", "image_pixels"),
}  # fmt: skip
INNER = (
    "audio_tokens", "image_tokens", "video_tokens", "text_tokens", "cached_tokens",
    "cached_tokens_details", "reasoning_tokens", "thinking_tokens", "cache_write_tokens",
    "cache_creation", "ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens", "modality",
    "tokenCount", "type", "ttl", "inputTokens", "input_tokens", "output_tokens", "count", "search",
    "web_search", "web_search_requests", "search_units", "images", "web_search_calls",
)  # fmt: skip
counts = st.integers(0, 1000) | st.integers(0, TOKENS_MAX)
junk = (
    counts
    | st.none()
    | st.booleans()
    | st.integers(-(2**64), 2**64)
    | st.floats()
    | st.sampled_from(
        ["AUDIO", "IMAGE", "TEXT", "compaction", "fallback_message", "anthropic", "1h"]
    )
    | st.text(max_size=3)
)
inner = st.dictionaries(st.sampled_from(INNER), junk, max_size=5)
details = (
    inner
    | st.dictionaries(st.sampled_from(INNER), junk | inner, max_size=4)
    | st.lists(inner | junk, max_size=4)
)


def objects(names: tuple[str, ...]) -> st.SearchStrategy[dict[str, Any]]:
    return st.dictionaries(st.sampled_from(names), junk | counts | details, max_size=9)


anything = st.one_of(
    *(objects(names) for names in NAMES.values()),
    objects(tuple({name for names in NAMES.values() for name in names})),
)


def assert_is_possible(usage: Usage) -> None:
    for name in (*TOKEN_CLASSES, *COUNTS):
        count = getattr(usage, name)
        assert type(count) is int
        assert 0 <= count <= 3 * TOKENS_MAX
    assert usage.source == "reported"


@given(anything)
def test_whatever_is_reported_no_class_is_negative_or_without_bound(value: dict[str, Any]) -> None:
    for usage in (parse_usage(value), parse_input_usage({"usage": value})[0]):
        if usage is not None:
            assert_is_possible(usage)


usual_parts = st.integers(0, 60) | st.integers(-5, 2000) | st.none() | st.booleans()


@given(
    st.integers(0, 100),
    st.integers(0, 100),
    st.dictionaries(st.sampled_from(["audio_tokens", "cached_tokens"]), usual_parts),
    st.dictionaries(
        st.sampled_from(["audio_tokens", "reasoning_tokens", "accepted_prediction_tokens"]),
        usual_parts,
    ),
    st.sampled_from([0, 0, 0, 1, -1]),
    st.sampled_from([("prompt", "completion"), ("input", "output")]),
)
def test_the_short_way_says_the_same(
    read: int,
    written: int,
    inputs: dict[str, Any],
    outputs: dict[str, Any],
    off: int,
    names: tuple[str, str],
) -> None:
    counts = {
        f"{names[0]}_tokens": read,
        f"{names[1]}_tokens": written,
        "total_tokens": max(read + written + off, 0),
    }
    details = {f"{names[0]}_tokens_details": inputs, f"{names[1]}_tokens_details": outputs}

    # A member that nobody knows leads by the long way.
    for usual in (counts, counts | details):
        assert parse_usage(usual) == parse_usage(usual | {"unknown": None})


@given(anything)
def test_classes_sum_to_the_total_or_the_usage_is_suspect(value: dict[str, Any]) -> None:
    usage = parse_usage(value)
    total = value.get("total_tokens")

    is_openai = "prompt_tokens" in value and "completion_tokens" in value
    has_more = {"citation_tokens", "num_search_queries", "usage_semantic"} & value.keys()
    if usage is not None and not usage.is_suspect and is_openai and not has_more:
        assert total in (None, usage.total_tokens)


@given(anything)
def test_gemini_s_classes_sum_to_its_total_or_the_usage_is_suspect(value: dict[str, Any]) -> None:
    usage = parse_usage(
        {name: item for name, item in value.items() if name in NAMES["gemini"]}
        | {"promptTokenCount": 5}
    )

    assert usage is not None
    if not usage.is_suspect:
        assert value.get("totalTokenCount") in (None, usage.total_tokens)


@given(counts, counts, counts, st.integers(0, 1000), st.integers(0, 1000))
def test_anthropic_s_classes_are_its_own_numbers(
    read: int, written: int, cached: int, five_minutes: int, hour: int
) -> None:
    usage = parse_anthropic_usage(
        {
            "input_tokens": read,
            "output_tokens": written,
            "cache_read_input_tokens": cached,
            "cache_creation_input_tokens": five_minutes + hour,
            "cache_creation": {"ephemeral_1h_input_tokens": hour},
        }
    )

    assert usage is not None
    assert (usage.input, usage.output, usage.cache_read) == (read, written, cached)
    assert (usage.cache_write_5m, usage.cache_write_1h) == (five_minutes, hour)
    assert not usage.is_suspect


@given(st.lists(objects(NAMES["anthropic"]), min_size=1, max_size=5))
def test_of_cumulative_numbers_the_last_one_counts(events: list[dict[str, Any]]) -> None:
    merged: dict[str, Any] = {}
    for event in events:
        merged = merge_usage(merged, event)

    for name in NAMES["anthropic"]:
        told = [event[name] for event in events if event.get(name) is not None]
        assert merged.get(name) is (told[-1] if told else None)


@pytest.mark.parametrize(
    "value",
    [
        {"input_tokens": "1", "cache_read_input_tokens": 5},
        {"promptTokenCount": None, "totalTokenCount": 5},
        {"inputTokens": -1},
        {"eval_count": 1.5},
        {"billed_units": 5},
        {"billed_units": {"classifications": 1}},
        {"tokens": {"input_tokens": None}},
        {"type": "duration", "seconds": "9"},
        {"type": "duration", "seconds": float("nan")},
        {"type": "duration", "seconds": True},
    ],
)
def test_what_holds_no_count_is_no_usage(value: dict[str, Any]) -> None:
    assert parse_usage(value) is None


def test_a_breakdown_longer_than_any_is_not_read() -> None:
    entries = [{"modality": "AUDIO", "tokenCount": 1}] * 65

    usage = parse_usage(
        {"promptTokenCount": 100, "candidatesTokenCount": 5, "promptTokensDetails": entries}
    )

    assert usage == Usage(input=100, output=5, source="reported", is_suspect=True)


@pytest.mark.parametrize(
    "reported",
    [
        {"server_tool_use": {"web_search_requests": 2_049}},
        {"num_search_queries": 2_049},
        {"generated_images": 2_049},
        {"num_server_side_tools_used": 2_049},
        {"billed_units": {"search_units": 2_049}},
    ],
)
def test_more_pieces_than_a_call_can_have_are_suspect(reported: dict[str, Any]) -> None:
    tokens = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
    fewer: dict[str, Any] = {
        name: dict.fromkeys(value, 2_048) if isinstance(value, dict) else 2_048
        for name, value in reported.items()
    }

    suspect, trusted = parse_usage(tokens | reported), parse_usage(tokens | fewer)

    assert suspect is not None
    assert trusted is not None
    assert (suspect.is_suspect, trusted.is_suspect) == (True, False)
