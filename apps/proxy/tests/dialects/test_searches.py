"""Searches that a provider runs: how many Google tells of, and what other dialects make of them."""

from typing import Any, Final

import orjson
import pytest

from apps.core.errors import GatewayError
from apps.core.usage import Usage
from apps.proxy.dialects.anthropic_request import parse_request
from apps.proxy.dialects.conversion import DIALECTS
from apps.proxy.dialects.gemini_metering import read_metered_answer
from apps.proxy.dialects.gemini_searches import count_searches
from apps.proxy.dialects.gemini_stream import GeminiStreamMeter
from apps.proxy.dialects.targets import find_target
from apps.proxy.tests.dialects.events import event
from tests.support.cases import for_all

HI: Final = [{"role": "user", "content": "Hi"}]
TOOL: Final = {"type": "web_search_20250305", "name": "web_search"}


def grounding(*queries: str, **more: Any) -> dict[str, Any]:
    return {"groundingMetadata": {"webSearchQueries": list(queries), **more}}


def response(model: str = "gemini-3-pro", *candidates: dict[str, Any], **more: Any) -> Any:
    return {"candidates": list(candidates), "modelVersion": model, **more}


@for_all(
    ("told", "searches"),
    [
        (response("gemini-3-pro", grounding("a", "b", "a", "", " ")), 2),
        (response("gemini-3-pro", grounding("a"), grounding("b")), 2),
        (response("gemini-2.5-pro", grounding("a", "b")), 1),
        (response("models/gemini-1.5-flash", grounding("a", "b")), 1),
        (response("gemini-pro-latest", grounding("a", "b")), 2),
        (response("gemini-2.5-pro", grounding(groundingChunks=[{"web": {}}])), 1),
        (response("gemini-3-pro", grounding(imageSearchQueries=["a"])), 1),
        (response("gemini-3-pro", grounding()), 0),
        (response("gemini-3-pro", {}), 0),
        (response("gemini-3-pro", {"groundingMetadata": 1}), 0),
        (response("gemini-3-pro", grounding(webSearchQueries=1)), 0),
        ({"candidates": [{"grounding_metadata": {"web_search_queries": ["a", "b"]}}]}, 2),
        ({"candidates": 1}, 0),
        ({"candidates": [1]}, 0),
    ],
)
def test_searches_are_counted_as_google_bills_them(told: Any, searches: int) -> None:
    assert count_searches(told) == searches


USED: Final = {"promptTokenCount": 10, "candidatesTokenCount": 5, "totalTokenCount": 15}
SAID: Final = {"content": {"parts": [{"text": "It rained."}]}}


def test_a_whole_answer_without_usage_tells_its_searches_all_the_same() -> None:
    told = response("gemini-3-pro", {**SAID, **grounding("a", "b")})
    found = read_metered_answer("generateContent", orjson.dumps(told))

    usage = found.final_usage(estimated_input_tokens=9)

    assert (usage.web_search, usage.input, usage.source) == (2, 9, "estimated")


def test_more_searches_than_can_be_true_are_suspect() -> None:
    queries = [str(number) for number in range(2_049)]
    told = response("gemini-3-pro", {**SAID, **grounding(*queries)}, usageMetadata=USED)
    found = read_metered_answer("generateContent", orjson.dumps(told))

    usage = found.final_usage(estimated_input_tokens=9)

    assert (usage.web_search, usage.is_suspect) == (2_049, True)


def metered(*events: bytes, may_search: bool = True) -> Usage:
    meter = GeminiStreamMeter(may_search=may_search)
    for told in events:
        meter.observe(told)
    return meter.final_usage(estimated_input_tokens=9)


FIRST: Final = event(response("gemini-3-pro", SAID, usageMetadata=USED))


def test_searches_of_a_stream_are_gathered_from_all_of_its_events() -> None:
    second = event(response("gemini-3-pro", {**SAID, **grounding("a")}, usageMetadata=USED))
    end = {**SAID, **grounding("a", "b"), "finishReason": "STOP"}
    last = event(response("gemini-3-pro", end, usageMetadata=USED))
    nothing = event(response("gemini-3-pro", {**SAID, "finishReason": "STOP"}, usageMetadata=USED))

    assert metered(FIRST, second, last).web_search == 2
    assert metered(FIRST, nothing).web_search == 0
    assert metered(FIRST, second, last, may_search=False).web_search == 0


def test_who_leaves_a_stream_before_it_tells_of_its_searches_pays_for_one() -> None:
    assert metered(FIRST).web_search == 1
    assert metered() == Usage()


@pytest.mark.parametrize(
    ("tools", "bound"),
    [
        ([TOOL], None),
        ([{**TOOL, "max_uses": 3}], 3),
        ([{**TOOL, "max_uses": 2**40}], 2**31 - 1),
        ([{**TOOL, "max_uses": 0}], None),
        ([{**TOOL, "max_uses": True}], None),
        ([{**TOOL, "max_uses": "3"}], None),
        ([{**TOOL, "max_uses": 3}, {**TOOL, "max_uses": 3}], None),
    ],
)
def test_a_bound_of_searches_is_one_or_none_is_known(tools: Any, bound: int | None) -> None:
    body = {"model": "m", "max_tokens": 1, "messages": HI, "tools": tools}
    request = parse_request("messages", body)

    assert (request.search_parameter, request.searches_max) == ("tools[0].type", bound)


@pytest.mark.parametrize("value", [1, "", [], {"a": 1}, True])
def test_an_unknown_key_of_a_custom_tool_is_refused_by_name(value: Any) -> None:
    tool = {"name": "a", "input_schema": {"type": "object"}, "mystery": value}
    body = {"model": "m", "max_tokens": 1, "messages": HI, "tools": [tool]}

    with pytest.raises(GatewayError) as refusal:
        parse_request("messages", body)

    assert (refusal.value.row, refusal.value.param) == ("E14", "tools[0].mystery")
    for nothing in (None, False):
        tool["mystery"] = nothing
        assert parse_request("messages", body).body["tools"] == [tool]


def test_what_custom_tools_may_hold_passes_untouched() -> None:
    tool = {
        "name": "a",
        "type": "custom",
        "description": "b",
        "input_schema": {"type": "object"},
        "cache_control": {"type": "ephemeral"},
        "strict": True,
        "defer_loading": True,
        "eager_input_streaming": True,
        "input_examples": [{}],
        "allowed_callers": ["direct"],
    }
    body = {"model": "m", "max_tokens": 1, "messages": HI, "tools": [tool]}

    assert parse_request("messages", body).body == body


@pytest.mark.parametrize(
    ("dialect", "name", "is_bounded"),
    [
        ("gemini", "gemini-2.5-flash", True),
        ("gemini", "models/gemini-2.0-flash-lite", True),
        ("gemini", "gemini-3-pro-preview", False),
        ("gemini", "gemini-flash-latest", False),
        ("openai", "gpt-4o-search-preview", True),
        ("openai", "openai/gpt-5-search-api", True),
        ("openai", "gpt-5", False),
    ],
)
def test_which_models_search_within_a_bound_is_known_by_their_names(
    dialect: str, name: str, is_bounded: bool
) -> None:
    target = find_target(dialect=dialect, host="", upstream_name=name, cap_parameter="max_tokens")

    assert ("web_search" in target.extensions) == is_bounded


@pytest.mark.parametrize(
    ("dialect", "asked", "param"),
    [
        ("anthropic", {"tools": [TOOL, TOOL]}, "tools[1].type"),
        ("anthropic", {"tools": [{**TOOL, "name": "seek"}]}, "tools[0].name"),
        ("anthropic", {"tools": [{**TOOL, "max_uses": 0}]}, "tools[0].max_uses"),
        (
            "openai-responses",
            {"tools": [{"type": "web_search"}], "max_tool_calls": 0},
            "max_tool_calls",
        ),
        (
            "openai",
            {"web_search_options": {"search_context_size": "huge"}},
            "web_search_options.search_context_size",
        ),
    ],
)
def test_a_search_that_cannot_be_is_refused_by_name(
    dialect: str, asked: dict[str, Any], param: str
) -> None:
    usual = {"model": "m", "max_tokens": 1, "messages": HI}
    if dialect == "openai-responses":
        usual = {"model": "m", "input": HI}

    with pytest.raises(GatewayError) as refusal:
        DIALECTS[dialect].read_request({**usual, **asked})

    assert (refusal.value.row, refusal.value.param) == ("E13", param)


def test_a_tool_of_the_client_with_the_name_of_anthropics_search_is_no_second_one() -> None:
    tool = {"type": "function", "function": {"name": "web_search"}}
    asked = {"model": "m", "messages": HI, "tools": [tool], "web_search_options": {}}
    target = find_target(
        dialect="anthropic", host="", upstream_name="claude", cap_parameter=""
    )._replace(output_cap=9)

    with pytest.raises(GatewayError) as refusal:
        DIALECTS["anthropic"].write_request(DIALECTS["openai"].read_request(asked), target)

    assert (refusal.value.row, refusal.value.param) == ("E14", "web_search_options")
