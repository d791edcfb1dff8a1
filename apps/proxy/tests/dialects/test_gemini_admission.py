"""What a client of Google's dialect asks for, as far as it can cost anything, and by which path.

Over 400 lines because most of it is tables of cases.
"""

from typing import Any, Final

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.errors import GatewayError
from apps.proxy.dialects.answer_conversion import AnswerConverter
from apps.proxy.dialects.conversion import Reply
from apps.proxy.dialects.gemini_paths import (
    GeminiPath,
    find_gemini_path,
    model_document,
    read_form,
    upstream_path,
)
from apps.proxy.dialects.parsed_request import ParsedRequest
from apps.proxy.dialects.providers import PROVIDERS, Sending
from apps.proxy.dialects.surfaces import input_tokens_bound, parse_request
from apps.proxy.dialects.targets import find_target
from apps.proxy.tests.dialects.gemini_kit import LAST, MORE, TEXT
from apps.proxy.tests.dialects.junk import REQUEST_JUNK
from tests.support.cases import for_all

HI: Final = {"role": "user", "parts": [{"text": "Hi"}]}
CONTEXT: Final = 100_000
IMAGE_TOKENS: Final = 1_000
WRITES: Final = ["generateContent", "streamGenerateContent", "countTokens"]
EMBEDS: Final = ["embedContent", "batchEmbedContents", "countTokens"]


def asked(**members: Any) -> dict[str, Any]:
    return {"model": "m", "contents": [HI], **members}


def parse(body: dict[str, Any]) -> ParsedRequest:
    return parse_request("generateContent", "gemini", body)


def refusal_of(body: dict[str, Any]) -> tuple[str, str | None]:
    with pytest.raises(GatewayError) as refusal:
        parse(body)
    return refusal.value.row, refusal.value.param


def bound(body: dict[str, Any]) -> int:
    raw = orjson.dumps(body)
    return input_tokens_bound(parse(body), raw, CONTEXT, IMAGE_TOKENS) - len(raw)


def media(kind: str, data: str = "AAAA", **more: Any) -> dict[str, Any]:
    return asked(contents=[{"parts": [{"inlineData": {"mimeType": kind, "data": data}, **more}]}])


def test_what_decides_the_cost_is_read() -> None:
    config = {"maxOutputTokens": 500, "candidateCount": 2, "temperature": 5}
    request = parse(asked(generationConfig=config, stream=True))

    assert (request.endpoint, request.dialect, request.model) == ("generateContent", "gemini", "m")
    assert (request.is_stream, request.choices, request.streamed_choices) == (True, 2, 2)
    assert (request.output_tokens_asked, request.output_parameter) == (500, "maxOutputTokens")
    assert (request.has_images, request.has_audio, request.audio_parameter) == (False, False, "")
    assert request.body["generationConfig"] == config


def test_what_decides_the_cost_is_read_in_snake_case_and_every_form_of_a_number() -> None:
    request = parse(asked(generation_config={"max_output_tokens": "500", "candidateCount": 2.0}))

    assert (request.output_tokens_asked, request.choices) == (500, 2)


def test_what_only_the_model_understands_passes_untouched() -> None:
    body = asked(
        aParameterOfTomorrow={"x": 1},
        safetySettings=[{"category": "X", "threshold": "Y"}],
        generationConfig={"aParameterOfTomorrow": [1], "thinkingConfig": {"thinkingBudget": -1}},
        contents=[{"role": "user", "parts": [{"text": "Hi", "aPartOfTomorrow": True}]}],
        tools=[{"functionDeclarations": [{"name": "a", "parameters": {"type": "OBJECT"}}]}],
    )

    assert parse(body).body == body


@for_all(
    ("changed", "row", "param"),
    [
        ({"contents": None}, "E13", "contents"),
        ({"contents": []}, "E13", "contents"),
        ({"contents": "Hi"}, "E13", "contents"),
        ({"contents": ["Hi"]}, "E13", "contents[0]"),
        ({"contents": [{"parts": "Hi"}]}, "E13", "contents[0].parts"),
        ({"contents": [{"parts": ["Hi"]}]}, "E13", "contents[0].parts[0]"),
        ({"systemInstruction": "Hi"}, "E13", "systemInstruction"),
        ({"system_instruction": {"parts": [1]}}, "E13", "system_instruction.parts[0]"),
        ({"model": None}, "E13", "model"),
        ({"generationConfig": {"maxOutputTokens": 0}}, "E13", "generationConfig.maxOutputTokens"),
        ({"generationConfig": {"maxOutputTokens": True}}, "E13",
         "generationConfig.maxOutputTokens"),
        ({"generationConfig": {"maxOutputTokens": 1.5}}, "E13",
         "generationConfig.maxOutputTokens"),
        ({"generationConfig": {"max_output_tokens": 2**31}}, "E13",
         "generationConfig.max_output_tokens"),
        ({"generationConfig": {"maxOutputTokens": 1, "max_output_tokens": 9}}, "E12",
         "generationConfig.max_output_tokens"),
        ({"generationConfig": {"MaxOutputTokens": 9}}, "E14", "generationConfig.MaxOutputTokens"),
        ({"generationConfig": {"max-output-tokens": 9}}, "E14",
         "generationConfig.max-output-tokens"),
        ({"generationConfig": {"candidateCount": 9}}, "E13", "generationConfig.candidateCount"),
        ({"generationConfig": {}, "generation_config": {"candidateCount": 2}}, "E12",
         "generation_config"),
        ({"contents": [HI], "tools": [], "generationconfig": {}}, "E14", "generationconfig"),
        ({"generationConfig": 1}, "E13", "generationConfig"),
        ({"generationConfig": {"responseModalities": "AUDIO"}}, "E13",
         "generationConfig.responseModalities"),
        ({"generationConfig": {"responseModalities": ["SMELL"]}}, "E13",
         "generationConfig.responseModalities"),
        ({"cachedContent": "cachedContents/a"}, "E14", "cachedContent"),
        ({"cached_content": "cachedContents/a"}, "E14", "cached_content"),
        ({"tools": {}}, "E13", "tools"),
        ({"tools": [1]}, "E13", "tools[0]"),
    ],
)  # fmt: skip
def test_a_request_that_cannot_be_metered_is_refused_by_name(
    changed: dict[str, Any], row: str, param: str
) -> None:
    assert refusal_of(asked(**changed)) == (row, param)


@pytest.mark.parametrize(
    "tool",
    [
        "google_search_retrieval", "GoogleSearch", "codeExecution",
        "code_execution", "urlContext", "url_context", "fileSearch", "googleMaps", "computerUse",
        "retrieval", "mcpServers", "aToolOfTomorrow", "FunctionDeclarations",
    ],
)  # fmt: skip
@pytest.mark.parametrize("told", [{}, None, [{"name": "a"}]])
def test_a_tool_that_google_runs_is_refused(tool: str, told: Any) -> None:
    assert refusal_of(asked(tools=[{tool: told}])) == ("E14", f"tools[0].{tool}")


@pytest.mark.parametrize("name", ["googleSearch", "google_search"])
def test_a_search_is_known_by_its_place(name: str) -> None:
    told = {"timeRangeFilter": {"startTime": "2025-01-01T00:00:00Z"}}
    request = parse(asked(tools=[{"functionDeclarations": []}, {name: told}]))

    assert (request.search_parameter, request.has_web_search) == (f"tools[1].{name}", True)
    # An empty object is enough.
    assert parse(asked(tools=[{name: {}}])).has_web_search
    assert not parse(asked(tools=[{"functionDeclarations": []}])).has_web_search


def test_a_search_for_what_is_billed_otherwise_is_refused() -> None:
    images: dict[str, Any] = {"googleSearch": {"searchTypes": {"imageSearch": {}}}}

    assert refusal_of(asked(tools=[images])) == ("E14", "tools[0].googleSearch.searchTypes")


@pytest.mark.parametrize(
    ("tier", "asks"),
    [
        ("standard", ""),
        ("STANDARD", ""),
        ("unspecified", ""),
        ("flex", "flex"),
        ("PRIORITY", "priority"),
    ],
)
def test_a_tier_is_for_the_price_to_allow(tier: str, asks: str) -> None:
    assert parse(asked(serviceTier=tier)).service_tier == asks
    assert parse(asked(service_tier=tier)).service_tier == asks


def test_a_spoken_answer_is_for_the_price_to_allow() -> None:
    spoken = parse(asked(generation_config={"response_modalities": ["text", "audio"]}))
    written = parse(asked(generationConfig={"responseModalities": ["TEXT", "IMAGE"]}))

    assert spoken.audio_parameter == "generation_config.response_modalities"
    assert written.audio_parameter == ""


@pytest.mark.parametrize(
    ("kind", "has_images", "has_audio"),
    [
        ("image/png", True, False),
        ("audio/wav", False, True),
        ("video/mp4", True, False),
        ("application/pdf", True, False),
        ("text/plain", False, False),
    ],
)
def test_what_is_not_text_is_seen(kind: str, has_images: bool, has_audio: bool) -> None:
    request = parse(media(kind))

    assert (request.has_images, request.has_audio) == (has_images, has_audio)


def test_text_takes_at_most_its_bytes_and_tools_their_prompt() -> None:
    assert bound(asked()) == 64
    assert bound(asked(tools=[{"functionDeclarations": [{"name": "a"}]}])) == 64 + 2048
    assert bound(media("text/plain", "SGk=")) == 64


def test_an_image_takes_what_images_take_and_hides_no_text() -> None:
    assert bound(media("image/png", "A" * 400)) == 64 + IMAGE_TOKENS - 400
    assert bound(media("image/png", 'A"' * 200)) == 64 + IMAGE_TOKENS
    answer = {"name": "a", "response": {}, "parts": [{"inline_data": {
        "mime_type": "image/png", "data": "AAAA"}}]}  # fmt: skip
    within = asked(contents=[{"parts": [{"functionResponse": answer}]}])
    assert bound(within) == 64 + IMAGE_TOKENS - 4


@pytest.mark.parametrize(
    "part",
    [
        {"inlineData": {"mimeType": "video/mp4", "data": "AAAA"}},
        {"inlineData": {"mimeType": "audio/flac", "data": "AAAA"}},
        {"inline_data": {"mime_type": "application/pdf", "data": "AAAA"}},
        {"inlineData": {"data": "AAAA"}},
        {"inlineData": "AAAA"},
        {"fileData": {"fileUri": "https://example.com/a.png", "mimeType": "image/png"}},
        {"file_data": {"file_uri": "https://example.com/a", "data": 1}},
        {"functionResponse": {"parts": [{"fileData": {"fileUri": "https://example.com/x"}}]}},
        {"text": "a", "fileData": {"fileUri": "https://example.com/x"}},
    ],
)
def test_what_has_to_be_looked_into_takes_a_whole_context(part: dict[str, Any]) -> None:
    for body in (asked(contents=[{"parts": [part]}]), asked(systemInstruction={"parts": [part]})):
        raw = orjson.dumps(body)

        found = input_tokens_bound(parse(body), raw, CONTEXT, IMAGE_TOKENS)

        assert found == CONTEXT


def test_no_bound_is_above_the_context() -> None:
    assert bound(media("image/png")) < CONTEXT
    body = asked(contents=[{"parts": [{"text": "a" * 200_000}]}])
    assert input_tokens_bound(parse(body), orjson.dumps(body), CONTEXT, IMAGE_TOKENS) == CONTEXT


@given(changed=st.dictionaries(
    st.sampled_from(("contents", "tools", "generationConfig", "systemInstruction", "serviceTier")),
    REQUEST_JUNK, max_size=3,
))  # fmt: skip
def test_no_request_breaks_the_parser(changed: dict[str, Any]) -> None:
    row, param, body = "", "", asked(**changed)
    try:
        input_tokens_bound(parse(body), orjson.dumps(body), CONTEXT, IMAGE_TOKENS)
    except GatewayError as error:
        row, param = error.row, error.param or ""
    assert row in ("", "E12", "E13", "E14")
    assert bool(row) == bool(param)


# ---- to the provider


@pytest.mark.parametrize(
    ("body", "config"),
    [
        ({}, {"generationConfig": {"maxOutputTokens": 256}}),
        (
            {"generationConfig": {"maxOutputTokens": 900, "topK": 1}},
            {"generationConfig": {"maxOutputTokens": 256, "topK": 1}},
        ),
        (
            {"generation_config": {"max_output_tokens": 900}},
            {"generation_config": {"max_output_tokens": 256}},
        ),
        ({"generation_config": None}, {"generation_config": None,
                                       "generationConfig": {"maxOutputTokens": 256}}),
    ],
)  # fmt: skip
def test_a_lowered_maximum_goes_by_the_clients_own_name(
    body: dict[str, Any], config: dict[str, Any]
) -> None:
    given = asked(**body, stream=True)
    sending = Sending("up", is_stream=True, output_cap=256, cap_parameter="maxOutputTokens")

    sent = orjson.loads(PROVIDERS["gemini"].body(given, sending))

    assert sent == {"contents": [HI], **config}
    assert given == asked(**body, stream=True)


def test_without_a_lowered_maximum_a_body_goes_as_it_is() -> None:
    given = asked(generationConfig={"maxOutputTokens": 900})
    sending = Sending("up", is_stream=False, output_cap=None, cap_parameter="maxOutputTokens")

    sent = orjson.loads(PROVIDERS["gemini"].body(given, sending))

    assert sent == {"contents": [HI], "generationConfig": {"maxOutputTokens": 900}}


@pytest.mark.parametrize(
    ("model", "is_stream", "path"),
    [
        ("gemini-2.5-pro", False, "models/gemini-2.5-pro:generateContent"),
        ("gemini-2.5-pro", True, "models/gemini-2.5-pro:streamGenerateContent?alt=sse"),
        ("tunedModels/a", False, "tunedModels/a:generateContent"),
        ("a?b#c:d e", False, "models/a%3Fb%23c%3Ad%20e:generateContent"),
    ],
)
def test_the_path_tells_the_provider_which_model(model: str, is_stream: bool, path: str) -> None:
    sending = Sending(model, is_stream, None, "maxOutputTokens")

    assert PROVIDERS["gemini"].path("generateContent", sending) == path
    assert upstream_path(model, is_stream=is_stream) == path


@for_all(
    ("path", "found"),
    [
        ("/v1beta/models/gemini-2.5-pro:generateContent", ("gemini-2.5-pro", "generateContent")),
        ("/v1/models/m:streamGenerateContent", ("m", "streamGenerateContent")),
        ("/api/v1beta/models/m:countTokens", ("m", "countTokens")),
        ("/v1beta/models/a/b:generateContent/", ("a/b", "generateContent")),
        ("/v1beta/models/m:embedContent", ("m", "embedContent")),
        ("/v1beta/models/a/b:v1:generateContent", ("a/b:v1", "generateContent")),
        ("/v1beta/models/m:deleteEverything", None),
        ("/v1beta/models/m", None),
        ("/v1beta/models/:generateContent", None),
        ("/v1beta/models/a\0b:generateContent", None),
        ("/v1beta/models/a?b:generateContent", None),
        ("/v1beta/modelsm:generateContent", None),
        ("/v1/chat/completions", None),
        ("/v1beta/models/" + "a" * 257 + ":generateContent", None),
    ],
)
def test_a_clients_path_tells_model_and_method(path: str, found: tuple[str, str] | None) -> None:
    told = find_gemini_path(path)

    assert (None if told is None else tuple(told)) == found


def test_a_stream_is_an_array_unless_events_are_asked_for() -> None:
    assert read_form(b"") == "json"
    assert read_form(b"alt=json&key=x&prettyPrint=false") == "json"
    assert read_form(b"alt=sse") == "sse"
    assert read_form(b"key=x&alt=sse") == "sse"
    assert read_form(b"%24alt=sse") == "sse"


@pytest.mark.parametrize(
    ("query", "row", "param"),
    [
        (b"alt=media", "E13", "alt"),
        (b"%24alt=proto", "E13", "alt"),
        (b"fields=candidates", "E14", "fields"),
        (b"alt=sse&%24fields=usageMetadata", "E14", "$fields"),
        (b"callback=f", "E14", "callback"),
    ],
)
def test_what_would_shape_an_answer_otherwise_is_refused_by_its_name(
    query: bytes, row: str, param: str
) -> None:
    with pytest.raises(GatewayError) as refused:
        read_form(query)

    assert (refused.value.row, refused.value.param) == (row, param)


def test_models_are_told_in_googles_shape() -> None:
    model = model_document("m", context_length=1000, max_output_tokens=100)

    assert (model["name"], model["inputTokenLimit"], model["outputTokenLimit"]) == (
        "models/m",
        1000,
        100,
    )
    assert find_gemini_path(f"/v1beta/{model['name']}:generateContent") == GeminiPath(
        "m", "generateContent"
    )


@pytest.mark.parametrize(
    ("name", "upstream_names", "methods"),
    [
        ("m", (), WRITES),
        ("m", ("gemini-2.5-pro", "gpt-4.1"), WRITES),
        ("gte", ("bge-reranker-v2-m3",), WRITES),
        ("text-embedding-3-small", (), EMBEDS),
        ("m", ("gemini-embedding-001",), EMBEDS),
        ("m", ("BAAI/bge-m3", "nomic-embed-text"), EMBEDS),
        ("m", ("bge-m3", "gpt-4.1"), WRITES),
    ],
)
def test_a_model_is_listed_with_what_it_does(
    name: str, upstream_names: tuple[str, ...], methods: list[str]
) -> None:
    model = model_document(
        name, context_length=1000, max_output_tokens=100, upstream_names=upstream_names
    )

    assert model["supportedGenerationMethods"] == methods


@pytest.mark.parametrize(
    ("name", "reasoning", "extensions"),
    [
        ("gemini-1.5-pro", "none", {"web_search"}),
        ("gemini-2.0-flash", "none", {"web_search"}),
        ("gemini-2.5-flash-lite", "budget", {"web_search"}),
        ("gemini-3-pro-preview", "effort", {"media_results"}),
        ("publishers/google/models/gemini-3.1-flash", "effort", {"media_results"}),
        ("gemini-flash-latest", "effort", set()),
    ],
)
def test_models_think_in_their_own_form(name: str, reasoning: str, extensions: set[str]) -> None:
    target = find_target(
        dialect="gemini",
        host="generativelanguage.googleapis.com",
        upstream_name=name,
        cap_parameter="maxOutputTokens",
    )

    assert target.reasoning == reasoning
    assert set(target.extensions) == extensions


# ---- to a client of another dialect


def test_a_metered_stream_is_converted_to_its_end() -> None:
    request = parse(asked(stream=True))
    meter = PROVIDERS["gemini"].meter(request, True)
    converter = AnswerConverter("gemini", "openai", Reply("req_1", 1))

    told = b"".join(converter.convert(meter.observe(block)) for block in (TEXT, MORE, LAST))
    assert meter.is_whole(request.streamed_choices)
    told += converter.finish(meter.last_frame)

    assert not converter.is_cut
    assert told.count(b'"content":"Hello, "') == 1
    assert told.count(b'"content":"world!"') == 1
    assert told.endswith(b"data: [DONE]\n\n")
    assert b'"prompt_tokens":10,"completion_tokens":5' in told


def test_a_metered_stream_that_was_cut_has_no_end() -> None:
    meter = PROVIDERS["gemini"].meter(parse(asked(stream=True)), True)
    converter = AnswerConverter("gemini", "anthropic", Reply("req_1", 1))

    converter.convert(meter.observe(TEXT))

    assert not meter.is_whole(1)
    converter.finish(meter.last_frame)
    assert converter.is_cut
