"""Every way to be billed for less than what was used: the same charge, or a refusal (P2, I-31).

The provider reads JSON as Go does, without regard to case and the last spelling counts, and it
reports usage only where it was asked to: what a client could turn off there would show.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson
import pytest

from tests.e2e.answers import ask, check_error
from tests.e2e.raw_upstream import Heard, RawUpstream, chunk, completion, respond, usage_chunk
from tests.support.bench import INPUT_NANOS, OUTPUT_NANOS, PRICES, Bench, Stage

# What comes over the wire is judged before any database is asked.
pytestmark = pytest.mark.sqlite

CHAT = "/v1/chat/completions"
CHARGE = 10 * INPUT_NANOS + 16 * OUTPUT_NANOS
DONE = b"data: [DONE]\n\n"


def read_like_go(value: Any) -> Any:
    """Return JSON as a server understands it that ignores case, the last spelling counting."""
    if isinstance(value, dict):
        return {key.casefold(): read_like_go(inner) for key, inner in value.items()}
    return [read_like_go(item) for item in value] if isinstance(value, list) else value


def say(heard: Heard) -> list[bytes]:
    """Answer, and report the usage where it is asked for."""
    body = read_like_go(heard.json)
    if body.get("stream") is not True:
        return [respond(completion("text"))]
    events = [chunk("text"), chunk("", "stop")]
    if (body.get("stream_options") or {}).get("include_usage") is True:
        events.append(usage_chunk())
    return [respond(b"".join(events) + DONE, kind="text/event-stream")]


@dataclass(frozen=True, slots=True)
class Meter:
    """A caller, a model and the provider that reports."""

    stage: Stage
    upstream: RawUpstream

    def count(self) -> tuple[int, int, int]:
        """Return how many calls are on record, how many were charged and how many reached it."""
        statement = self.stage.bench.statement(self.stage.caller)
        return len(statement.rows), len(statement.entries), len(self.upstream.heard)

    def send(self, change: dict[str, Any], **headers: str) -> Any:
        """Make a call."""
        body = orjson.dumps({**self.stage.body(), **change})
        headers = {**self.stage.caller.headers, **headers}
        return ask(self.stage.bench.gateway, "POST", CHAT, headers=headers, body=body)


@pytest.fixture(scope="module")
def meter(module_bench: Bench) -> Iterator[Meter]:
    """Run the provider, and make a model of it."""
    with RawUpstream(say) as upstream:
        provider = module_bench.make_provider(upstream.base_url)
        stage = module_bench.stage("raw", provider=provider, prices=PRICES, image_tokens_max=1_000)
        yield Meter(stage, upstream)


NUMBERS: list[Any] = [-1, 0, True, False, "5", 1.5, 1e300, 2**63, [], {}, [1], ""]
JUNK = [
    (name, value)
    for name in ("n", "best_of", "max_tokens", "max_completion_tokens")
    for value in NUMBERS
] + [("n", 129), ("best_of", 129), ("stream", "true"), ("stream", 1), ("stream", [])]
EVADING: list[dict[str, Any]] = [
    {"service_tier": "priority"},
    {"service_tier": "flex"},
    {"service_tier": {"a": 1}},
    {"Service_Tier": "priority"},
    {"tools": [{"type": "web_search"}]},
    {"tools": [{"type": "web_search_preview"}]},
    {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]},
    {"tools": [{"type": "builtin_function", "function": {"name": "$web_search"}}]},
    {"tools": [{"type": "function", "function": {"name": "f"}, "Type": "web_search"}]},
    {"tools": [{"type": "function", "function": {"name": "f"}, "TYPE": "file_search"}]},
    {"Tools": [{"type": "web_search"}]},
    {"web_search_options": {}},
    {"enable_search": True},
    {"search_parameters": {"mode": "on"}},
    {"plugins": [{"id": "web"}]},
    {"mcp_servers": []},
    {"audio": {"voice": "alloy", "format": "wav"}},
    {"modalities": ["text", "audio"]},
    {"modalities": "text"},
    {"prediction": {"type": "content", "content": [{"type": "file", "file_id": "f"}]}},
    {"models": ["dear"]},
    {"route": "fallback"},
    {"preset": "dear"},
    {"fallbacks": ["dear"]},
    {"max_new_tokens": 100_000},
    {"max_output_tokens": 100_000},
    {"num_return_sequences": 64},
    {"Max_Tokens": 100_000},
    {"maxTokens": 100_000},
    {"maxOutputTokens": 100_000},
    {"generationConfig": {"maxOutputTokens": 100_000}},
    {"options": {"num_predict": 100_000}},
    {"max_gen_len": 100_000},
    {"serviceTier": "priority"},
    {"webSearchOptions": {}},
    {"compound_custom": {"tools": {"enabled_tools": ["web_search"]}}},
    {"connectors": [{"id": "web-search"}]},
    {"data_sources": [{"type": "azure_search"}]},
    {"speed": "fast"},
    {"vl_high_resolution_images": True},
    {"tools": [{"type": "function", "function": {"name": "f"}, "google_search": {}}]},
    {"streamOptions": {"includeUsage": False}},
    {"N": 5},
    {"Stream": True},
    {"Stream_Options": {"include_usage": False}},
    {"messages": [{"role": "user", "content": "x", "Content": "y"}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "x", "Type": "file"}]}]},
]
HARMLESS: list[dict[str, Any]] = [
    {},
    {"stream_options": {"includeUsage": False}},
    {"stream_options": {"include_usage": False}},
    {"stream_options": {"include_usage": True, "Include_Usage": False}},
    {"stream_options": {"Include_Usage": False, "INCLUDE_USAGE": False}},
    {"stream_options": {"include_u\u017fage": False}},
    {"stream_options": {"include_usage": "false"}},
    {"stream_options": {"continuous_usage_stats": True}},
    {"stream_options": None},
    {"stream_options": []},
    {"stream_options": "none"},
    {"service_tier": "auto"},
    {"service_tier": "default"},
    {"usage": {"prompt_tokens": 0, "completion_tokens": 0}},
    {"usage": {"include": False}},
    {"n": 1, "best_of": 1},
    {"n": None, "max_tokens": None, "best_of": None},
    {"max_tokens": 1, "max_completion_tokens": 5},
    {"logprobs": True, "top_logprobs": 20},
    {"prompt_cache_key": "a", "prompt_cache_retention": "24h"},
    {"cached_tokens": 10_000, "prompt_tokens": 0, "cost": 0, "price": 0},
    {"metadata": {"usage": "0"}, "user": "someone else", "store": False},
    {"messages": [{"role": "user", "content": "x", "cache_control": {"type": "ephemeral"}}]},
    {"x_unknown": {"n": 100, "stream": False}},
]


@pytest.mark.parametrize(("name", "value"), JUNK, ids=repr)
def test_a_number_that_decides_about_money_is_one_or_the_call_is_refused(
    bench: Bench, meter: Meter, name: str, value: object
) -> None:
    before = meter.count()

    answer = meter.send({name: value})

    assert (answer.status, answer.error["param"]) == (400, name)
    check_error(
        answer,
        status=400,
        type="invalid_request_error",
        code=answer.error["code"],
        param=name,
    )
    assert answer.error["code"] in {
        "invalid_type",
        "integer_below_min_value",
        "integer_above_max_value",
    }
    assert meter.count() == before


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("change", EVADING, ids=str)
def test_what_would_cost_more_than_what_is_billed_is_refused(
    bench: Bench, meter: Meter, change: dict[str, Any], stream: bool
) -> None:
    before = meter.count()

    answer = meter.send({"stream": stream, **change})

    assert answer.status == 400
    assert answer.error["code"] in {"unsupported_parameter", "duplicate_parameter", "invalid_type"}
    assert meter.count() == before


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("change", HARMLESS, ids=str)
def test_nothing_else_that_a_client_says_changes_the_charge(
    bench: Bench, meter: Meter, change: dict[str, Any], stream: bool
) -> None:
    rows, entries, heard = meter.count()

    answer = meter.send(
        {"stream": stream, **change},
        **{"X-Usage": "0", "X-Stainless-Raw-Response": "true", "OpenAI-Beta": "usage=off"},
    )

    assert answer.status == 200
    statement = meter.stage.settled(rows + 1)
    row = statement.rows[-1]
    assert (row.charge_nanos, row.usage_source) == (CHARGE, "reported")
    assert meter.count() == (rows + 1, entries + 1, heard + 1)
    assert row.hold_nanos >= CHARGE


def test_every_answer_that_may_be_written_is_held(bench: Bench, meter: Meter) -> None:
    holds = []
    for change in ({}, {"n": 2}, {"best_of": 2}, {"n": 1, "best_of": 2}):
        rows = meter.count()[0]
        assert meter.send({"max_tokens": 100, **change}).status == 200
        holds.append(meter.stage.settled(rows + 1).rows[-1].hold_nanos)

    output = 100 * OUTPUT_NANOS
    assert [hold - holds[0] >= output for hold in holds] == [False, True, True, True]


@pytest.mark.parametrize("number", [1, 3])
def test_pictures_of_any_size_are_held_as_pictures(bench: Bench, meter: Meter, number: int) -> None:
    rows = meter.count()[0]
    picture = {"type": "image_url", "image_url": {"url": "https://x.example/1.png"}}
    message = {"role": "user", "content": [picture] * number}

    assert meter.send({"messages": [message], "max_tokens": 1}).status == 200

    hold = meter.stage.settled(rows + 1).rows[-1].hold_nanos
    assert hold >= number * 1_000 * INPUT_NANOS
