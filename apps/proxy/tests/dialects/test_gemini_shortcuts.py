"""The shorter ways for what is usual of Google's dialect say what the longer ones say."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.errors import GatewayError
from apps.proxy.dialects.gemini_request import parse_request
from apps.proxy.dialects.gemini_usage import parse_gemini_usage
from apps.proxy.dialects.parsed_request import ParsedRequest

counts = st.integers(-1, 20) | st.sampled_from((None, True, 1.0, "1", 10_000_001))
entries = st.fixed_dictionaries(
    {"modality": st.sampled_from(("TEXT", "IMAGE", "AUDIO", 1)), "tokenCount": counts}
)
details = st.lists(entries, max_size=2) | st.none() | st.just("TEXT")


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "promptTokenCount": counts,
            "candidatesTokenCount": counts,
            "thoughtsTokenCount": counts,
            "totalTokenCount": counts | st.integers(0, 60),
            "promptTokensDetails": details,
            "candidatesTokensDetails": details,
            "serviceTier": st.just("standard"),
        },
    ),
    st.booleans(),
)
def test_a_usual_usage_is_read_as_any_other(told: dict[str, Any], adds_up: bool) -> None:
    names = ("promptTokenCount", "candidatesTokenCount", "thoughtsTokenCount")
    if adds_up and all(type(told.get(name, 0)) is int for name in names):
        told["totalTokenCount"] = sum(told.get(name, 0) for name in names)

    usual = parse_gemini_usage(told)

    # A member that nobody reads leads the longer way.
    assert usual == parse_gemini_usage({**told, "stranger": 1})


def test_a_usual_usage_tells_thoughts_apart() -> None:
    text = [{"modality": "TEXT", "tokenCount": 8}]
    usage = parse_gemini_usage(
        {
            "promptTokenCount": 8,
            "candidatesTokenCount": 5,
            "thoughtsTokenCount": 7,
            "totalTokenCount": 20,
            "promptTokensDetails": text,
        }
    )

    assert usage is not None
    assert (usage.input, usage.output, usage.reasoning, usage.is_suspect) == (8, 5, 7, False)


def outcome(body: dict[str, Any]) -> ParsedRequest | tuple[str, str | None]:
    try:
        return parse_request("generateContent", body)._replace(body={})
    except GatewayError as error:
        return (error.row, error.param)


numbers: st.SearchStrategy[Any] = st.integers(-1, 9) | st.sampled_from(
    (None, True, 1.0, 1.5, "3", 2**31, [], {})
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "candidateCount": numbers,
            "maxOutputTokens": numbers,
            "temperature": numbers,
            "thinkingConfig": st.just({"thinkingBudget": -1}),
        },
    )
    | numbers
)
def test_a_usual_configuration_is_read_as_any_other(config: Any) -> None:
    body = {"model": "m", "contents": [{"parts": [{"text": "Hi"}]}], "generationConfig": config}

    # A member of no consequence leads the longer way.
    assert outcome(body) == outcome({**body, "aParameterOfTomorrow": 1})


@pytest.mark.parametrize(
    "part",
    [{"text": "a"}, {"text": "a", "thought": True}, {"inlineData": {"mimeType": "image/png"}}, {}],
)
def test_media_are_found_among_texts_wherever_they_stand(part: dict[str, Any]) -> None:
    image = {"inlineData": {"mimeType": "image/png", "data": "AA=="}}
    for contents, system in (
        ([{"parts": [part]}, {"parts": [image]}], {"parts": [part]}),
        ([{"parts": [image]}, {"parts": [part]}], {"parts": [part]}),
        ([{"parts": [part]}], {"parts": [{"text": "a"}, image]}),
    ):
        body = {"model": "m", "contents": contents, "systemInstruction": system}
        assert parse_request("generateContent", body).has_images
