"""Google's Gemini API as the demo provider speaks it.

Over 400 lines because all of a dialect is tried with one provider.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pytest

from apps.providers.demo import DemoProvider
from apps.providers.demo.tests.peer import connect, dechunk, ended
from apps.providers.demo.tests.spoken import CONTENTS, SPOKEN, call

PARAMETERS = {
    "type": "OBJECT",
    "properties": {"city": {"type": "STRING"}, "nights": {"type": "INTEGER", "minimum": 2}},
    "required": ["city", "nights"],
}
TOOLS = [{"functionDeclarations": [{"name": "book", "parameters": PARAMETERS}]}]
BOOKING = {"functionCall": {"name": "book", "args": {"city": "demo", "nights": 2}}}
THOUGHTS = {"thinkingConfig": {"includeThoughts": True}}


async def ask(provider: DemoProvider, model: str, **fields: Any) -> tuple[int, dict[str, Any]]:
    """Return status and JSON of a call that is not streamed."""
    path = f"/v1beta/models/{model}:generateContent"
    status, _, content = await call(provider, path, {"contents": CONTENTS, **fields})
    return status, json.loads(content)


def read_pieces(content: bytes) -> list[Any]:
    """Return the documents of a stream; one that is no event stands as it is."""
    parts = content.decode().removesuffix("\r\n\r\n").split("\r\n\r\n")
    return [json.loads(part.removeprefix("data: ")) for part in parts]


async def stream(provider: DemoProvider, model: str, **fields: Any) -> list[Any]:
    """Return the documents of a stream of events."""
    path = f"/v1beta/models/{model}:streamGenerateContent?alt=sse"
    status, headers, content = await call(provider, path, {"contents": CONTENTS, **fields})
    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    return read_pieces(content)


async def stream_array(provider: DemoProvider, model: str, **fields: Any) -> list[Any]:
    """Return the items of a stream that is one JSON array."""
    path = f"/v1beta/models/{model}:streamGenerateContent"
    status, headers, content = await call(provider, path, {"contents": CONTENTS, **fields})
    assert (status, headers["content-type"]) == (200, "application/json; charset=UTF-8")
    items: list[Any] = json.loads(content)
    return items


def read_part(piece: Any) -> Any:
    """Return the only part of the only candidate."""
    (candidate,) = piece["candidates"]
    (part,) = candidate["content"]["parts"]
    return part


async def test_an_answer_comes_whole(provider: DemoProvider) -> None:
    model = "m:tokens=5,reasoning=2,prompt=20,cached=4"

    status, answer = await ask(provider, model)

    assert status == 200
    assert answer == {
        "candidates": [
            {
                "content": {"parts": [{"text": "This answer costs"}], "role": "model"},
                "finishReason": "STOP",
                "index": 0,
            }
        ],
        "usageMetadata": {
            "promptTokenCount": 20,
            "candidatesTokenCount": 3,
            "totalTokenCount": 25,
            "cachedContentTokenCount": 4,
            "cacheTokensDetails": [{"modality": "TEXT", "tokenCount": 4}],
            "thoughtsTokenCount": 2,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 20}],
        },
        "modelVersion": model,
        "responseId": provider.calls[0]["response_id"],
    }
    assert provider.calls[0]["model"] == model
    assert (provider.calls[0]["input_tokens"], provider.calls[0]["output_tokens"]) == (20, 5)


@pytest.mark.parametrize("form", [stream, stream_array])
async def test_every_piece_of_a_stream_tells_the_usage_so_far(
    provider: DemoProvider, form: Any
) -> None:
    pieces = await form(provider, "m:tokens=3,reasoning=1", generationConfig=THOUGHTS)

    assert [read_part(piece) for piece in pieces] == [
        {"text": "This", "thought": True},
        {"text": "This"},
        {"text": " answer"},
        {"text": ""},
    ]
    usages = [piece["usageMetadata"] for piece in pieces]
    assert [usage["candidatesTokenCount"] for usage in usages] == [0, 1, 2, 2]
    assert [usage["thoughtsTokenCount"] for usage in usages] == [1, 1, 1, 1]
    assert [usage["totalTokenCount"] for usage in usages] == [5, 6, 7, 7]
    finishes = [piece["candidates"][0].get("finishReason") for piece in pieces]
    assert finishes == [None, None, None, "STOP"]
    assert len({piece["responseId"] for piece in pieces}) == 1
    record = await ended(provider)
    assert (record["stream"], record["output_tokens"], record["usage_sent"]) == (True, 3, True)


async def test_thoughts_are_shown_only_where_asked(provider: DemoProvider) -> None:
    _, shown = await ask(provider, "m:tokens=3,reasoning=2", generationConfig=THOUGHTS)
    hidden = await stream(provider, "m:tokens=3,reasoning=2")

    assert shown["candidates"][0]["content"]["parts"] == [
        {"text": "This answer", "thought": True},
        {"text": "This"},
    ]
    assert [read_part(piece) for piece in hidden] == [{"text": "This"}, {"text": ""}]
    assert hidden[0]["usageMetadata"]["thoughtsTokenCount"] == 2


async def test_a_function_is_called_and_what_it_says_is_told(provider: DemoProvider) -> None:
    _, first = await ask(provider, "m:tools=on", tools=TOOLS)
    pieces = await stream(provider, "m:tools=on,reasoning=1", tools=TOOLS)
    told = {"functionResponse": {"name": "book", "response": {"result": "row 12"}}}
    contents = [
        *CONTENTS,
        first["candidates"][0]["content"],
        {"role": "user", "parts": [told]},
    ]
    _, second = await ask(provider, "m:tools=on", tools=TOOLS, contents=contents)

    assert read_part(first) == BOOKING
    assert first["candidates"][0]["finishReason"] == "STOP"
    call_part = read_part(pieces[0])
    assert call_part.pop("thoughtSignature")
    assert call_part == BOOKING
    assert len(pieces) == 2
    assert pieces[1]["usageMetadata"]["candidatesTokenCount"] == 8
    assert first["usageMetadata"]["candidatesTokenCount"] == 8
    assert read_part(second) == {"text": "The tool says: row 12"}


@pytest.mark.parametrize(
    ("calling", "member"),
    [
        ({"mode": "ANY"}, "functionCall"),
        ({"mode": "ANY", "allowedFunctionNames": ["book"]}, "functionCall"),
        ({"mode": "AUTO"}, "text"),
        ({"mode": "NONE"}, "text"),
    ],
)
async def test_the_mode_of_calling_is_obeyed(
    provider: DemoProvider, calling: dict[str, Any], member: str
) -> None:
    config = {"functionCallingConfig": calling}

    _, answer = await ask(provider, "m", tools=TOOLS, toolConfig=config)

    assert list(read_part(answer)) == [member]


@pytest.mark.parametrize("name", ["responseSchema", "response_schema", "responseJsonSchema"])
async def test_a_structured_answer_fits_its_schema(provider: DemoProvider, name: str) -> None:
    config = {"responseMimeType": "application/json", name: PARAMETERS}
    if name == "responseJsonSchema":
        config[name] = json.loads(json.dumps(PARAMETERS).lower())

    _, answer = await ask(provider, "m", generationConfig=config)

    assert json.loads(read_part(answer)["text"]) == {"city": "demo", "nights": 2}


async def test_output_is_never_longer_than_the_maximum(provider: DemoProvider) -> None:
    config = {"maxOutputTokens": 3, "candidateCount": 2}

    _, answer = await ask(provider, "m:tokens=50", generationConfig=config)
    pieces = await stream(provider, "m:tokens=50", generationConfig=config)

    reasons = [candidate["finishReason"] for candidate in answer["candidates"]]
    assert reasons == ["MAX_TOKENS", "MAX_TOKENS"]
    assert answer["usageMetadata"]["candidatesTokenCount"] == 6
    assert [piece["candidates"][0]["index"] for piece in pieces] == [0, 1, 0, 1, 0, 1, 0, 1]
    assert pieces[-1]["usageMetadata"]["candidatesTokenCount"] == 6


async def test_tokens_are_counted(provider: DemoProvider) -> None:
    path = "/v1beta/models/m:countTokens"
    image = {"inlineData": {"mimeType": "image/png", "data": ""}}
    contents = [{"parts": [{"text": "12345678"}, image]}]
    asked = {"contents": contents, "systemInstruction": {"parts": [{"text": "1234"}]}}

    _, _, plain = await call(provider, path, asked)
    _, _, nested = await call(provider, path, {"generateContentRequest": asked})

    assert json.loads(plain)["totalTokens"] == json.loads(nested)["totalTokens"] == 1 + 2 + 85


async def test_contents_are_embedded_alone_and_in_batches(provider: DemoProvider) -> None:
    one = {"content": {"parts": [{"text": "one"}]}, "outputDimensionality": 8}
    two = {"content": {"parts": [{"text": "two"}]}, "outputDimensionality": 8}

    _, _, alone = await call(provider, "/v1beta/models/m:embedContent", one)
    path = "/v1beta/models/m:batchEmbedContents"
    _, _, batch = await call(provider, path, {"requests": [one, two]})
    status, _, refused = await call(provider, path, {"requests": []})

    vector = json.loads(alone)["embedding"]["values"]
    vectors = [entry["values"] for entry in json.loads(batch)["embeddings"]]
    assert len(vector) == 8
    assert sum(number * number for number in vector) == pytest.approx(1.0, abs=1e-6)
    assert vectors[0] == vector
    assert vectors[1] != vector
    assert json.loads(batch)["usageMetadata"]["promptTokenCount"] == 2
    assert (status, json.loads(refused)["error"]["status"]) == (400, "INVALID_ARGUMENT")


@pytest.mark.parametrize("root", ["/v1beta/models", "/v1/models"])
async def test_models_are_listed_and_found(provider: DemoProvider, root: str) -> None:
    headers = {"x-goog-api-key": "any"}

    _, _, listed = await call(provider, root, headers=headers)
    _, _, found = await call(provider, f"{root}/m:tokens=3", headers=headers)

    assert [model["name"] for model in json.loads(listed)["models"]] == [
        "models/demo-chat",
        "models/demo-embedding",
    ]
    assert json.loads(found)["name"] == "models/m:tokens=3"


async def test_the_model_may_be_escaped_and_the_version_be_1(provider: DemoProvider) -> None:
    path = "/v1/models/m%3Atokens%3D2:generateContent"

    status, _, content = await call(provider, path, {"contents": CONTENTS})

    assert (status, read_part(json.loads(content))) == (200, {"text": "This answer"})


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"contents": []}, "* GenerateContentRequest.contents: contents is not specified"),
        ({"contents": [{"role": "tool"}]}, "Please use a valid role"),
        ({"generationConfig": {"maxOutputTokens": -1}}, "Invalid value for 'maxOutputTokens'"),
        ({"model": "m:speed=9"}, "The demo provider does not know this model name"),
    ],
)
async def test_what_google_refuses_is_refused(
    provider: DemoProvider, fields: dict[str, Any], says: str
) -> None:
    status, answer = await ask(provider, **{"model": "m", **fields})

    assert status == 400
    assert (answer["error"]["code"], answer["error"]["status"]) == (400, "INVALID_ARGUMENT")
    assert answer["error"]["message"].startswith(says)
    record = await ended(provider)
    assert (record["status"], record["input_tokens"], record["output_tokens"]) == (400, 0, 0)


async def test_what_is_not_there_is_not_found(provider: DemoProvider) -> None:
    status, _, content = await call(provider, "/v1beta/models/m:predict", {"contents": CONTENTS})

    assert (status, json.loads(content)["error"]["status"]) == (404, "NOT_FOUND")


async def test_the_key_is_read_from_its_header_or_the_query() -> None:
    demo = DemoProvider(api_key="right")
    await demo.start()
    path, body = "/v1beta/models/m:generateContent", {"contents": CONTENTS}

    answers = [
        await call(demo, path, body, {"x-goog-api-key": "right"}),
        await call(demo, f"{path}?key=right", body),
        await call(demo, path, body, {"x-goog-api-key": "wrong"}),
        await call(demo, path, body),
    ]
    await demo.stop()

    assert [status for status, _, _ in answers] == [200, 200, 400, 403]
    wrong, missing = (json.loads(content)["error"] for _, _, content in answers[2:])
    assert wrong["status"] == "INVALID_ARGUMENT"
    assert wrong["details"][0]["reason"] == "API_KEY_INVALID"
    assert missing["status"] == "PERMISSION_DENIED"
    assert "x-goog-api-key" not in demo.calls[0]["request_headers"]
    assert demo.calls[0]["authorization_sha256"] == hashlib.sha256(b"right").hexdigest()
    assert demo.calls[1]["path"] == path


@pytest.mark.parametrize(
    ("fault", "status", "word"),
    [
        ("status(400)", 400, "INVALID_ARGUMENT"),
        ("status(401)", 401, "UNAUTHENTICATED"),
        ("status(403)", 403, "PERMISSION_DENIED"),
        ("status(404)", 404, "NOT_FOUND"),
        ("status(429)", 429, "RESOURCE_EXHAUSTED"),
        ("status(500)", 500, "INTERNAL"),
        ("status(503)", 503, "UNAVAILABLE"),
        ("status(504)", 504, "DEADLINE_EXCEEDED"),
    ],
)
async def test_a_status_comes_in_googles_shape(
    provider: DemoProvider, fault: str, status: int, word: str
) -> None:
    got, answer = await ask(provider, f"m:fault={fault}")

    assert got == status
    assert (answer["error"]["code"], answer["error"]["status"]) == (status, word)
    assert (await ended(provider))["output_tokens"] == 0


async def test_when_to_come_again_stands_in_the_details(provider: DemoProvider) -> None:
    _, limited = await ask(provider, "m:fault=status(429),retry_after=30")
    _, used_up = await ask(provider, "m:fault=status(429,insufficient_quota)")

    assert [detail["@type"].rpartition(".")[2] for detail in limited["error"]["details"]] == [
        "QuotaFailure",
        "RetryInfo",
    ]
    assert limited["error"]["details"][1]["retryDelay"] == "30s"
    (detail,) = used_up["error"]["details"]
    assert detail["violations"][0]["quotaId"] == "GenerateRequestsPerDayPerProjectPerModel"


@pytest.mark.parametrize("form", [stream, stream_array])
@pytest.mark.parametrize(("fault", "before"), [("err_event_first", 0), ("err_event_mid(2)", 2)])
async def test_an_error_can_stand_in_a_stream(
    provider: DemoProvider, form: Any, fault: str, before: int
) -> None:
    pieces = await form(provider, f"m:fault={fault}")

    assert len(pieces) == before + 1
    assert pieces[-1]["error"]["status"] == "UNAVAILABLE"


async def test_an_error_amid_events_is_no_event(provider: DemoProvider) -> None:
    path = "/v1beta/models/m:fault=err_event_mid(1):streamGenerateContent?alt=sse"

    _, _, content = await call(provider, path, {"contents": CONTENTS})

    assert content.count(b"data: ") == 1
    assert content.endswith(b'    "status": "UNAVAILABLE"\n  }\n}\n')


@pytest.mark.parametrize(
    ("fault", "finishes"),
    [
        ("no_done", [None, None]),
        ("no_finish(1)", [None]),
        ("usage_twice", [None, None, None, "STOP"]),
        ("usage_after_finish", [None, None, "STOP", None]),
        ("late_after_done(1)", [None, None, "STOP", None]),
        ("end_twice", [None, None, "STOP", "STOP"]),
        ("unknown_event(1)", [None, None, None, "STOP"]),
    ],
)
async def test_the_end_of_a_stream_can_be_odd(
    provider: DemoProvider, fault: str, finishes: list[str | None]
) -> None:
    pieces = await stream(provider, f"m:tokens=2,fault={fault}")

    found = [piece.get("candidates", [{}])[0].get("finishReason") for piece in pieces]
    assert found == finishes


async def test_usage_can_come_twice_or_late(provider: DemoProvider) -> None:
    twice = await stream(provider, "m:tokens=10,fault=usage_twice")
    late = await stream(provider, "m:tokens=10,fault=usage_after_finish")

    counts = [piece["usageMetadata"]["candidatesTokenCount"] for piece in twice[-2:]]
    assert counts == [5, 10]
    assert ["usageMetadata" in piece for piece in late] == [False] * 11 + [True]


async def test_usage_can_be_missing_or_absurd(provider: DemoProvider) -> None:
    none = await stream(provider, "m:fault=no_usage")
    wrong = await stream(provider, "m:tokens=1,fault=bad_usage(-600)")
    _, one = await ask(provider, "m:fault=bad_usage(-1,candidatesTokenCount)")
    _, more = await ask(provider, "m:tokens=3,fault=inflated_usage(100)")

    assert [piece for piece in none if "usageMetadata" in piece] == []
    assert [piece["usageMetadata"]["promptTokenCount"] for piece in wrong] == [-600, -600]
    assert one["usageMetadata"]["candidatesTokenCount"] == -1
    assert one["usageMetadata"]["promptTokenCount"] == 4
    assert more["usageMetadata"]["candidatesTokenCount"] == 300
    assert more["usageMetadata"]["totalTokenCount"] == 304


async def test_an_array_can_lack_its_end(provider: DemoProvider) -> None:
    async with connect(provider) as peer:
        peer.writer.write(SPOKEN["streamGenerateContent array"].render("m:fault=no_done"))
        await peer.read_until(b"\r\n\r\n")
        payload, was_clean = dechunk(await peer.read_all())

    assert was_clean
    assert payload.endswith(b"}")
    assert json.loads(payload + b"]")[-1]["candidates"][0]["finishReason"] == "STOP"


@pytest.mark.parametrize(
    ("fault", "tail"),
    [("cut_in_char", b'"text":" caf\xc3'), ("cut_in_usage", b'{"promptTokenCount":4,')],
)
async def test_streams_are_cut_inside(provider: DemoProvider, fault: str, tail: bytes) -> None:
    async with connect(provider) as peer:
        peer.writer.write(SPOKEN["streamGenerateContent"].render(f"m:fault={fault}"))
        await peer.read_until(b"\r\n\r\n")
        payload, was_clean = dechunk(await peer.read_all())

    assert not was_clean
    assert payload.endswith(tail)


@pytest.mark.parametrize("form", [stream, stream_array])
async def test_huge_and_wrong_pieces_are_part_of_a_whole_stream(
    provider: DemoProvider, form: Any
) -> None:
    pieces = await form(provider, "m:tokens=3,fault=huge_line(200000)")
    wrong = await form(provider, "m:tokens=3,fault=wrong_shape")
    unknown = await form(provider, "m:tokens=3,fault=unknown_event(1)")

    assert unknown[1] == {"type": "demo.unknown", "hello": "world"}
    assert len(unknown) == 5
    assert len(read_part(pieces[0])["text"]) > 199_000
    assert pieces[-1]["candidates"][0]["finishReason"] == "STOP"
    assert len(pieces) == 2
    assert wrong[:4] == [{"hello": "world"}, [], 42, {"candidates": {"0": None}}]
