"""Chats of OpenAI's SDK, answered by providers of every dialect."""

from __future__ import annotations

from typing import Any, Final

import openai
import pytest

from tests.e2e.dialects import Stages
from tests.support.bench import INPUT_NANOS, OUTPUT_NANOS

# What a dialect says does not depend on the database: test_dialects has what is charged on both.
pytestmark = pytest.mark.sqlite

MESSAGES: Final[Any] = [{"role": "user", "content": "Say something."}]
TOOL: Final[Any] = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a place.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
    },
}


def cost_of(usage: openai.types.CompletionUsage | None) -> int:
    """Return the charge for what the SDK was told, in nano-USD."""
    assert usage is not None
    return usage.prompt_tokens * INPUT_NANOS + usage.completion_tokens * OUTPUT_NANOS


def test_a_whole_chat(stages: Stages) -> None:
    stage = stages.make()

    chat = stage.client().chat.completions.create(
        model=stage.model.name, messages=[{"role": "system", "content": "Be brief."}, *MESSAGES]
    )

    (choice,) = chat.choices
    assert choice.message.content
    assert (choice.message.role, choice.finish_reason) == ("assistant", "stop")
    (row,) = stage.settled().rows
    assert (row.endpoint, row.dialect) == ("/v1/chat/completions", "openai")
    assert row.charge_nanos == cost_of(chat.usage) == 58_000


@pytest.mark.parametrize("include_usage", [False, True])
def test_a_stream(stages: Stages, include_usage: bool) -> None:
    stage = stages.make("prompt=10,tokens=30")
    options: Any = {"stream_options": {"include_usage": True}} if include_usage else {}

    chunks = list(
        stage.client().chat.completions.create(
            model=stage.model.name, messages=MESSAGES, stream=True, **options
        )
    )

    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    reasons = [c.choices[0].finish_reason for c in chunks if c.choices]
    assert text
    assert reasons[-1] == "stop"
    told = [chunk.usage for chunk in chunks if chunk.usage is not None]
    assert [cost_of(usage) for usage in told] == ([130_000] if include_usage else [])
    assert stage.settled().charges == (130_000,)


@pytest.mark.parametrize("is_stream", [False, True])
def test_tools_are_called_and_answered(stages: Stages, is_stream: bool) -> None:
    stage = stages.make("prompt=10,tokens=30,tools=on")
    client = stage.client()
    asked: Any = {"model": stage.model.name, "tools": [TOOL]}

    if is_stream:
        with client.chat.completions.stream(messages=MESSAGES, **asked) as stream:
            first = stream.get_final_completion()
    else:
        first = client.chat.completions.create(messages=MESSAGES, **asked)
    calls: Any = first.choices[0].message.tool_calls
    (call,) = calls
    assert call.type == "function"
    turns: Any = [
        *MESSAGES,
        {
            "role": "assistant",
            "tool_calls": [call.model_dump(include={"id", "type", "function"})],
        },
        {"role": "tool", "tool_call_id": call.id, "content": "rain, 12 °C"},
    ]
    second = client.chat.completions.create(messages=turns, **asked)

    assert first.choices[0].finish_reason == "tool_calls"
    assert call.function.name == "get_weather"
    assert "rain, 12 °C" in (second.choices[0].message.content or "")
    assert second.choices[0].finish_reason == "stop"
    assert len(stage.settled(2).charges) == 2


def test_a_maximum_that_is_reached_is_the_reason_to_stop(stages: Stages) -> None:
    stage = stages.make("prompt=10,tokens=30")

    chat = stage.client().chat.completions.create(
        model=stage.model.name, messages=MESSAGES, max_completion_tokens=20
    )

    assert chat.choices[0].finish_reason == "length"
    assert stage.settled().charges == (90_000,)


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("status(400)", openai.BadRequestError),
        ("status(401)", openai.InternalServerError),
        ("status(429)", openai.RateLimitError),
        ("status(500)", openai.InternalServerError),
    ],
)
def test_a_provider_that_fails(
    stages: Stages, fault: str, error: type[openai.APIStatusError], is_stream: bool
) -> None:
    stage = stages.make(f"fault={fault}")

    with pytest.raises(error):
        stage.client().chat.completions.create(
            model=stage.model.name, messages=MESSAGES, stream=is_stream
        )

    assert set(stage.settled().charges) == {0}


@pytest.mark.parametrize("fault", ["cut_after(9)", "err_event_mid(9)"])
def test_a_stream_that_fails_is_seen_to_fail(stages: Stages, fault: str) -> None:
    stage = stages.make(f"prompt=10,tokens=20,pace=0.02,fault={fault}")

    with pytest.raises(openai.APIError):
        for _ in stage.client().chat.completions.create(
            model=stage.model.name, messages=MESSAGES, stream=True
        ):
            pass

    (row,) = stage.settled().rows
    assert row.state == "upstream_interrupted"
    assert 0 < row.charge_nanos <= row.hold_nanos
