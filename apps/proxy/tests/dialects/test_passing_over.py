"""Events that go on without a closer look: the meter has to tell the same of the stream."""

from collections.abc import Callable
from typing import Any, Final

import pytest

from apps.core.usage import Usage
from apps.proxy.dialects.anthropic_stream import AnthropicStreamMeter
from apps.proxy.dialects.gemini_stream import GeminiStreamMeter
from apps.proxy.dialects.openai_stream import OpenAIStreamMeter
from apps.proxy.dialects.responses_stream import ResponsesStreamMeter
from apps.proxy.dialects.stream_meter import StreamMeter
from apps.proxy.sse import EventBuffer, split_events
from apps.proxy.tests.dialects.golden_cells import Cell, golden_cells
from apps.proxy.tests.streams import ALL
from tests.support.cases import for_all

METERS: Final[dict[str, Callable[[], StreamMeter]]] = {
    "openai": lambda: OpenAIStreamMeter(strip_usage=True),
    "anthropic": AnthropicStreamMeter,
    "gemini": GeminiStreamMeter,
    "openai-responses": ResponsesStreamMeter,
}


def told(meter: StreamMeter, sent: bytes) -> tuple[Any, ...]:
    """Return all that a stream said, as its call is settled by."""
    return (
        sent,
        meter.last_frame,
        meter.final_usage(estimated_input_tokens=10),
        meter.finish_reason,
        meter.service_tier,
        meter.stored_ids,
        meter.done_seen,
        meter.error and meter.error.row,
        meter.upstream_error_code,
        meter.saw_content,
        meter.events,
        meter.upstream_id,
        meter.upstream_model,
    )


def observed(meter: StreamMeter, events: list[bytes]) -> tuple[Any, ...]:
    return told(meter, b"".join([meter.observe(event) for event in events]))


def passed(meter: StreamMeter, events: list[bytes]) -> tuple[int, tuple[Any, ...]]:
    """Return how many events were passed over, and what was said."""
    sent, taken = [], 0
    for event in events:
        if meter.pass_over(event):
            taken += 1
            sent.append(event)
        else:
            sent.append(meter.observe(event))
    return taken, told(meter, b"".join(sent))


@for_all("cell", golden_cells("stream"))
def test_what_is_passed_over_changes_nothing_of_what_a_stream_said(cell: Cell) -> None:
    make, events = METERS[cell.provider], [f"{event}\n\n".encode() for event in cell.given]

    assert passed(make(), events)[1] == observed(make(), events)


@pytest.mark.parametrize("raw", ALL.values(), ids=ALL.keys())
def test_streams_of_several_providers_say_the_same(raw: bytes) -> None:
    events = split_events(EventBuffer().feed(raw))

    taken, said = passed(METERS["openai"](), events)

    assert said == observed(METERS["openai"](), events)
    assert taken > 0


def test_most_of_an_answer_is_passed_over() -> None:
    events = [
        b'data: {"id":"c","model":"m","choices":[{"index":0,"delta":{"content":"%d"},'
        b'"finish_reason":null}],"usage":null}\n\n' % number
        for number in range(50)
    ]

    taken, said = passed(METERS["openai"](), events)

    assert taken == len(events)
    assert said[0] == b"".join(events)
    assert said[2] == Usage(input=10, output=said[2].output, source="estimated")


@pytest.mark.parametrize("dialect", METERS)
def test_what_ends_a_stream_is_looked_at(dialect: str) -> None:
    """What stands in these events must never go on unseen."""
    matters = {
        "openai": [b'{"error":{"message":"x"}}', b"[DONE]", b'{"choices":[],"usage":{"a":1}}'],
        "anthropic": [b'{"type":"message_stop"}', b'{"type":"error","error":{}}'],
        "gemini": [b'{"candidates":[{"finishReason":"STOP"}]}', b'{"error":{"code":500}}'],
        "openai-responses": [b'{"type":"error","error":{"code":"x"}}'],
    }
    for data in matters[dialect]:
        meter = METERS[dialect]()
        before = told(METERS[dialect](), b"")

        assert not meter.pass_over(b"data: " + data + b"\n\n")
        assert told(meter, b"") == before
