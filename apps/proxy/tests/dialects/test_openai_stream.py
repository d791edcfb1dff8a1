import json
from typing import Any

import pytest

from apps.core.usage import Usage
from apps.proxy.dialects.openai_stream import SPECIAL, OpenAIStreamMeter
from apps.proxy.sse import EventBuffer, event_data, split_events
from apps.proxy.tests import streams
from apps.proxy.tests.streams import delta, event
from tests.support.cases import for_all


def run(stream: bytes, meter: OpenAIStreamMeter, size: int) -> bytes:
    """Return what goes on to the client when the stream arrives in pieces of this size."""
    buffer = EventBuffer()
    pieces = [stream[start : start + size] for start in range(0, len(stream), size)]
    return b"".join(meter.observe(buffer.feed(piece)) for piece in pieces)


USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
USAGE_EVENT = event(id="c-1", choices=[], usage=USAGE)
FINISH = event(id="c-1", choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
DONE = b"data: [DONE]\n\n"


@pytest.mark.parametrize(
    "block",
    [
        delta(content="Hi"),
        event(choices=[{"delta": {"content": "Hi"}, "finish_reason": None}], usage=None),
        b'data: {"usage" : null, "choices": [{"finish_reason":  null}], "error": null}\n\n',
        delta(content='"usage":{"prompt_tokens":1} "finish_reason":"stop" "error":{}'),
        delta(content="data: [DONE]"),
        delta(content="\ndata: [DONE]\n\nevent: error"),
        delta(content='{"type":"error"}'),
        delta(content="usage"),
        delta(error_count=1, my_usage=2),
        b": comment\n\n",
        b"event: message\ndata: {}\n\n",
        b"data: not [DONE]\n\n",
    ],
)
def test_ordinary_events_are_not_special(block: bytes) -> None:
    assert SPECIAL.search(block) is None


@for_all(
    "block",
    [
        USAGE_EVENT,
        FINISH,
        DONE,
        b"data:[DONE]\r\n\r\n",
        delta(content="a") + DONE,
        event(usage={}),
        b'data: {"usage" : {"prompt_tokens": 1}}\n\n',
        b'data: {"x_groq":{"usage":{"prompt_tokens":1}}}\n\n',
        event(error={"message": "no"}),
        event(error="no"),
        event(type="error"),
        event(object="error"),
        b"event: error\ndata: oops\n\n",
        b"id: 1\revent:error\rdata: {}\r\r",
        b'data: {"choices":[{"finish_reason"\ndata: :"stop"}]}\n\n'.replace(b"\ndata: ", b""),
    ],
)
def test_usage_finish_errors_and_the_end_are_special(block: bytes) -> None:
    assert SPECIAL.search(block) is not None


@pytest.mark.parametrize("size", [1, 2, 7, 50, 400, 10_000])
def test_a_stream_is_metered_alike_however_it_is_cut(size: int) -> None:
    meter = OpenAIStreamMeter(strip_usage=True)

    sent = run(streams.OPENAI, meter, size)

    usage_event = split_events(streams.OPENAI)[-2]
    assert sent == streams.OPENAI.replace(usage_event, b"").replace(DONE, b"")
    assert meter.usage == Usage(input=5, cache_read=4, output=3, source="reported")
    assert meter.final_usage(estimated_input_tokens=1_000) == meter.usage
    assert meter.finish_reason == "stop"
    assert meter.done_seen
    assert meter.error is None
    assert meter.saw_content
    assert (meter.upstream_id, meter.upstream_model) == ("chatcmpl-1", "gpt-4o")


def test_every_cut_in_two_gives_the_same_meter_and_the_same_bytes() -> None:
    for stream in streams.ALL.values():
        whole = OpenAIStreamMeter(strip_usage=True)
        expected = run(stream, whole, len(stream))

        for cut in range(len(stream) + 1):
            meter, buffer = OpenAIStreamMeter(strip_usage=True), EventBuffer()
            sent = b"".join(
                meter.observe(buffer.feed(part)) for part in (stream[:cut], stream[cut:])
            )

            # The LF of the last, withheld event may go on; it is an empty line.
            assert sent.rstrip(b"\r\n") == expected.rstrip(b"\r\n")
            assert (meter.usage, meter.finish_reason, meter.done_seen, meter.saw_content) == (
                whole.usage,
                whole.finish_reason,
                whole.done_seen,
                whole.saw_content,
            )
            assert meter.estimated_output_tokens() == whole.estimated_output_tokens()


def test_the_usage_event_goes_on_to_a_client_that_asked_for_it() -> None:
    meter = OpenAIStreamMeter(strip_usage=False)

    sent = run(streams.OPENAI, meter, 64)

    assert sent == streams.OPENAI.replace(DONE, b"")


def test_usage_inside_the_finishing_event_is_metered_and_not_stripped() -> None:
    meter = OpenAIStreamMeter(strip_usage=True)

    sent = run(streams.PYTHON_SERVER, meter, 30)

    assert b'"finish_reason": "length"' in sent
    assert meter.usage == Usage(input=5, output=2, source="reported")
    assert meter.finish_reason == "length"
    assert meter.done_seen


def test_ordinary_blocks_are_handed_on_as_they_are() -> None:
    block = delta(content="Hi")

    assert OpenAIStreamMeter(strip_usage=True).observe(block) is block


def test_nothing_goes_on_after_the_end() -> None:
    meter = OpenAIStreamMeter(strip_usage=True)

    assert meter.observe(FINISH + DONE + delta(content="late")) == FINISH
    assert meter.observe(delta(content="later")) == b""
    assert not meter.saw_content


def test_the_last_usage_counts_and_is_never_added_up() -> None:
    meter = OpenAIStreamMeter(strip_usage=True)
    for tokens in (1, 2, 3, 4, 5):
        usage = {"prompt_tokens": 10, "completion_tokens": tokens, "total_tokens": 10 + tokens}
        meter.observe(event(choices=[{"delta": {"content": "a"}}], usage=usage))
    meter.observe(FINISH + USAGE_EVENT + USAGE_EVENT + DONE)

    assert meter.usage == Usage(input=10, output=5, source="reported")


@pytest.mark.parametrize(
    "where",
    [
        {"usage": USAGE},
        {"x_groq": {"id": "r", "usage": USAGE}},
        {"choices": [{"delta": {}, "finish_reason": "stop", "usage": USAGE}]},
    ],
)
def test_usage_is_found_wherever_a_server_puts_it(where: dict[str, Any]) -> None:
    meter = OpenAIStreamMeter(strip_usage=True)
    meter.observe(event(**where))

    assert meter.usage == Usage(input=10, output=5, source="reported")


@pytest.mark.parametrize(
    ("block", "code"),
    [
        (
            event(error={"message": "key sk-SECRET", "code": "rate_limit_exceeded"}),
            "rate_limit_exceeded",
        ),
        (
            event(error={"message": "key sk-SECRET", "code": "sk-SECRET", "type": "server_error"}),
            "server_error",
        ),
        (event(error={"code": 502, "message": "no"}, choices=[{"finish_reason": "error"}]), None),
        (event(error="sk-SECRET"), None),
        (
            b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error"}}\n\n',
            "overloaded_error",
        ),
        (b"event: error\ndata: sk-SECRET\n\n", None),
        (event(object="error", message="sk-SECRET", code=40001), None),
        (event(choices=[{"delta": {}, "finish_reason": "error"}]), None),
        (b'data: {"usage":{"prompt_tokens":1,}}\n\n', None),
    ],
)
def test_an_error_stops_the_stream_and_none_of_its_text_goes_on(
    block: bytes, code: str | None
) -> None:
    meter = OpenAIStreamMeter(strip_usage=True)
    before = delta(content="Hi")

    sent = meter.observe(before + block + delta(content="late") + DONE)

    assert sent == before
    assert meter.error is not None
    assert (meter.error.row, meter.error.code) == ("E60", "upstream_interrupted")
    assert "SECRET" not in str(meter.error)
    assert meter.upstream_error_code == code
    assert not meter.done_seen
    assert meter.observe(DONE) == b""


def test_each_choice_that_ended_is_counted_once() -> None:
    meter = OpenAIStreamMeter(strip_usage=True)
    counts = []
    for index in (None, 1, 1, 2, "3", -1, 128):
        end: dict[str, Any] = {"index": index, "delta": {}, "finish_reason": "stop"}
        for nothing in (None, ""):
            meter.observe(event(choices=[{"index": 9, "delta": {}, "finish_reason": nothing}]))
        meter.observe(event(choices=[end]))
        counts.append(meter.finished_choices)

    # What is no place of a choice stands for the first.
    assert counts == [1, 2, 2, 3, 3, 3, 3]


@pytest.mark.parametrize(
    "block",
    [
        delta(content="Hi"),
        delta(reasoning_content="Hm"),
        delta(reasoning="Hm"),
        delta(refusal="No"),
        delta(tool_calls=[{"index": 0, "function": {"name": "f", "arguments": ""}}]),
        delta(function_call={"name": "f"}),
        delta(content=[{"type": "text", "text": "Hi"}]),
        b'data: {"choices": [{"delta": {"content": "Hi"}}]}\n\n',
        event(choices=[{"delta": {"content": "Hi"}, "finish_reason": "stop"}]),
    ],
)
def test_whatever_the_model_produces_is_content(block: bytes) -> None:
    meter = OpenAIStreamMeter(strip_usage=True)
    meter.observe(block)

    assert meter.saw_content
    assert meter.estimated_output_tokens() >= 1


@pytest.mark.parametrize(
    "block",
    [
        delta(role="assistant", content=""),
        delta(role="assistant", content=None, tool_calls=[], refusal=None),
        delta(),
        FINISH,
        USAGE_EVENT,
        b": keep-alive\n\n",
        event(choices=[], prompt_filter_results=[{"content_filter_results": {}}]),
    ],
)
def test_an_event_without_output_is_no_content(block: bytes) -> None:
    meter = OpenAIStreamMeter(strip_usage=True)
    meter.observe(block)

    assert not meter.saw_content
    assert meter.estimated_output_tokens() == 0


def test_text_of_a_completion_is_content_only_there() -> None:
    block = event(choices=[{"index": 0, "text": "Once", "finish_reason": None}])
    completion = OpenAIStreamMeter(strip_usage=True, is_completion=True)
    completion.observe(block)
    chat = OpenAIStreamMeter(strip_usage=True)
    chat.observe(block)

    assert (completion.saw_content, completion.estimated_output_tokens()) == (True, 1)
    assert not chat.saw_content


def test_the_estimate_counts_what_the_strings_say() -> None:
    meter = OpenAIStreamMeter(strip_usage=True)
    for text in ("Hello", ' "quoted"\n', "日本", "😀"):
        meter.observe(delta(content=text))
        meter.observe(
            b"data: " + json.dumps({"choices": [{"delta": {"content": text}}]}).encode() + b"\n\n"
        )

    # Twice: 5 and 10 characters of ASCII, 2 ideographs, 1 emoji, in quarters of a token.
    assert meter.estimated_output_tokens() == -(-2 * (5 + 10 + 8 + 8) // 4)


def test_reasoning_sent_under_two_names_is_counted_once() -> None:
    meter = OpenAIStreamMeter(strip_usage=True)
    meter.observe(delta(reasoning="four", reasoning_content="four", content="four"))

    assert meter.estimated_output_tokens() == 2


def test_what_is_kept_of_a_long_stream_is_bounded_and_still_counted() -> None:
    meter = OpenAIStreamMeter(strip_usage=True)
    block = delta(content="four")

    for _ in range(2_000):
        meter.observe(block)
        assert meter._batch_bytes <= 16 * 1024

    assert meter.events == 2_000
    assert meter.estimated_output_tokens() == 2_000


@pytest.mark.parametrize(
    ("blocks", "expected"),
    [
        ([], Usage()),
        ([delta(role="assistant", content="")], Usage()),
        ([delta(content="twelve chars")], Usage(input=100, output=3, source="estimated")),
        ([delta(content="Hi"), USAGE_EVENT], Usage(input=10, output=5, source="reported")),
        # Reasoning that used up the maximum, invisibly.
        ([FINISH, USAGE_EVENT], Usage(input=10, output=5, source="reported")),
        # Nothing produced: the prompt alone is not charged.
        (
            [FINISH, event(choices=[], usage={"prompt_tokens": 10, "completion_tokens": 0})],
            Usage(input=10),
        ),
        (
            [
                delta(content="Hi"),
                event(choices=[], usage={"prompt_tokens": 0, "completion_tokens": 0}),
            ],
            Usage(input=100, output=1, source="estimated", is_suspect=True),
        ),
        (
            [delta(content="Hi"), event(choices=[], usage={"prompt_tokens": "x"})],
            Usage(input=100, output=1, source="estimated", is_suspect=True),
        ),
        (
            [delta(content="Hi"), event(choices=[], usage=USAGE), event(choices=[], usage=[1])],
            Usage(input=10, output=5, source="reported"),
        ),
        (
            [delta(content="four" * 10), event(error={"message": "a very long text " * 100})],
            Usage(input=100, output=10, source="estimated"),
        ),
    ],
)
def test_what_is_charged_follows_the_rules_of_who_pays(
    blocks: list[bytes], expected: Usage
) -> None:
    meter = OpenAIStreamMeter(strip_usage=True)
    for block in blocks:
        meter.observe(block)

    assert meter.final_usage(estimated_input_tokens=100) == expected


def test_a_label_of_the_upstream_that_is_no_label_is_dropped() -> None:
    meter = OpenAIStreamMeter(strip_usage=True)
    meter.observe(event(id="a\nb", model="m" * 500, choices=[{"finish_reason": "x" * 500}]))

    assert meter.upstream_id is None
    assert meter.upstream_model is None
    assert meter.finish_reason is None


def test_the_golden_streams_hold_content_and_an_end() -> None:
    for stream in streams.ALL.values():
        assert any(b'"content"' in event_data(part) for part in split_events(stream))


SECOND = "A" * 64_000  # a second of PCM, 48,000 bytes, in base64


def test_a_spoken_answer_without_usage_is_estimated_by_its_length_and_its_transcript() -> None:
    meter = OpenAIStreamMeter(strip_usage=True)
    meter.observe(delta(role="assistant", audio={"id": "audio_1", "transcript": "Hi th"}))
    for _ in range(3):
        meter.observe(delta(audio={"data": SECOND[:16_000]}))
    meter.observe(delta(audio={"transcript": "ere!"}))

    usage = meter.final_usage(estimated_input_tokens=7)

    # A token for each 50 ms of three quarters of a second, and nine characters.
    assert usage == Usage(input=7, output=3, audio_out=15, source="estimated")


def test_the_usage_of_a_spoken_answer_counts_its_audio_as_audio() -> None:
    details = {"audio_tokens": 30, "text_tokens": 12, "reasoning_tokens": 0}
    usage = {"prompt_tokens": 10, "completion_tokens": 42, "total_tokens": 52}
    meter = OpenAIStreamMeter(strip_usage=True)
    meter.observe(delta(audio={"data": SECOND}))
    meter.observe(event(choices=[], usage={**usage, "completion_tokens_details": details}))

    assert meter.final_usage(estimated_input_tokens=7) == Usage(
        input=10, output=12, audio_out=30, source="reported"
    )
