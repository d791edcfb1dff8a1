"""Anthropic's Messages, called with the official SDK, answered by providers of every dialect.

What a client sees is what its own dialect says, and usage × price is what it is charged, to the
nano.
"""

from __future__ import annotations

from typing import Any, Final

import anthropic
import httpx
import pytest

from tests.e2e.dialects import Stages
from tests.e2e.sdks import anthropic_of
from tests.support.bench import INPUT_NANOS, OUTPUT_NANOS, Bench

# What a dialect says does not depend on the database: test_dialects has what is charged on both.
pytestmark = pytest.mark.sqlite

TOOL: Final[Any] = {
    "name": "get_weather",
    "description": "The weather of a place.",
    "input_schema": {"type": "object", "properties": {"place": {"type": "string"}}},
}
HELLO: Final[Any] = [{"role": "user", "content": "Say something."}]


def cost_of(usage: anthropic.types.Usage) -> int:
    """Return the charge for what the SDK was told, in nano-USD."""
    read = (
        usage.input_tokens
        + (usage.cache_read_input_tokens or 0)
        + (usage.cache_creation_input_tokens or 0)
    )
    return read * INPUT_NANOS + usage.output_tokens * OUTPUT_NANOS


def test_a_whole_answer(stages: Stages) -> None:
    stage = stages.make()

    with anthropic_of(stage) as client:
        message = client.messages.create(
            model=stage.model.name, max_tokens=100, messages=HELLO, system="Be brief."
        )

    assert message.type == "message"
    assert message.role == "assistant"
    assert message.content[0].type == "text"
    assert message.content[0].text
    assert message.stop_reason == "end_turn"
    assert (message.usage.input_tokens, message.usage.output_tokens) == (10, 12)
    (row,) = stage.settled().rows
    assert (row.endpoint, row.dialect, row.state) == ("/v1/messages", "anthropic", "completed")
    assert row.charge_nanos == cost_of(message.usage) == 58_000


def test_a_stream(stages: Stages) -> None:
    stage = stages.make("prompt=10,tokens=30")

    with (
        anthropic_of(stage) as client,
        client.messages.stream(model=stage.model.name, max_tokens=100, messages=HELLO) as stream,
    ):
        text = "".join(stream.text_stream)
        message = stream.get_final_message()

    assert text
    assert message.content[0].type == "text"
    assert message.content[0].text == text
    assert message.stop_reason == "end_turn"
    assert message.usage.output_tokens == 30
    assert stage.settled().charges == (cost_of(message.usage),) == (130_000,)


def test_tools_are_called_and_answered(stages: Stages) -> None:
    stage = stages.make("prompt=10,tokens=30,tools=on")
    asked: dict[str, Any] = {"model": stage.model.name, "max_tokens": 200, "tools": [TOOL]}

    with anthropic_of(stage) as client:
        first = client.messages.create(messages=HELLO, **asked)
        (call,) = [block for block in first.content if block.type == "tool_use"]
        result = {"type": "tool_result", "tool_use_id": call.id, "content": "rain, 12 °C"}
        turns: Any = [
            *HELLO,
            {"role": "assistant", "content": first.content},
            {"role": "user", "content": [result]},
        ]
        with client.messages.stream(messages=turns, **asked) as stream:
            second = stream.get_final_message()

    assert first.stop_reason == "tool_use"
    assert call.name == "get_weather"
    assert isinstance(call.input, dict)
    assert second.stop_reason == "end_turn"
    assert "rain, 12 °C" in "".join(b.text for b in second.content if b.type == "text")
    expected = (cost_of(first.usage), cost_of(second.usage))
    assert stage.settled(2).charges == expected


def test_a_maximum_that_is_reached_is_the_reason_to_stop(stages: Stages) -> None:
    stage = stages.make("prompt=10,tokens=30")

    with anthropic_of(stage) as client:
        message = client.messages.create(model=stage.model.name, max_tokens=20, messages=HELLO)

    assert message.stop_reason == "max_tokens"
    assert message.usage.output_tokens == 20
    assert stage.settled().charges == (90_000,)


@pytest.mark.parametrize("is_stream", [False, True])
def test_thoughts_are_told(stages: Stages, is_stream: bool) -> None:
    stage = stages.make("prompt=10,tokens=30,reasoning=10")
    asked: Any = {
        "model": stage.model.name,
        "max_tokens": 2_000,
        "messages": HELLO,
        "thinking": {"type": "enabled", "budget_tokens": 1_024},
    }

    with anthropic_of(stage) as client:
        if is_stream:
            with client.messages.stream(**asked) as stream:
                message = stream.get_final_message()
        else:
            message = client.messages.create(**asked)

    assert message.usage.output_tokens == 30
    assert stage.settled().charges == (130_000,)


def test_a_provider_of_the_same_dialect_gets_the_request_as_it_is(bench: Bench) -> None:
    stage = Stages(bench, "anthropic").make()
    body = {
        "model": stage.model.name,
        "max_tokens": 50,
        "messages": HELLO,
        "metadata": {"user_id": "u-1"},
        "unheard_of": {"x": 1},
    }
    headers = {
        "x-api-key": stage.caller.raw,
        "anthropic-version": "2023-06-01",
        "anthropic-beta": "one-2025-01-01,two-2025-01-01",
        "x-not-for-them": "1",
    }

    answer = httpx.post(f"{bench.gateway.url}/v1/messages", json=body, headers=headers)

    assert answer.status_code == 200
    (call,) = stage.upstream_calls
    assert call["body"] == {**body, "model": stage.upstream_name}
    sent = call["request_headers"]
    assert sent["anthropic-beta"] == "one-2025-01-01,two-2025-01-01"
    assert sent["anthropic-version"] == "2023-06-01"
    assert "x-not-for-them" not in sent
    assert "authorization" not in sent
    assert stage.caller.raw not in sent.values()


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("status(400)", anthropic.BadRequestError),
        ("status(401)", anthropic.InternalServerError),
        ("status(429)", anthropic.RateLimitError),
        ("status(500)", anthropic.InternalServerError),
        ("status(503)", anthropic.OverloadedError),
    ],
)
def test_a_provider_that_fails(
    stages: Stages, fault: str, error: type[anthropic.APIStatusError], is_stream: bool
) -> None:
    stage = stages.make(f"fault={fault}")

    with anthropic_of(stage) as client, pytest.raises(error) as raised:
        client.messages.create(
            model=stage.model.name, max_tokens=100, messages=HELLO, stream=is_stream
        )

    body: Any = raised.value.body
    assert body["type"] == "error"
    assert body["request_id"] == raised.value.response.headers["request-id"]
    assert stage.settled().charges == (0,)


@pytest.mark.parametrize("fault", ["cut_after(8)", "err_event_mid(8)"])
def test_a_stream_that_fails_is_seen_to_fail(stages: Stages, fault: str) -> None:
    stage = stages.make(f"prompt=10,tokens=20,pace=0.02,fault={fault}")

    with anthropic_of(stage) as client, pytest.raises(anthropic.APIStatusError) as raised:
        for _ in client.messages.create(
            model=stage.model.name, max_tokens=100, messages=HELLO, stream=True
        ):
            pass

    assert raised.value.status_code == 200
    assert raised.value.type == "api_error"
    (row,) = stage.settled().rows
    assert row.state == "upstream_interrupted"
    assert 0 < row.charge_nanos <= row.hold_nanos


@pytest.mark.parametrize(
    ("change", "parameter"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"messages": "Hi"}, "messages"),
        ({"mcp_servers": [{"type": "url"}]}, "mcp_servers"),
        ({"thread": {"type": "continue", "previous_message_id": "msg_1"}}, "thread"),
        ({"compaction": {"type": "summarize"}}, "compaction"),
        ({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}, "tools[0].type"),
        ({"tools": [{"type": "code_execution_20250825", "name": "x"}]}, "tools[0].type"),
        ({"maxTokens": 5}, "maxTokens"),
        ({"n": 5}, "n"),
    ],
)
def test_what_cannot_be_metered_is_refused_by_name(
    bench: Bench, change: dict[str, Any], parameter: str
) -> None:
    stage = Stages(bench, "anthropic").make()
    body = {"model": stage.model.name, "max_tokens": 10, "messages": HELLO, **change}

    answer = httpx.post(
        f"{bench.gateway.url}/v1/messages",
        json=body,
        headers={"x-api-key": stage.caller.raw},
    )

    assert answer.status_code == 400
    told = answer.json()
    assert told["error"]["type"] == "invalid_request_error"
    assert parameter in told["error"]["message"]
    assert stage.upstream_calls == []
    assert bench.statement(stage.caller).rows == ()


def test_the_tool_runner_sends_the_whole_conversation(stages: Stages) -> None:
    stage = stages.make("prompt=10,tools=on")

    @anthropic.beta_tool
    def get_weather(place: str) -> str:
        """Tell the weather of a place."""
        return f"rain in {place}"

    with anthropic_of(stage) as client:
        runner = client.beta.messages.tool_runner(
            model=stage.model.name, max_tokens=200, messages=HELLO, tools=[get_weather]
        )
        first, second = list(runner)

    assert (first.stop_reason, second.stop_reason) == ("tool_use", "end_turn")
    assert second.content[0].type == "text"
    assert "rain in demo" in second.content[0].text
    assert len(stage.settled(2).rows) == len(stage.upstream_calls) == 2
    assert all("thread" not in call["body"] for call in stage.upstream_calls)


def test_what_another_dialect_cannot_say_is_refused_by_name(bench: Bench) -> None:
    stage = Stages(bench, "openai").make()
    document = {"type": "document", "source": {"type": "file", "file_id": "file-1"}}
    body = {
        "model": stage.model.name,
        "max_tokens": 10,
        "messages": [{"role": "user", "content": [document]}],
    }

    answer = httpx.post(
        f"{bench.gateway.url}/v1/messages", json=body, headers={"x-api-key": stage.caller.raw}
    )

    assert answer.status_code == 400
    assert "messages[0].content[0].source.type" in answer.json()["error"]["message"]
    assert stage.upstream_calls == []


def test_an_empty_wallet_is_402_here(bench: Bench) -> None:
    stage = Stages(bench, "anthropic").make()
    poor = bench.make_caller(wallet_nanos=1)
    bench.wait_for("/v1/models", poor.raw, 401)

    answer = httpx.post(
        f"{bench.gateway.url}/v1/messages",
        json={"model": stage.model.name, "max_tokens": 10, "messages": HELLO},
        headers={"x-api-key": poor.raw},
    )

    assert answer.status_code == 402
    assert answer.json()["error"]["type"] == "billing_error"
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("method", "path", "status", "kind"),
    [
        ("GET", "/v1/messages", 405, "invalid_request_error"),
        ("POST", "/v1/messages/x", 404, "not_found_error"),
        ("POST", "/v1/messages", 401, "authentication_error"),
    ],
)
def test_other_errors_have_the_shape_of_the_dialect(
    bench: Bench, method: str, path: str, status: int, kind: str
) -> None:
    answer = httpx.request(method, bench.gateway.url + path, headers={"x-api-key": "none"})

    assert answer.status_code == status
    told = answer.json()
    assert (told["type"], told["error"]["type"]) == ("error", kind)
    assert told["request_id"] == answer.headers["request-id"]


def test_a_stream_of_anthropics_without_its_end_is_no_success(bench: Bench) -> None:
    stage = Stages(bench, "anthropic").make("prompt=10,tokens=20,fault=no_done")

    with anthropic_of(stage) as client, pytest.raises(anthropic.APIStatusError):
        for _ in client.messages.create(
            model=stage.model.name, max_tokens=100, messages=HELLO, stream=True
        ):
            pass

    (row,) = stage.settled().rows
    assert (row.state, row.charge_nanos) == ("upstream_interrupted", 90_000)


def test_the_input_is_counted_and_costs_nothing(stages: Stages) -> None:
    stage = stages.make()

    with anthropic_of(stage) as client:
        few = client.messages.count_tokens(model=stage.model.name, messages=HELLO)
        more = client.messages.count_tokens(
            model=stage.model.name, messages=HELLO, system="Be brief. " * 50, tools=[TOOL]
        )

    assert 5 <= few.input_tokens <= 20
    assert 150 + few.input_tokens <= more.input_tokens <= 600
    assert stage.upstream_calls == []
    assert stage.bench.statement(stage.caller).rows == ()


def test_models_are_listed_as_the_sdk_wants_them(bench: Bench) -> None:
    stage = Stages(bench, "openai").make()

    with anthropic_of(stage) as client:
        listed = {model.id for model in client.models.list(limit=1)}
        found = client.models.retrieve(stage.model.name)
        with pytest.raises(anthropic.NotFoundError) as raised:
            client.models.retrieve("no-such-model")

    assert stage.model.name in listed
    assert (found.type, found.id) == ("model", stage.model.name)
    body: Any = raised.value.body
    assert body["error"]["type"] == "not_found_error"


def test_a_call_is_repeated_in_its_own_dialect(stages: Stages) -> None:
    stage = stages.make()
    headers = {"x-api-key": stage.caller.raw, "idempotency-key": "once"}
    body = {"model": stage.model.name, "max_tokens": 50, "messages": HELLO, "stream": True}
    url = f"{stage.bench.gateway.url}/v1/messages"

    first = httpx.post(url, json=body, headers=headers)
    again = httpx.post(url, json=body, headers=headers)

    assert first.text.endswith('event: message_stop\ndata: {"type":"message_stop"}\n\n')
    assert again.content == first.content
    assert again.headers["idempotent-replayed"] == "true"
    assert len(stage.upstream_calls) == 1
    assert stage.settled().charges == (58_000,)


def test_limits_are_told_in_anthropics_headers(bench: Bench) -> None:
    stage = Stages(bench, "anthropic").make()
    caller = bench.make_caller(rpm=1)
    bench.wait_for("/v1/models", caller.raw, 401)
    body = {"model": stage.model.name, "max_tokens": 10, "messages": HELLO}

    first, second = (
        httpx.post(f"{bench.gateway.url}/v1/messages", json=body, headers={"x-api-key": caller.raw})
        for _ in range(2)
    )

    assert first.headers["anthropic-ratelimit-requests-limit"] == "1"
    assert first.headers["anthropic-ratelimit-requests-remaining"] == "0"
    assert "x-ratelimit-limit-requests" not in first.headers
    assert second.status_code == 429
    assert second.json()["error"]["type"] == "rate_limit_error"
    assert 1 <= int(second.headers["retry-after"]) <= 60
    assert second.headers["anthropic-ratelimit-requests-reset"].endswith("Z")
