"""Embeddings in Google's dialect: what may be asked, what it can cost, and what comes back."""

from typing import Any, Final

import orjson
import pytest

from apps.core.errors import GatewayError
from apps.core.usage import Usage
from apps.proxy.dialects.gemini_embedding import TEXTS_MAX, texts_of
from apps.proxy.dialects.parsed_request import READING_ENDPOINTS, Endpoint
from apps.proxy.dialects.providers import PROVIDERS, Sending
from apps.proxy.dialects.surfaces import input_tokens_bound, parse_request

ONE: Final = {"content": {"parts": [{"text": "One."}]}}
SENDING: Final = Sending("up", is_stream=False, output_cap=None, cap_parameter="")


def batch(*requests: Any) -> dict[str, Any]:
    return {"model": "m", "requests": list(requests)}


def test_texts_are_read_one_by_one() -> None:
    single = parse_request("embedContent", "gemini", {"model": "m", **ONE, "taskType": "X"})
    both = parse_request("batchEmbedContents", "gemini", batch(ONE, {**ONE, "model": "models/m"}))

    assert {single.endpoint, both.endpoint} <= READING_ENDPOINTS
    assert (single.output_tokens_asked, single.is_stream, single.dialect) == (None, False, "gemini")
    assert list(texts_of(single.body)) == ["One."]
    assert list(texts_of(both.body)) == ["One.", "One."]


@pytest.mark.parametrize(
    ("endpoint", "body", "row", "param"),
    [
        ("embedContent", {}, "E13", "content"),
        ("embedContent", {"content": "One."}, "E13", "content"),
        ("embedContent", {"content": {"parts": [{"text": 1}]}}, "E13", "content.parts[0].text"),
        (
            "embedContent",
            {"content": {"parts": [{"text": "a", "inlineData": {}}]}},
            "E14",
            "content.parts[0].inlineData",
        ),
        ("embedContent", {**ONE, "cachedContent": "x"}, "E14", "cachedContent"),
        ("batchEmbedContents", {}, "E13", "requests"),
        ("batchEmbedContents", {"requests": []}, "E13", "requests"),
        ("batchEmbedContents", {"requests": [1]}, "E13", "requests[0]"),
        ("batchEmbedContents", {"requests": [ONE] * (TEXTS_MAX + 1)}, "E13", "requests"),
        (
            "batchEmbedContents",
            {"requests": [ONE, {**ONE, "model": "models/dear"}]},
            "E13",
            "requests[1].model",
        ),
    ],
)
def test_what_cannot_be_metered_is_refused_by_name(
    endpoint: Endpoint, body: dict[str, Any], row: str, param: str
) -> None:
    with pytest.raises(GatewayError) as refusal:
        parse_request(endpoint, "gemini", {"model": "m", **body})

    assert (refusal.value.row, refusal.value.param) == (row, param)


def test_an_input_is_bounded_by_its_bytes_and_by_a_context_for_each_text() -> None:
    request = parse_request("batchEmbedContents", "gemini", batch(ONE, ONE))

    assert input_tokens_bound(request, b"x" * 500, 10_000, 0) == 500 + 2 * 64
    assert input_tokens_bound(request, b"x" * 500, 100, 0) == 200


def test_the_provider_is_told_its_own_name_of_the_model() -> None:
    gemini = PROVIDERS["gemini"]

    single = orjson.loads(gemini.body({"model": "m", **ONE}, SENDING))
    both = orjson.loads(gemini.body(batch(ONE, {**ONE, "model": "models/m"}), SENDING))

    assert single == ONE
    assert both == {"requests": [{**ONE, "model": "models/up"}] * 2}
    assert gemini.path("embedContent", SENDING) == "models/up:embedContent"
    assert gemini.path("batchEmbedContents", SENDING) == "models/up:batchEmbedContents"


def read(endpoint: Endpoint, document: Any) -> Usage:
    found = PROVIDERS["gemini"].read_answer(endpoint, orjson.dumps(document))
    return found.final_usage(estimated_input_tokens=9)


def test_vectors_cost_what_is_reported_or_else_counted() -> None:
    vector = {"values": [0.1]}

    told = read("embedContent", {"embedding": vector, "usageMetadata": {"promptTokenCount": 7}})
    untold = read("batchEmbedContents", {"embeddings": [vector, vector]})

    assert told == Usage(input=7, source="reported")
    assert untold == Usage(input=9, source="estimated")


@pytest.mark.parametrize(
    ("endpoint", "document"),
    [
        ("embedContent", {}),
        ("embedContent", {"embeddings": []}),
        ("embedContent", {"embedding": {"values": 1}}),
        ("batchEmbedContents", {"embeddings": [1]}),
        ("batchEmbedContents", {"embedding": {"values": []}}),
        ("embedContent", {"error": {}, "embedding": {"values": []}}),
    ],
)
def test_what_is_no_vector_is_the_providers_fault(endpoint: Endpoint, document: Any) -> None:
    with pytest.raises(GatewayError) as refusal:
        read(endpoint, document)

    assert refusal.value.row == "E49"
