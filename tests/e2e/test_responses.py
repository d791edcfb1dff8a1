"""OpenAI's Responses, called with the official SDK, answered by providers of every dialect.

What a client sees is what its own dialect says, and usage × price is what it is charged, to the
nano.
"""

from __future__ import annotations

from typing import Any, Final

import httpx
import openai
import orjson
import pytest
from openai.types.responses import Response, ResponseUsage

from tests.e2e.dialects import PROVIDER_DIALECTS, Stages
from tests.support.bench import INPUT_NANOS, OUTPUT_NANOS, Bench

# What passes as it is depends on no engine; where answers lie is in test_stored_answers.
pytestmark = pytest.mark.sqlite

TOOL: Final[Any] = {
    "type": "function",
    "name": "get_weather",
    "description": "The weather of a place.",
    "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    "strict": False,
}

OTHERS: Final = tuple(name for name in PROVIDER_DIALECTS if name != "openai-responses")


def cost_of(usage: ResponseUsage | None) -> int:
    """Return the charge for what the SDK was told, in nano-USD."""
    assert usage is not None
    return usage.input_tokens * INPUT_NANOS + usage.output_tokens * OUTPUT_NANOS


def test_a_whole_answer(stages: Stages) -> None:
    stage = stages.make()

    answer = stage.client().responses.create(
        model=stage.model.name, input="Say something.", instructions="Be brief."
    )

    assert (answer.object, answer.status, answer.error) == ("response", "completed", None)
    assert answer.output_text
    assert answer.instructions == "Be brief."
    assert answer.usage is not None
    assert (answer.usage.input_tokens, answer.usage.output_tokens) == (10, 12)
    (row,) = stage.settled().rows
    assert (row.endpoint, row.dialect, row.state) == (
        "/v1/responses",
        "openai-responses",
        "completed",
    )
    assert row.charge_nanos == cost_of(answer.usage) == 58_000


def test_a_stream(stages: Stages) -> None:
    stage = stages.make("prompt=10,tokens=30")
    pieces: list[str] = []
    numbers: list[int] = []

    with stage.client().responses.stream(model=stage.model.name, input="Say it.") as events:
        for event in events:
            numbers.append(event.sequence_number)
            if event.type == "response.output_text.delta":
                pieces.append(event.delta)
        answer = events.get_final_response()

    assert pieces
    assert answer.output_text == "".join(pieces)
    assert numbers == list(range(len(numbers)))
    assert answer.usage is not None
    assert answer.usage.output_tokens == 30
    assert stage.settled().charges == (cost_of(answer.usage),) == (130_000,)


def test_tools_are_called_and_answered(stages: Stages) -> None:
    stage = stages.make("prompt=10,tokens=30,tools=on")
    asked: dict[str, Any] = {"model": stage.model.name, "tools": [TOOL], "store": False}
    hello: Any = {"role": "user", "content": "Weather?"}
    client = stage.client()

    first = client.responses.create(input=[hello], **asked)
    (call,) = [item for item in first.output if item.type == "function_call"]
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "rain, 12 °C"}
    items: Any = [hello, *(item.to_dict() for item in first.output), result]
    with client.responses.stream(input=items, **asked) as events:
        second = events.get_final_response()

    assert call.name == "get_weather"
    assert isinstance(orjson.loads(call.arguments), dict)
    assert "rain, 12 °C" in second.output_text
    assert stage.settled(2).charges == (cost_of(first.usage), cost_of(second.usage))


def test_a_maximum_that_is_reached_cuts_the_answer_short(stages: Stages) -> None:
    stage = stages.make("prompt=10,tokens=300")

    answer = stage.client().responses.create(
        model=stage.model.name, input="Say something.", max_output_tokens=20
    )

    assert answer.status == "incomplete"
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert stage.settled().charges == (cost_of(answer.usage),) == (90_000,)


@pytest.mark.parametrize("is_stream", [False, True])
def test_thoughts_are_counted(stages: Stages, is_stream: bool) -> None:
    stage = stages.make("prompt=10,tokens=30,reasoning=10")
    asked: dict[str, Any] = {
        "model": stage.model.name,
        "input": "Think.",
        "max_output_tokens": 4000,
        "reasoning": {"effort": "high", "summary": "auto"},
        "include": ["reasoning.encrypted_content"],
    }
    answer: Response

    if is_stream:
        with stage.client().responses.stream(**asked) as events:
            answer = events.get_final_response()
    else:
        answer = stage.client().responses.create(**asked)

    assert answer.usage is not None
    assert answer.usage.output_tokens_details.reasoning_tokens == 10
    assert answer.output_text
    assert stage.settled().charges == (cost_of(answer.usage),)


@pytest.mark.parametrize("dialect", OTHERS)
def test_what_lies_with_openai_is_refused_by_other_providers(bench: Bench, dialect: str) -> None:
    stage = Stages(bench, dialect).make()

    with pytest.raises(openai.BadRequestError) as refusal:
        stage.client().responses.create(
            model=stage.model.name, input="And?", previous_response_id="resp_1"
        )

    assert (refusal.value.code, refusal.value.param) == (
        "unsupported_parameter",
        "previous_response_id",
    )
    assert stage.upstream_calls == []
    assert stage.settled(0).charges == ()


def test_an_earlier_answer_is_known_to_the_provider_that_keeps_it(bench: Bench) -> None:
    stage = Stages(bench, "openai-responses").make()
    client = stage.client()

    first = client.responses.create(model=stage.model.name, input="Say something.")
    second = client.responses.create(
        model=stage.model.name, input="And?", previous_response_id=first.id
    )

    assert second.previous_response_id == first.id
    sent = [call["body"] for call in stage.upstream_calls]
    assert [body.get("previous_response_id") for body in sent] == [None, first.id]
    assert stage.settled(2).charges == (cost_of(first.usage), cost_of(second.usage))


@pytest.mark.parametrize("dialect", OTHERS)
def test_a_tool_that_takes_any_text_is_called_as_such(bench: Bench, dialect: str) -> None:
    stage = Stages(bench, dialect).make("prompt=10,tokens=30,tools=on")
    tool: Any = {"type": "custom", "name": "apply_patch", "description": "Edits files."}

    with stage.client().responses.stream(
        model=stage.model.name, input="Patch it.", tools=[tool], tool_choice="required"
    ) as events:
        answer = events.get_final_response()

    (call,) = [item for item in answer.output if item.type == "custom_tool_call"]
    assert call.name == "apply_patch"
    assert call.input
    assert stage.settled().charges == (cost_of(answer.usage),)


@pytest.mark.parametrize("fault", ["cut_after(8)", "err_event_mid(8)"])
def test_a_stream_that_fails_is_seen_to_fail(stages: Stages, fault: str) -> None:
    stage = stages.make(f"prompt=10,tokens=20,pace=0.02,fault={fault}")
    told: list[str] = []

    with pytest.raises(openai.APIError) as raised:
        told += [
            event.type
            for event in stage.client().responses.create(
                model=stage.model.name, input="Say something.", stream=True
            )
        ]

    assert raised.value.code == "upstream_interrupted"
    (row,) = stage.settled().rows
    assert row.state == "upstream_interrupted"
    assert 0 < row.charge_nanos <= row.hold_nanos


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(
    ("fault", "error"),
    [("status(401)", openai.InternalServerError), ("status(500)", openai.InternalServerError)],
)
def test_a_provider_that_fails_costs_nothing(
    stages: Stages, fault: str, error: type[openai.APIStatusError], is_stream: bool
) -> None:
    stage = stages.make(f"fault={fault}")

    with pytest.raises(error):
        stage.client().with_options(max_retries=0).responses.create(
            model=stage.model.name, input="Say something.", stream=is_stream
        )

    assert stage.settled().charges == (0,)


@pytest.mark.parametrize(
    ("change", "parameter"),
    [
        ({"background": True}, "background"),
        ({"input": None}, "input"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"max_tokens": 5}, "max_tokens"),
        ({"tools": [{"type": "code_interpreter"}]}, "tools[0].type"),
        ({"tools": [{"type": "web_search"}]}, "tools[0].type"),
    ],
)
def test_what_cannot_be_metered_is_refused_by_name(
    bench: Bench, change: dict[str, Any], parameter: str
) -> None:
    stage = Stages(bench, "openai-responses").make()
    body = {"model": stage.model.name, "input": "Hi", **change}

    answer = httpx.post(
        f"{bench.gateway.url}/v1/responses",
        json=body,
        headers={"authorization": f"Bearer {stage.caller.raw}"},
    )

    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == parameter
    assert stage.upstream_calls == []
    assert bench.statement(stage.caller).rows == ()


def test_a_stream_without_its_end_is_no_success(bench: Bench) -> None:
    stage = Stages(bench, "openai-responses").make("prompt=10,tokens=20,fault=no_done")

    with pytest.raises(openai.APIError):
        list(
            stage.client().responses.create(
                model=stage.model.name, input="Say something.", stream=True
            )
        )

    (row,) = stage.settled().rows
    assert row.state == "upstream_interrupted"
    assert row.charge_nanos == 94_000


def test_a_call_is_repeated_as_it_was_answered(stages: Stages) -> None:
    stage = stages.make()
    headers = {"authorization": f"Bearer {stage.caller.raw}", "idempotency-key": "once"}
    body = {"model": stage.model.name, "input": "Say something.", "stream": True}
    url = f"{stage.bench.gateway.url}/v1/responses"

    first = httpx.post(url, json=body, headers=headers)
    again = httpx.post(url, json=body, headers=headers)

    assert first.text.rstrip().rpartition("event: ")[2].startswith("response.completed\n")
    assert again.content == first.content
    assert again.headers["idempotent-replayed"] == "true"
    assert len(stage.upstream_calls) == 1
    assert stage.settled().charges == (58_000,)
