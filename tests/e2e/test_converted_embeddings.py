"""Embeddings for clients of one dialect by providers of another, on both databases."""

from __future__ import annotations

from typing import Any, Final

import httpx
import openai
import orjson
import pytest
from google import genai
from google.genai import types

from tests.e2e.dialects import Stages
from tests.e2e.raw_upstream import RawUpstream, respond
from tests.support.bench import INPUT_NANOS, Bench, Stage
from tests.support.processes import wait_until

# What is converted depends on no engine.
pytestmark = pytest.mark.sqlite

TEXTS: Final = ["One.", "Two."]


def embed(stage: Stage, texts: Any = TEXTS, **asked: Any) -> openai.types.CreateEmbeddingResponse:
    client = stage.client(max_retries=0)
    return client.embeddings.create(model=stage.model.name, input=texts, **asked)


def test_openais_sdk_is_embedded_for_by_gemini(bench: Bench) -> None:
    stage = Stages(bench, "gemini").make("prompt=10")

    # The SDK asks for base64 and decodes it by itself.
    found = embed(stage, dimensions=4)
    plain = embed(stage, "One.", dimensions=4, encoding_format="float")

    assert [len(item.embedding) for item in found.data] == [4, 4]
    assert [item.index for item in found.data] == [0, 1]
    assert found.data[0].embedding == pytest.approx(plain.data[0].embedding)
    assert (found.model, found.usage.prompt_tokens, found.usage.total_tokens) == (
        stage.model.name,
        10,
        10,
    )
    assert [call["path"].rpartition(":")[2] for call in stage.upstream_calls] == [
        "batchEmbedContents"
    ] * 2
    statement = stage.settled(2)
    assert statement.charges == (10 * INPUT_NANOS,) * 2
    assert [(row.endpoint, row.dialect, row.usage_source) for row in statement.rows] == [
        ("/v1/embeddings", "openai", "reported")
    ] * 2


def test_googles_sdk_is_embedded_for_by_a_provider_of_openais_dialect(bench: Bench) -> None:
    stage = Stages(bench, "openai").make("prompt=10")
    options = types.HttpOptions(base_url=bench.gateway.url, timeout=20_000)
    url = f"{bench.gateway.url}/v1beta/models/{stage.model.name}:embedContent"
    one = {"content": {"parts": [{"text": "One."}]}, "outputDimensionality": 4}

    with genai.Client(api_key=stage.caller.raw, http_options=options) as client:
        found = client.models.embed_content(
            model=stage.model.name,
            contents=["One.", "Two."],
            config=types.EmbedContentConfig(output_dimensionality=4, task_type="CLUSTERING"),
        )
    single = httpx.post(url, headers={"x-goog-api-key": stage.caller.raw}, json=one).json()

    assert found.embeddings is not None
    assert [len(vector.values or ()) for vector in found.embeddings] == [4, 4]
    assert single["embedding"]["values"] == pytest.approx(found.embeddings[0].values)
    assert single["usageMetadata"] == {"promptTokenCount": 10}
    assert stage.settled(2).charges == (10 * INPUT_NANOS,) * 2


def test_tokens_that_google_does_not_tell_are_counted_told_and_charged_alike(bench: Bench) -> None:
    answer = {"embeddings": [{"values": [0.5, 0.25]}, {"values": [1.0, 0.0]}]}
    with RawUpstream(lambda _: [respond(orjson.dumps(answer))]) as upstream:
        provider = bench.make_provider(upstream.base_url, dialect="gemini")
        stage = bench.stage("gemini-embedding-001", provider=provider)
        texts = ["The quick brown fox jumps over the lazy dog."] * 2
        told: list[int] = []

        def is_counted() -> bool:
            # The first ones may be estimated: until the tokenizer has been loaded.
            told.append(embed(stage, texts).usage.prompt_tokens)
            return told[-1] == 22

        wait_until(is_counted, timeout_seconds=30, what="a count by the tokenizer")

    rows = stage.settled(len(told)).rows
    assert [row.charge_nanos for row in rows] == [tokens * INPUT_NANOS for tokens in told]
    assert {row.usage_source for row in rows} == {"estimated"}
    assert all(row.charge_nanos <= row.hold_nanos for row in rows)


def test_each_text_is_held_for_with_a_context_of_its_own(bench: Bench) -> None:
    stage = Stages(bench, "gemini").make("prompt=10", context_length=1_000)

    embed(stage, ["word " * 2_000] * 3)

    (row,) = stage.settled().rows
    assert row.hold_nanos == 3 * 1_000 * INPUT_NANOS


@pytest.mark.parametrize(
    ("asked", "parameter"),
    [({"input": [1, 2]}, "input"), ({"input": "a", "input_type": "query"}, "input_type")],
)
def test_what_gemini_cannot_be_told_is_refused_and_holds_nothing(
    bench: Bench, asked: dict[str, Any], parameter: str
) -> None:
    stage = Stages(bench, "gemini").make()

    answer = httpx.post(
        f"{bench.gateway.url}/v1/embeddings",
        headers={"authorization": f"Bearer {stage.caller.raw}"},
        json={"model": stage.model.name, **asked},
    )

    assert (answer.status_code, answer.json()["error"]["param"]) == (400, parameter)
    assert stage.upstream_calls == []
    assert stage.settled(0).charges == ()


def test_not_one_vector_for_each_text_costs_nothing(bench: Bench) -> None:
    answer = {"embeddings": [{"values": [0.5]}], "usageMetadata": {"promptTokenCount": 9}}
    with RawUpstream(lambda _: [respond(orjson.dumps(answer))]) as upstream:
        provider = bench.make_provider(upstream.base_url, dialect="gemini")
        stage = bench.stage("raw", provider=provider)

        with pytest.raises(openai.APIStatusError) as failed:
            embed(stage)

    assert failed.value.status_code == 502
    assert stage.settled().charges == (0,)
