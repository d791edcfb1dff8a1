"""What goes from a dialect through the neutral form and back is what it was.

Bodies are made up in the one form that our writers give them; what other forms mean the same is
in the golden files.
"""

from typing import Any, Final

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.usage import TOKEN_CLASSES, Usage
from apps.proxy.dialects.anthropic_usage import anthropic_usage, parse_anthropic_usage
from apps.proxy.dialects.conversion import DIALECTS
from apps.proxy.dialects.gemini_parts import NO_SIGNATURE
from apps.proxy.dialects.gemini_usage import gemini_usage, parse_gemini_usage
from apps.proxy.dialects.neutral import EXTENSIONS, Target
from apps.proxy.dialects.openai_usage import openai_usage, parse_usage
from apps.proxy.dialects.responses_answer import responses_usage
from apps.proxy.tests.dialects.body_kit import (
    anthropic_body,
    gemini_body,
    openai_body,
    responses_body,
)

TARGET: Final = Target(model="m", extensions=frozenset(EXTENSIONS))


def there_and_back(dialect: str, body: dict[str, Any], target: Target) -> dict[str, Any]:
    converter = DIALECTS[dialect]
    written = converter.write_request(converter.read_request(body), target)
    loaded: dict[str, Any] = orjson.loads(orjson.dumps(written))
    return loaded


@given(body=openai_body)
def test_a_request_of_openais_dialect_comes_back_whole(body: dict[str, Any]) -> None:
    assert there_and_back("openai", body, TARGET) == body


@given(body=anthropic_body)
def test_a_request_of_anthropics_dialect_comes_back_whole(body: dict[str, Any]) -> None:
    assert there_and_back("anthropic", body, TARGET) == body


@given(body=gemini_body)
def test_a_request_of_geminis_dialect_comes_back_whole(body: dict[str, Any]) -> None:
    # In this form of thinking no call is told to be of another model.
    form = TARGET._replace(reasoning="effort" if "generationConfig" in body else "budget")
    calls = [
        part for content in body["contents"] for part in content["parts"] if "functionCall" in part
    ]

    back = there_and_back("gemini", body, form)

    for content in back["contents"]:
        for part in content["parts"]:
            if part.get("thoughtSignature") == NO_SIGNATURE:
                assert part not in calls
                del part["thoughtSignature"]
    assert back == body


@pytest.mark.parametrize(
    "asked", [{"thinkingBudget": 0}, {"thinkingBudget": -1}, {"thinkingBudget": 2000}]
)
def test_how_geminis_models_with_budgets_are_told_to_think_comes_back(
    asked: dict[str, Any],
) -> None:
    contents = [{"role": "user", "parts": [{"text": "Hi"}]}]
    body = {"model": "m", "contents": contents, "generationConfig": {"thinkingConfig": asked}}

    assert there_and_back("gemini", body, TARGET._replace(reasoning="budget")) == body


@given(body=responses_body)
def test_a_request_of_responses_comes_back_whole(body: dict[str, Any]) -> None:
    assert there_and_back("openai-responses", body, TARGET) == body


@given(body=anthropic_body, thinking=st.sampled_from(("disabled", "enabled", "adaptive")))
def test_how_anthropics_models_are_told_to_think_comes_back(
    body: dict[str, Any], thinking: str
) -> None:
    asked: dict[str, Any] = {"type": thinking}
    if thinking == "enabled":
        asked["budget_tokens"] = 2000
    if thinking == "adaptive":
        asked["display"] = "summarized"
    if thinking != "disabled":
        # While it thinks Claude takes no other sampling, and no call that has to be made.
        for name in ("temperature", "top_p", "top_k", "tool_choice"):
            body.pop(name, None)
    body = {
        **body,
        "max_tokens": 4000,
        "thinking": asked,
        "messages": [{"role": "user", "content": "Hi"}],
    }
    form = TARGET._replace(reasoning="budget" if thinking == "enabled" else "effort")

    assert there_and_back("anthropic", body, form) == body


token_counts = st.builds(
    lambda counts: Usage(**dict(zip(TOKEN_CLASSES, counts, strict=True)), source="reported"),
    st.lists(st.integers(0, 100_000), min_size=len(TOKEN_CLASSES), max_size=len(TOKEN_CLASSES)),
)


@given(usage=token_counts)
def test_every_class_of_tokens_comes_back_through_openais_usage(usage: Usage) -> None:
    assert parse_usage(openai_usage(usage)) == usage


@given(usage=token_counts)
def test_every_class_of_tokens_comes_back_through_the_usage_of_responses(usage: Usage) -> None:
    assert parse_usage(responses_usage(usage)) == usage


@given(usage=token_counts)
def test_tokens_sum_to_the_same_in_anthropics_usage(usage: Usage) -> None:
    seen = parse_anthropic_usage(anthropic_usage(usage))

    assert seen == Usage(
        input=usage.input + usage.audio_in + usage.image_in,
        cache_read=usage.cache_read,
        cache_write_5m=usage.cache_write_5m,
        cache_write_1h=usage.cache_write_1h,
        output=usage.output + usage.audio_out + usage.image_out,
        reasoning=usage.reasoning,
        source="reported",
    )


@given(usage=token_counts)
def test_tokens_sum_to_the_same_in_geminis_usage(usage: Usage) -> None:
    # An image that was cached is a cached token there, unless its modality is told.
    seen = parse_gemini_usage(gemini_usage(usage))

    assert seen == Usage(
        input=usage.input + usage.cache_write_5m + usage.cache_write_1h,
        cache_read=usage.cache_read,
        audio_in=usage.audio_in,
        image_in=usage.image_in,
        output=usage.output,
        reasoning=usage.reasoning,
        audio_out=usage.audio_out,
        image_out=usage.image_out,
        source="reported",
    )
