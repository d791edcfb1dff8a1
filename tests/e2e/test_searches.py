"""Searches that a provider runs by itself: held for, counted and charged, in every dialect."""

from __future__ import annotations

from typing import Any, Final

import httpx
import orjson
import pytest

from apps.ai_models.catalogue import set_price
from apps.audit.models import APIRequest
from tests.e2e.raw_upstream import RawUpstream, respond
from tests.support.bench import INPUT_NANOS, OUTPUT_NANOS, Bench, Stage

# What a search may cost is judged before any database is asked.
pytestmark = pytest.mark.sqlite

ONE: Final = 1_000_000  # tokens
SEARCH_NANOS: Final = 14_000_000
HI: Final = [{"role": "user", "content": "News?"}]
CONTENTS: Final = {"contents": [{"parts": [{"text": "News?"}]}]}
USED: Final = 10 * INPUT_NANOS + 5 * OUTPUT_NANOS


def grounded(model: str, *queries: str) -> dict[str, Any]:
    return {
        "candidates": [
            {
                "content": {"parts": [{"text": "It rained."}], "role": "model"},
                "finishReason": "STOP",
                "index": 0,
                "groundingMetadata": {"webSearchQueries": list(queries)},
            }
        ],
        "usageMetadata": {
            "promptTokenCount": 10,
            "candidatesTokenCount": 5,
            "totalTokenCount": 15,
        },
        "modelVersion": model,
        "responseId": "resp-1",
    }


def searching_stage(bench: Bench, upstream: RawUpstream, dialect: str, name: str) -> Stage:
    """Return a stage whose model has a price for searches."""
    provider = bench.make_provider(upstream.base_url, dialect=dialect)
    stage = bench.stage(name, provider=provider)
    prices = {"input": INPUT_NANOS * ONE, "output": OUTPUT_NANOS * ONE, "web_search": SEARCH_NANOS}
    set_price(model=stage.model, prices=prices)
    bench.make_caller()
    return stage


def ask(stage: Stage, path: str, body: dict[str, Any]) -> httpx.Response:
    url = f"{stage.bench.gateway.url}{path.format(model=stage.model.name)}"
    headers = {"authorization": f"Bearer {stage.caller.raw}"}
    return httpx.post(url, headers=headers, json=body, timeout=20)


@pytest.mark.parametrize(
    ("model", "queries", "searches"),
    [
        ("gemini-3-pro-preview", ("rain", "", "rain today", "rain"), 2),
        ("gemini-2.5-flash", ("rain", "rain today"), 1),
        ("gemini-3-flash", (), 0),
    ],
)
@pytest.mark.parametrize("is_stream", [False, True])
def test_googles_searches_are_charged_as_google_bills_them(
    bench: Bench, is_stream: bool, model: str, queries: tuple[str, ...], searches: int
) -> None:
    told = orjson.dumps(grounded(model, *queries))
    answer = (
        respond(b"data: %b\r\n\r\n" % told, kind="text/event-stream")
        if is_stream
        else respond(told)
    )
    with RawUpstream(lambda _: [answer]) as upstream:
        stage = searching_stage(bench, upstream, "gemini", model)
        method = "streamGenerateContent?alt=sse" if is_stream else "generateContent"
        asked = {**CONTENTS, "tools": [{"googleSearch": {}}]}

        seen = ask(stage, f"/v1beta/models/{{model}}:{method}", asked)

    assert seen.status_code == 200
    assert b"groundingMetadata" in seen.content
    (row,) = stage.settled().rows
    assert row.charge_nanos == USED + searches * SEARCH_NANOS
    assert row.hold_nanos >= 10 * SEARCH_NANOS
    assert row.upstream_request_id == "resp-1"


def test_a_model_without_a_price_for_searches_makes_none(bench: Bench) -> None:
    with RawUpstream(lambda _: [respond(b"{}")]) as upstream:
        provider = bench.make_provider(upstream.base_url, dialect="gemini")
        stage = bench.stage("gemini-2.5-flash", provider=provider)
        asked = {**CONTENTS, "tools": [{"google_search": {}}]}

        seen = ask(stage, "/v1beta/models/{model}:generateContent", asked)

        assert upstream.heard == []
    assert (seen.status_code, "tools[0].google_search" in seen.text) == (400, True)
    assert not APIRequest.objects.filter(api_key_id=stage.caller.key.pk).exists()


def test_a_bound_of_the_client_is_what_is_held_for(bench: Bench) -> None:
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [{"type": "text", "text": "It rained."}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 10,
            "output_tokens": 5,
            "server_tool_use": {"web_search_requests": 3},
        },
    }
    with RawUpstream(lambda _: [respond(orjson.dumps(message))]) as upstream:
        stage = searching_stage(bench, upstream, "anthropic", "claude-sonnet-5")
        tool = {"type": "web_search_20250305", "name": "web_search"}
        for more in ({"max_uses": 3}, {"max_uses": 30}, {}):
            body = {
                "model": stage.model.name,
                "max_tokens": 100,
                "messages": HI,
                "tools": [{**tool, **more}],
            }
            assert ask(stage, "/v1/messages", body).status_code == 200

    rows = stage.settled(3).rows
    assert [row.charge_nanos for row in rows] == [USED + 3 * SEARCH_NANOS] * 3
    few, many, unbounded = (row.hold_nanos for row in rows)
    assert (many - few, unbounded - few) == (27 * SEARCH_NANOS, 7 * SEARCH_NANOS)


def test_a_chat_searches_by_the_tool_of_its_provider(bench: Bench) -> None:
    search = {
        "type": "server_tool_use",
        "id": "srvtoolu_1",
        "name": "web_search",
        "input": {"query": "rain"},
    }
    result = {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []}
    message = {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": "claude",
        "content": [search, result, {"type": "text", "text": "It rained."}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {
            "input_tokens": 10,
            "output_tokens": 5,
            "server_tool_use": {"web_search_requests": 1},
        },
    }
    with RawUpstream(lambda _: [respond(orjson.dumps(message))]) as upstream:
        stage = searching_stage(bench, upstream, "anthropic", "claude-sonnet-5")
        body = {"model": stage.model.name, "messages": HI, "web_search_options": {}}

        chat = ask(stage, "/v1/chat/completions", body).json()

        (asked,) = upstream.heard
    assert asked.json["tools"] == [
        {"type": "web_search_20250305", "name": "web_search", "max_uses": 10}
    ]
    assert chat["choices"][0]["message"]["content"] == "It rained."
    assert chat["usage"]["server_tool_use"] == {"web_search_requests": 1}
    assert stage.settled().charges == (USED + SEARCH_NANOS,)


@pytest.mark.parametrize("queries", [(), ("rain",)])
def test_a_chat_that_gemini_answers_pays_for_the_searches_that_were_made(
    bench: Bench, queries: tuple[str, ...]
) -> None:
    told = orjson.dumps(grounded("gemini-2.5-flash", *queries))
    with RawUpstream(lambda _: [respond(told)]) as upstream:
        stage = searching_stage(bench, upstream, "gemini", "gemini-2.5-flash")
        body = {"model": stage.model.name, "messages": HI, "web_search_options": {}}

        assert ask(stage, "/v1/chat/completions", body).status_code == 200

    assert stage.settled().charges == (USED + len(queries) * SEARCH_NANOS,)


def test_a_model_that_searches_without_a_bound_is_not_asked_by_another_dialect(
    bench: Bench,
) -> None:
    with RawUpstream(lambda _: [respond(b"{}")]) as upstream:
        stage = searching_stage(bench, upstream, "gemini", "gemini-3-pro-preview")
        body = {"model": stage.model.name, "messages": HI, "web_search_options": {}}

        seen = ask(stage, "/v1/chat/completions", body)

        assert upstream.heard == []
    assert (seen.status_code, seen.json()["error"]["param"]) == (400, "web_search_options")
    assert not APIRequest.objects.filter(api_key_id=stage.caller.key.pk).exists()
