"""Requests of clients who would pay less than what is billed, or have the gateway do too much."""

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import pytest

from apps.billing.pricing import Price
from apps.core.errors import GatewayError
from apps.proxy.admission import Plan, plan_call
from apps.proxy.dialects.conversion import DIALECTS
from apps.proxy.dialects.neutral import Target, Text, Thinking
from apps.proxy.dialects.parsed_request import DialectName, Endpoint, ParsedRequest
from apps.proxy.dialects.surfaces import headers_for, input_tokens_bound, parse_request
from apps.proxy.json_body import serialise
from apps.proxy.snapshot import PriceHistory
from apps.proxy.tests.values import (
    EARLIER,
    NOW,
    PROVIDER,
    ROUTE,
    make_caller,
    make_snapshot,
)
from tests.support.cases import for_all

ENDPOINTS: Final[dict[DialectName, Endpoint]] = {
    "anthropic": "messages",
    "gemini": "generateContent",
    "openai": "chat/completions",
    "openai-responses": "responses",
}
HI: Final = {"role": "user", "content": "Hi"}
HI_PARTS: Final = {"role": "user", "parts": [{"text": "Hi"}]}
TARGET: Final = Target(
    "m", reasoning="effort", output_cap=100, extensions=frozenset({"reasoning_content"})
)


def anthropic(**members: Any) -> dict[str, Any]:
    return {"model": "gpt", "max_tokens": 100, "messages": [HI], **members}


def gemini(**members: Any) -> dict[str, Any]:
    return {"model": "gpt", "contents": [HI_PARTS], **members}


def responses(**members: Any) -> dict[str, Any]:
    return {"model": "gpt", "input": [HI], "max_output_tokens": 100, **members}


def parse(dialect: DialectName, body: dict[str, Any]) -> ParsedRequest:
    return parse_request(ENDPOINTS[dialect], dialect, body)


def plan(
    request: ParsedRequest,
    *,
    provider: str,
    context_length: int = 1_000_000,
    image_out: int | None = None,
) -> Plan:
    """Return the plan of a call of a model that a provider of a dialect has."""
    route = replace(ROUTE, provider=replace(PROVIDER, dialect=provider), target=TARGET)
    prices = PriceHistory(
        (EARLIER,), (Price(id=1, input=1_000_000, output=1_000_000, image_out=image_out),)
    )
    model = {"routes": (route,), "prices": prices, "context_length": context_length}
    return plan_call(make_snapshot(b"d" * 32, model=model), make_caller(), request, NOW)


# ---- what is billed without an answer, or tells about others


@pytest.mark.parametrize("dialect", list(ENDPOINTS))
@pytest.mark.parametrize(
    ("parameter", "value"),
    [
        ("generate", False),
        ("Generate", 0),
        ("prompt_cache_options.prewarm", True),
        ("promptCacheOptions.preWarm", 1),
        ("prompt_cache_options.comparison_response_id", "resp_1"),
    ],
)
def test_nobody_has_a_prompt_read_for_nothing_or_compared_with_those_of_others(
    dialect: DialectName, parameter: str, value: Any
) -> None:
    make = {"anthropic": anthropic, "gemini": gemini, "openai-responses": responses}.get(dialect)
    name, _, member = parameter.partition(".")
    asked = {name: {"mode": "explicit", member: value} if member else value}
    plain = {"model": "gpt", "messages": [HI]} if make is None else make()

    with pytest.raises(GatewayError) as refusal:
        parse(dialect, {**plain, **asked})

    assert (refusal.value.row, refusal.value.param) == ("E14", parameter)


@pytest.mark.parametrize(
    "asked",
    [
        {"generate": True},
        {"generate": None},
        {"prompt_cache_options": {"mode": "explicit", "ttl": "30m", "prewarm": False}},
        {"prompt_cache_options": None},
    ],
)
def test_what_asks_for_no_such_thing_passes(asked: dict[str, Any]) -> None:
    assert parse("openai-responses", responses(**asked)).body == responses(**asked)


def test_nobody_is_told_how_his_prompt_differs_from_another() -> None:
    asked = anthropic(diagnostics={"previous_message_id": "msg_1"})

    assert parse("anthropic", asked).body == anthropic()


# ---- other letters


@for_all(
    ("dialect", "body"),
    [
        ("anthropic", anthropic(System=[{"type": "document"}])),
        ("anthropic", anthropic(contextManagement={"edits": [{"type": "compact_20260112"}]})),
        ("anthropic", anthropic(messages=[HI | {"Content": [{"type": "document"}]}])),
        (
            "anthropic",
            anthropic(messages=[HI | {"content": [{"type": "text", "text": "a", "Type": "file"}]}]),
        ),
        (
            "anthropic",
            anthropic(
                messages=[
                    HI
                    | {
                        "content": [
                            {
                                "type": "document",
                                "source": {"type": "text", "data": "a", "TYPE": "url"},
                            }
                        ]
                    }
                ]
            ),
        ),
        ("gemini", gemini(SystemInstruction={"parts": [{"fileData": {"fileUri": "gs://a"}}]})),
        ("gemini", gemini(contents=[HI_PARTS | {"Parts": [{"fileData": {}}]}])),
        ("gemini", gemini(contents=[{"parts": [{"text": "a", "FileData": {"fileUri": "a"}}]}])),
        (
            "gemini",
            gemini(
                contents=[
                    {
                        "parts": [
                            {
                                "inlineData": {
                                    "mimeType": "image/png",
                                    "data": "aaaa",
                                    "MimeType": "video/mp4",
                                }
                            }
                        ]
                    }
                ]
            ),
        ),
        ("gemini", gemini(generationConfig={"routingConfig": {"manualMode": {"modelName": "m"}}})),
        ("gemini", gemini(generationConfig={"num_predict": 100_000})),
        ("gemini", gemini(generationConfig={"modelSelectionConfig": {}})),
        ("gemini", gemini(modelArmorConfig={"promptTemplateName": "t"})),
        ("openai-responses", responses(Background=True)),
        ("openai-responses", responses(previousResponseId="resp_1")),
        ("openai-responses", responses(input=[HI | {"Type": "item_reference"}])),
        (
            "openai-responses",
            responses(
                input=[
                    HI | {"content": [{"type": "input_text", "text": "a", "TYPE": "input_file"}]}
                ]
            ),
        ),
    ],
)
def test_what_is_metered_is_refused_in_other_letters(
    dialect: DialectName, body: dict[str, Any]
) -> None:
    with pytest.raises(GatewayError) as error:
        parse(dialect, body)

    assert error.value.row == "E14"


@pytest.mark.parametrize("name", ["fileUri", "file_uri"])
@pytest.mark.parametrize("url", ["gs://bucket/secret.pdf", " GS://bucket/secret.pdf"])
def test_the_operators_own_storage_is_read_for_nobody(name: str, url: str) -> None:
    text, file = {"text": "Hi"}, {"fileData": {name: url, "mimeType": "application/pdf"}}
    answer = {"function_response": {"name": "f", "response": {}, "parts": [text, file]}}
    places: dict[str, dict[str, Any]] = {
        f"contents[1].parts[1].fileData.{name}": {"contents": [HI_PARTS, {"parts": [text, file]}]},
        f"contents[0].parts[0].function_response.parts[1].fileData.{name}": {
            "contents": [{"parts": [answer]}]
        },
        f"systemInstruction.parts[0].fileData.{name}": {"systemInstruction": {"parts": [file]}},
    }

    for place, asked in places.items():
        with pytest.raises(GatewayError) as error:
            parse("gemini", gemini(**asked))

        assert (error.value.row, error.value.param) == ("E14", place)


def test_of_two_names_for_the_kind_of_a_blob_neither_is_believed() -> None:
    blob = {"mimeType": "image/png", "mime_type": "video/mp4", "data": "aaaa"}
    request = parse("gemini", gemini(contents=[{"parts": [{"inlineData": blob}]}]))

    assert input_tokens_bound(request, serialise(request.body), 500_000, 1_000) == 500_000
    assert request.has_images


@pytest.mark.parametrize("kind", [[], {}, 1, True, None])
def test_a_part_of_no_kind_is_bounded_by_the_context(kind: Any) -> None:
    part = {"type": kind, "text": "a"}
    request = parse("openai-responses", responses(input=[HI | {"content": [part]}]))

    assert input_tokens_bound(request, serialise(request.body), 500_000, 1_000) == 500_000


# ---- what is held


def test_what_a_conversion_adds_is_held_too() -> None:
    tools = [{"type": "custom", "name": f"t{number}"} for number in range(1_000)]
    request = parse("openai-responses", responses(tools=tools))

    planned = plan(request, provider="anthropic")

    (sent,) = planned.converted.values()
    assert len(serialise(sent)) > 5 * len(serialise(request.body))
    assert planned.input_bound >= len(serialise(sent))
    assert planned.wanted_nanos >= len(serialise(sent)) + 100
    assert plan(request, provider="anthropic", context_length=50_000).input_bound == 50_000


def test_a_model_that_may_draw_is_held_for_what_it_draws() -> None:
    request = parse("gemini", gemini(generationConfig={"maxOutputTokens": 100}))

    planned = plan(request, provider="gemini", image_out=30_000_000)

    assert not planned.is_text_only
    assert planned.wanted_nanos == planned.input_bound + 100 * 30


@pytest.mark.parametrize(
    ("betas", "context_length", "sent"),
    [
        ("context-1m-2025-08-07", 200_000, ()),
        (
            "files-api-2025-04-14, context-1m-2025-08-07",
            200_000,
            (("anthropic-beta", "files-api-2025-04-14"),),
        ),
        (
            "context-1m-2025-08-07",
            1_000_000,
            (("anthropic-beta", "context-1m-2025-08-07"),),
        ),
        (
            "context-management-2025-06-27",
            200_000,
            (("anthropic-beta", "context-management-2025-06-27"),),
        ),
    ],
)
def test_no_header_makes_the_context_longer_than_what_is_held_for(
    betas: str, context_length: int, sent: tuple[tuple[str, str], ...]
) -> None:
    headers = headers_for("anthropic", {b"anthropic-beta": betas.encode()})
    request = parse("anthropic", anthropic())._replace(headers=headers)

    planned = plan(request, provider="anthropic", context_length=context_length)

    assert planned.request.headers == sent


# ---- work


def _thoughts(count: int) -> dict[str, Any]:
    thought = {"text": "a" * 100, "thought": True}
    return gemini(contents=[HI_PARTS, {"role": "model", "parts": [thought] * count}, HI_PARTS])


def _calls(count: int) -> dict[str, Any]:
    # Answered from the last to the first.
    names = [f"f{number}" for number in range(count)]
    return gemini(
        contents=[
            HI_PARTS,
            {"role": "model", "parts": [{"functionCall": {"name": name}} for name in names]},
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"name": name, "response": {}}} for name in names[::-1]
                ],
            },
        ]
    )


def _signed(count: int) -> dict[str, Any]:
    said: list[dict[str, Any]] = [{"type": "thinking", "thinking": "a", "signature": "abcd"}]
    said += [{"type": "text", "text": "a"}] * count
    said.append({"type": "tool_use", "id": "1", "name": "f", "input": {}})
    result = {"type": "tool_result", "tool_use_id": "1", "content": "a"}
    turns = [HI, {"role": "assistant", "content": said}, {"role": "user", "content": [result]}]
    return anthropic(messages=turns)


@pytest.mark.parametrize(
    ("dialect", "make", "provider"),
    [
        ("gemini", _thoughts, "openai"),
        ("gemini", _calls, "anthropic"),
        ("anthropic", _signed, "gemini"),
    ],
)
def test_the_work_for_a_request_grows_with_its_size_and_not_by_its_square(
    dialect: DialectName, make: Callable[[int], dict[str, Any]], provider: str
) -> None:
    """Seconds of the processor, so that what else runs counts little."""
    body = make(20_000)
    begun = time.process_time()

    asked = DIALECTS[dialect].read_request(parse(dialect, body).body)
    DIALECTS[provider].write_request(asked, TARGET)

    # Some tenths of a second; by the square it is more than a minute.
    assert time.process_time() - begun < 8


def test_a_namespace_is_not_told_once_for_each_of_its_tools() -> None:
    tools = [{"type": "function", "name": f"f{number}"} for number in range(1_000)]
    told = {"type": "namespace", "name": "ns", "description": "d" * 100_000, "tools": tools}
    body = responses(tools=[told])

    sent = DIALECTS["anthropic"].write_request(
        DIALECTS["openai-responses"].read_request(body), TARGET
    )

    assert len(serialise(sent)) < 2 * len(serialise(body))
    assert sent["tools"][0]["description"] == "d" * 100_000
    assert "description" not in sent["tools"][1]


def test_the_name_of_a_namespace_is_bounded_as_it_is_repeated() -> None:
    tools = [{"type": "function", "name": "f"}]
    told = {"type": "namespace", "name": "n" * 1_000, "tools": tools}

    with pytest.raises(GatewayError) as error:
        DIALECTS["openai-responses"].read_request(responses(tools=[told]))

    assert (error.value.row, error.value.param) == ("E13", "tools[0].tools[0].name")


def test_pieces_of_a_thought_are_one_and_end_with_its_signature() -> None:
    parts = [
        {"text": "a", "thought": True},
        {"text": "b", "thought": True, "thoughtSignature": "c2ln"},
        {"text": "c", "thought": True},
        {"text": "d"},
    ]
    body = gemini(contents=[HI_PARTS, {"role": "model", "parts": parts}, HI_PARTS])

    turn = DIALECTS["gemini"].read_request(body).turns[1]

    assert turn.parts == (
        Thinking("ab", "google.c2ln", at="contents[1].parts[0]"),
        Thinking("c", at="contents[1].parts[2]"),
        Text("d", at="contents[1].parts[3]"),
    )
