"""Gemini's generateContent, called with Google's SDK, answered by providers of every dialect.

What a client sees is what its own dialect says, and usage × price is what it is charged, to the
nano.

Over 400 lines because all of a surface is tried with one SDK.
"""

from __future__ import annotations

from typing import Any, Final

import httpx
import orjson
import pytest
from google.genai import errors, types

from tests.e2e.dialects import Stages
from tests.e2e.sdks import google_of
from tests.support.bench import INPUT_NANOS, OUTPUT_NANOS, Bench, Stage

# What a dialect says does not depend on the database: test_dialects has what is charged on both.
pytestmark = pytest.mark.sqlite

HELLO: Final = "Say something."
TOOL: Final = types.Tool(
    function_declarations=[
        types.FunctionDeclaration(
            name="get_weather",
            description="The weather of a place.",
            parameters=types.Schema(
                type=types.Type.OBJECT, properties={"place": types.Schema(type=types.Type.STRING)}
            ),
        )
    ]
)


def ask(stage: Stage, contents: Any = HELLO, **asked: Any) -> types.GenerateContentResponse:
    """Return a whole answer."""
    with google_of(stage) as client:
        return client.models.generate_content(
            model=asked.pop("model", stage.model.name), contents=contents, config=config(**asked)
        )


def ask_for_a_stream(
    stage: Stage, contents: Any = HELLO, **asked: Any
) -> list[types.GenerateContentResponse]:
    """Return an answer in pieces."""
    with google_of(stage) as client:
        return list(
            client.models.generate_content_stream(
                model=stage.model.name, contents=contents, config=config(**asked)
            )
        )


def parts_of(*answers: types.GenerateContentResponse) -> list[types.Part]:
    """Return all parts of the first candidate."""
    contents = [(answer.candidates or [types.Candidate()])[0].content for answer in answers]
    return [part for content in contents if content for part in content.parts or []]


def reason_of(answer: types.GenerateContentResponse) -> types.FinishReason | None:
    """Return why an answer ended."""
    (candidate,) = answer.candidates or [types.Candidate()]
    return candidate.finish_reason


def config(**asked: Any) -> types.GenerateContentConfig:
    return types.GenerateContentConfig(
        automatic_function_calling=types.AutomaticFunctionCallingConfig(disable=True), **asked
    )


def cost_of(usage: types.GenerateContentResponseUsageMetadata | None) -> int:
    """Return the charge for what the SDK was told, in nano-USD."""
    assert usage is not None
    written = (usage.candidates_token_count or 0) + (usage.thoughts_token_count or 0)
    return (usage.prompt_token_count or 0) * INPUT_NANOS + written * OUTPUT_NANOS


def test_a_whole_answer(stages: Stages) -> None:
    stage = stages.make()

    answer = ask(stage, system_instruction="Be brief.")

    assert answer.text
    assert reason_of(answer) == types.FinishReason.STOP
    (row,) = stage.settled().rows
    assert (row.endpoint, row.dialect, row.state) == (
        "/v1/models/{model}:generateContent",
        "gemini",
        "completed",
    )
    assert row.charge_nanos == cost_of(answer.usage_metadata) == 58_000


def test_a_stream(stages: Stages) -> None:
    stage = stages.make("prompt=10,tokens=30")

    chunks = ask_for_a_stream(stage)

    assert len(chunks) > 2
    assert "".join(chunk.text or "" for chunk in chunks)
    assert reason_of(chunks[-1]) == types.FinishReason.STOP
    assert stage.settled().charges == (cost_of(chunks[-1].usage_metadata),) == (130_000,)


@pytest.mark.parametrize("is_stream", [False, True])
def test_tools_are_called_and_answered(stages: Stages, is_stream: bool) -> None:
    stage = stages.make("prompt=10,tokens=30,tools=on")

    answers = ask_for_a_stream(stage, tools=[TOOL]) if is_stream else [ask(stage, tools=[TOOL])]
    parts = parts_of(*answers)
    (call,) = [part.function_call for part in parts if part.function_call]
    turns: Any = [
        types.Content(role="user", parts=[types.Part(text=HELLO)]),
        types.Content(role="model", parts=parts),
        types.Content(
            role="user",
            parts=[
                types.Part(
                    function_response=types.FunctionResponse(
                        id=call.id, name=call.name, response={"output": "rain, 12 °C"}
                    )
                )
            ],
        ),
    ]
    second = ask(stage, turns, tools=[TOOL])

    assert call.name == "get_weather"
    assert isinstance(call.args, dict)
    assert "rain, 12 °C" in (second.text or "")
    assert len(stage.settled(2).charges) == 2


def test_a_maximum_that_is_reached_is_the_reason_to_stop(stages: Stages) -> None:
    stage = stages.make("prompt=10,tokens=30")

    answer = ask(stage, max_output_tokens=20)

    assert reason_of(answer) == types.FinishReason.MAX_TOKENS
    assert stage.settled().charges == (90_000,)


def request_of(stage: Stage, method: str, body: Any) -> dict[str, Any]:
    url = f"{stage.bench.gateway.url}/v1beta/models/{stage.model.name}:{method}"
    headers = {"x-goog-api-key": stage.caller.raw}
    return {"url": url, "json": body, "headers": headers, "timeout": 20}


def post(stage: Stage, method: str, body: Any) -> httpx.Response:
    return httpx.post(**request_of(stage, method, body))


def test_a_stream_may_be_an_array(stages: Stages) -> None:
    stage = stages.make("prompt=10,tokens=30")
    body = {"contents": [{"parts": [{"text": HELLO}]}]}

    answer = post(stage, "streamGenerateContent", body)

    assert answer.headers["content-type"].startswith("application/json")
    told = answer.json()
    assert len(told) > 2
    assert told[-1]["candidates"][0]["finishReason"] == "STOP"
    assert stage.settled().charges == (130_000,)


def test_a_provider_of_the_same_dialect_gets_the_request_as_it_is(bench: Bench) -> None:
    stage = Stages(bench, "gemini").make()
    body = {
        "contents": [{"role": "user", "parts": [{"text": HELLO}]}],
        "generation_config": {"max_output_tokens": 50, "unheardOf": 1},
        "unheardOf": {"x": 1},
    }

    answer = post(stage, "generateContent", body)

    assert answer.status_code == 200
    (call,) = stage.upstream_calls
    assert call["body"] == body
    sent = call["request_headers"]
    assert "authorization" not in sent
    assert stage.caller.raw not in sent.values()
    assert stage.settled().charges == (58_000,)


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(
    ("fault", "code", "status"),
    [
        ("status(400)", 400, "INVALID_ARGUMENT"),
        ("status(401)", 502, "UNAVAILABLE"),
        ("status(429)", 429, "RESOURCE_EXHAUSTED"),
        ("status(503)", 503, "UNAVAILABLE"),
    ],
)
def test_a_provider_that_fails(
    stages: Stages, fault: str, code: int, status: str, is_stream: bool
) -> None:
    stage = stages.make(f"fault={fault}")
    call: Any = ask_for_a_stream if is_stream else ask

    with pytest.raises(errors.APIError) as raised:
        call(stage)

    assert (raised.value.code, raised.value.status) == (code, status)
    assert stage.settled().charges == (0,)


@pytest.mark.parametrize("fault", ["cut_after(8)", "err_event_mid(8)"])
def test_a_stream_that_fails_is_seen_to_fail(stages: Stages, fault: str) -> None:
    stage = stages.make(f"prompt=10,tokens=20,pace=0.02,fault={fault}")

    with pytest.raises(errors.ServerError) as raised:
        ask_for_a_stream(stage)

    assert (raised.value.code, raised.value.status) == (503, "UNAVAILABLE")
    (row,) = stage.settled().rows
    assert row.state == "upstream_interrupted"
    assert 0 < row.charge_nanos <= row.hold_nanos


def test_an_array_that_fails_is_seen_to_fail(stages: Stages) -> None:
    stage = stages.make("prompt=10,tokens=20,pace=0.02,fault=cut_after(8)")
    body = {"contents": [{"parts": [{"text": HELLO}]}]}
    told: list[bytes] = []

    with (
        httpx.stream("POST", **request_of(stage, "streamGenerateContent", body)) as answer,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        told.extend(answer.iter_bytes())

    assert orjson.loads(b"".join(told) + b"]")[-1]["error"]["status"] == "UNAVAILABLE"
    assert stage.settled().rows[0].state == "upstream_interrupted"


@pytest.mark.parametrize(
    ("change", "parameter"),
    [
        ({"tools": [{"googleSearch": {}}]}, "tools[0].googleSearch"),
        ({"tools": [{"code_execution": {}}]}, "tools[0].code_execution"),
        ({"cachedContent": "cachedContents/a"}, "cachedContent"),
        ({"generationConfig": {"maxOutputTokens": 0}}, "generationConfig.maxOutputTokens"),
        ({"generation_config": {"candidate_count": 99}}, "generation_config.candidate_count"),
        ({"contents": "Hi"}, "contents"),
        ({"stream": True}, "stream"),
        ({"model": "models/another"}, "model"),
    ],
)
def test_what_cannot_be_metered_is_refused_by_name(
    bench: Bench, change: dict[str, Any], parameter: str
) -> None:
    stage = Stages(bench, "gemini").make()
    body = {"contents": [{"parts": [{"text": HELLO}]}], **change}

    answer = post(stage, "generateContent", body)

    assert answer.status_code == 400
    error = answer.json()["error"]
    assert error["status"] == "INVALID_ARGUMENT"
    assert [told["fieldViolations"] for told in error["details"] if "fieldViolations" in told] == [
        [{"field": parameter}]
    ]
    assert stage.upstream_calls == []
    assert bench.statement(stage.caller).rows == ()


@pytest.mark.parametrize(
    ("query", "parameter"), [("alt=media", "alt"), ("fields=candidates", "fields")]
)
def test_what_would_shape_an_answer_otherwise_is_refused_by_name(
    bench: Bench, query: str, parameter: str
) -> None:
    stage = Stages(bench, "gemini").make()
    models = f"{bench.gateway.url}/v1beta/models"
    headers = {"x-goog-api-key": stage.caller.raw}
    body = {"contents": [{"parts": [{"text": HELLO}]}]}

    called = [
        httpx.post(f"{models}/{stage.model.name}:{method}?{query}", json=body, headers=headers)
        for method in ("generateContent", "streamGenerateContent", "countTokens")
    ]
    read = httpx.get(f"{models}?{query}", headers=headers)

    for answer in (*called, read):
        assert answer.status_code == 400
        assert [{"field": parameter}] in [
            told.get("fieldViolations") for told in answer.json()["error"]["details"]
        ]
    assert stage.upstream_calls == []
    assert bench.statement(stage.caller).rows == ()


def test_an_unknown_model_and_a_missing_key_are_told_in_googles_shape(bench: Bench) -> None:
    stage = Stages(bench, "gemini").make()
    url = f"{bench.gateway.url}/v1beta/models/{stage.model.name}:generateContent"

    with pytest.raises(errors.ClientError) as missing:
        ask(stage, model="no-such-model")
    unknown = httpx.post(url, json={}, headers={"x-goog-api-key": "AIza-unknown"})
    nowhere = [
        httpx.post(url.replace(":generateContent", method), json={})
        for method in (":predict", ":batchGenerateContent", "")
    ]

    assert (missing.value.code, missing.value.status) == (404, "NOT_FOUND")
    assert unknown.json()["error"]["status"] == "UNAUTHENTICATED"
    told = [(answer.status_code, answer.json()["error"]["status"]) for answer in nowhere]
    assert told == [(404, "NOT_FOUND"), (404, "NOT_FOUND"), (405, "INVALID_ARGUMENT")]
    assert bench.statement(stage.caller).rows == ()


def test_an_empty_balance_is_not_tried_again(bench: Bench) -> None:
    stage = Stages(bench, "gemini").make()
    poor = bench.make_caller(wallet_nanos=1)
    bench.wait_for("/v1/models", poor.raw, 401)
    url = f"{bench.gateway.url}/v1beta/models/{stage.model.name}:generateContent"
    body = {"contents": [{"parts": [{"text": HELLO}]}]}

    answer = httpx.post(url, json=body, headers={"x-goog-api-key": poor.raw})

    assert answer.status_code == 402
    assert answer.json()["error"]["status"] == "RESOURCE_EXHAUSTED"
    assert stage.upstream_calls == []


def test_a_repeat_gets_the_first_array(stages: Stages) -> None:
    stage = stages.make("prompt=10,tokens=12")
    body = {"contents": [{"parts": [{"text": HELLO}]}]}
    asked = request_of(stage, "streamGenerateContent", body)
    asked["headers"]["idempotency-key"] = "once"

    first = httpx.post(**asked)
    again = httpx.post(**asked)

    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["content-type"] == first.headers["content-type"]
    assert again.json() == first.json()
    assert stage.settled().charges == (58_000,)


def test_tokens_are_counted_without_a_charge(stages: Stages) -> None:
    stage = stages.make()

    with google_of(stage) as client:
        counted = client.models.count_tokens(model=stage.model.name, contents=HELLO)
    within = post(
        stage,
        "countTokens",
        {"generateContentRequest": {"contents": [{"parts": [{"text": HELLO}]}]}},
    )

    # By a tokenizer, or by a rule of thumb where it is not there in time.
    assert {counted.total_tokens, within.json()["totalTokens"]} <= {10, 11, 12}
    assert stage.settled(0).charges == ()


def test_models_are_listed_in_googles_shape(stages: Stages) -> None:
    stage = stages.make()

    vectors = stage.bench.stage("demo-embedding", provider=stage.bench.provider)

    with google_of(stage) as client:
        names = [model.name for model in client.models.list()]
        one = client.models.get(model=stage.model.name)
    with google_of(vectors) as client:
        embedding = client.models.get(model=vectors.model.name)

    beta = httpx.get(
        f"{stage.bench.gateway.url}/v1beta/models", headers={"x-goog-api-key": stage.caller.raw}
    )

    assert one.name == f"models/{stage.model.name}"
    assert one.name in names
    assert [model["name"] for model in beta.json()["models"]] == names
    assert one.supported_actions == ["generateContent", "streamGenerateContent", "countTokens"]
    assert embedding.supported_actions == ["embedContent", "batchEmbedContents", "countTokens"]
    assert one.input_token_limit == stage.model.context_length


def test_texts_are_embedded_by_a_provider_of_the_same_dialect(bench: Bench) -> None:
    stage = Stages(bench, "gemini").make("prompt=10")

    with google_of(stage) as client:
        found = client.models.embed_content(model=stage.model.name, contents=["One.", "Two."])
    single = post(stage, "embedContent", {"content": {"parts": [{"text": "One."}]}})

    assert found.embeddings is not None
    assert len(found.embeddings) == 2
    assert single.json()["embedding"]["values"] == found.embeddings[0].values
    assert [call["body"].get("model") for call in stage.upstream_calls] == [None, None]
    statement = stage.settled(2)
    assert statement.charges == (10 * INPUT_NANOS, 10 * INPUT_NANOS)
    assert [row.endpoint for row in statement.rows] == [
        "/v1/models/{model}:batchEmbedContents",
        "/v1beta/models/{model}:embedContent",
    ]


def test_what_has_no_vectors_embeds_nothing_for_a_client_of_gemini(bench: Bench) -> None:
    stage = Stages(bench, "anthropic").make()

    answer = post(stage, "embedContent", {"content": {"parts": [{"text": "One."}]}})

    assert (answer.status_code, answer.json()["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert stage.upstream_calls == []


def test_the_key_may_stand_in_the_address_and_is_kept_nowhere(bench: Bench) -> None:
    stage = Stages(bench, "gemini").make()
    url = f"{bench.gateway.url}/v1beta/models/{stage.model.name}:generateContent"
    body = {"contents": [{"parts": [{"text": HELLO}]}]}

    answer = httpx.post(url, params={"key": stage.caller.raw}, json=body)
    unknown = httpx.post(url, params={"key": "sk-audit-nobody"}, json=body)
    both = httpx.post(
        url, params={"key": stage.caller.raw}, json=body, headers={"x-goog-api-key": "another"}
    )
    elsewhere = httpx.post(
        f"{bench.gateway.url}/v1/chat/completions", params={"key": stage.caller.raw}, json=body
    )

    assert answer.status_code == 200
    assert [other.status_code for other in (unknown, both, elsewhere)] == [401, 401, 401]
    (row,) = stage.settled().rows
    assert stage.caller.raw not in row.endpoint
    (call,) = stage.upstream_calls
    assert stage.caller.raw not in str(call)
    assert stage.caller.raw not in bench.gateway.log()
    for refusal in (unknown, both, elsewhere):
        assert stage.caller.raw not in refusal.text
