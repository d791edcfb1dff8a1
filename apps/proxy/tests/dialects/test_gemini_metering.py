"""What streams and whole answers of Google's dialect cost, and what of a stream goes on when."""

from typing import Any, Final

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.core.errors import GatewayError
from apps.core.usage import Usage
from apps.proxy.dialects.gemini_array import GeminiArray
from apps.proxy.dialects.gemini_metering import read_metered_answer
from apps.proxy.dialects.gemini_stream import GeminiStreamMeter
from apps.proxy.sse import EventBuffer
from apps.proxy.tests.dialects.events import event
from apps.proxy.tests.dialects.gemini_kit import LAST, MORE, TEXT, response, usage
from apps.proxy.tests.dialects.golden_cells import REPLY
from apps.proxy.tests.dialects.junk import EVENT_JUNK

LINE_ENDS: Final = (b"\n", b"\r\n", b"\r")


STREAM: Final = TEXT + MORE + LAST
REPORTED: Final = Usage(input=10, output=5, source="reported")


def metered(*chunks: bytes) -> tuple[GeminiStreamMeter, bytes]:
    """Return the meter of a stream that came in these chunks, and what went on."""
    meter, buffer = GeminiStreamMeter(), EventBuffer()
    return meter, b"".join(meter.observe(buffer.feed(chunk)) for chunk in chunks)


def final(meter: GeminiStreamMeter) -> Usage:
    return meter.final_usage(estimated_input_tokens=99)


def test_the_last_event_waits_for_the_end() -> None:
    meter = GeminiStreamMeter()

    assert meter.observe(TEXT) == TEXT
    assert meter.observe(MORE) == MORE
    assert not meter.is_whole(1)
    assert meter.observe(LAST) == b""
    assert meter.last_frame == LAST
    assert meter.is_whole(1)
    assert meter.error is None
    assert (meter.finish_reason, meter.upstream_model, meter.upstream_id) == (
        "STOP",
        "gemini-1",
        "resp-1",
    )
    assert final(meter) == REPORTED


@pytest.mark.parametrize("line_end", LINE_ENDS)
def test_a_stream_is_metered_alike_at_every_split(line_end: bytes) -> None:
    raw = STREAM.replace(b"\n", line_end)
    for cut in range(len(raw) + 1):
        meter, gone = metered(raw[:cut], raw[cut:])

        assert gone + meter.last_frame == raw
        # With CR LF the last LF may still be under way.
        assert meter.last_frame.strip() == LAST.strip()
        assert (final(meter), meter.is_whole(1), meter.events) == (REPORTED, True, 3)


def test_an_answer_in_one_event_begins_and_waits() -> None:
    whole = event(response({"text": "Hi"}, reason="STOP", usageMetadata=usage(3, 1)))
    meter = GeminiStreamMeter()

    assert meter.observe(whole) == b""
    assert meter.begins_an_answer(b"") is True
    assert meter.last_frame == whole
    assert final(meter) == Usage(input=3, output=1, source="reported")


def test_a_reason_in_every_event_holds_back_one_event_at_a_time() -> None:
    events = [event(response({"text": text}, reason="STOP")) for text in ("a", "b", "c")]
    meter = GeminiStreamMeter()

    gone = [meter.observe(told) for told in events]

    assert gone == [b"", events[0], events[1]]
    assert meter.last_frame == events[2]


def test_what_follows_the_reason_counts_and_waits_too() -> None:
    late = event({"usageMetadata": usage(10, 7)})
    meter, gone = metered(TEXT, LAST, late, b": bye\n\n")

    assert gone == TEXT + LAST
    assert meter.last_frame == late + b": bye\n\n"
    assert final(meter) == Usage(input=10, output=7, source="reported")


def test_no_usage_is_read_before_it_is_asked_for() -> None:
    meter, _ = metered(TEXT, MORE)

    assert meter._known_usage is None
    assert meter.usage == Usage(input=10, output=4, source="reported")
    assert meter.usage == Usage(input=10, output=4, source="reported")


@pytest.mark.parametrize("blocks", [(TEXT, MORE), (TEXT + MORE,)], ids=["apart", "at once"])
def test_a_stream_that_breaks_off_costs_what_was_reported_last(blocks: tuple[bytes, ...]) -> None:
    meter, gone = metered(*blocks)

    assert gone == TEXT + MORE
    assert not meter.is_whole(1)
    assert final(meter) == Usage(input=10, output=4, source="reported")


def test_events_without_a_usage_do_not_hide_the_one_before() -> None:
    none = event(response({"text": "!"}, usageMetadata=None))

    meter, _ = metered(TEXT, MORE, none)

    assert meter.usage == Usage(input=10, output=4, source="reported")


def test_a_client_cannot_outrun_the_usage() -> None:
    early = event(response({"text": "a"}, usageMetadata=usage(10, 1)))
    much = event(response({"text": "many words " * 400}))

    meter, _ = metered(early, much)

    assert final(meter) == Usage(input=10, output=1101, source="estimated")


def test_without_a_usage_texts_and_calls_are_counted() -> None:
    call = {"functionCall": {"name": "weather", "args": {"city": "Paris"}}}
    meter, _ = metered(event(response({"text": "12345678"}, call)), event(response(reason="STOP")))

    # weather{"city":"Paris"} has 23 characters.
    assert meter.saw_content
    assert final(meter) == Usage(input=99, output=8, source="estimated")
    assert sorted(part.text for part in meter.excerpts()) == ["12345678", 'weather{"city":"Paris"}']


def test_a_call_alone_is_content() -> None:
    meter, _ = metered(event(response({"functionCall": {"name": "now"}})))

    assert meter.saw_content
    assert meter.estimated_output_tokens() == 2


def test_keys_within_texts_and_arguments_mean_nothing() -> None:
    text = '"finishReason":"STOP" "usageMetadata":{"promptTokenCount":1} "error":{}'
    call = {"functionCall": {"name": "a", "args": {"error": "x", "finishReason": "STOP"}}}
    told = event(response({"text": text}, usageMetadata=usage(10, 2)))
    called = event(response(call))

    meter, gone = metered(told, called)

    assert gone == told + called
    assert (meter.error, meter.finish_reason) == (None, None)
    assert meter.usage == Usage(input=10, output=2, source="reported")


def test_a_declined_prompt_is_whole_and_costs_nothing() -> None:
    declined = event(
        {"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {"promptTokenCount": 10}}
    )
    meter = GeminiStreamMeter()

    assert meter.observe(declined) == b""
    assert meter.begins_an_answer(b"") is True
    assert (meter.is_whole(1), meter.finish_reason) == (True, "SAFETY")
    assert meter.last_frame == declined
    assert final(meter) == Usage(input=10)


def test_each_candidate_has_to_end() -> None:
    def ended(index: int) -> bytes:
        candidate = {"index": index, "finishReason": "STOP"}
        return event({"candidates": [candidate], "usageMetadata": usage(3, 2)})

    meter, gone = metered(ended(0))
    assert not meter.is_whole(2)

    gone = meter.observe(ended(1))

    assert gone == ended(0)
    assert meter.is_whole(2)


def test_an_error_ends_the_stream_and_is_not_passed_on() -> None:
    error = {"error": {"code": 503, "message": "AIza-secret", "status": "UNAVAILABLE"}}
    meter, gone = metered(TEXT, event(error), MORE)

    assert gone == TEXT
    assert meter.error is not None
    assert (meter.error.row, meter.upstream_error_code) == ("E60", "service_unavailable")
    assert final(meter) == Usage(input=10, output=2, source="reported")


def test_an_error_behind_the_reason_lets_the_text_go() -> None:
    whole = event(response({"text": "Hi"}, reason="STOP"))
    meter, gone = metered(whole, event({"error": {"code": 500}}))

    assert gone == whole
    assert meter.error is not None
    assert meter.last_frame == b""


@pytest.mark.parametrize(
    ("first", "begins"),
    [
        (b": hello\n\n", None),
        (TEXT, True),
        (event({"usageMetadata": {"promptTokenCount": 1}}), True),
        (event({"choices": []}), False),
        (event([1]), False),
        (b"data: <html>\n\n", False),
    ],
)
def test_an_answer_begins_with_a_response(first: bytes, begins: bool | None) -> None:
    meter = GeminiStreamMeter()

    assert meter.begins_an_answer(meter.observe(first)) is begins


def test_images_and_sounds_are_seen() -> None:
    image = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}
    sound = {"inlineData": {"mimeType": "audio/L16;rate=24000", "data": "AAAA" * 16_000}}
    meter, _ = metered(event(response(image, image)), event(response(sound)))

    assert meter.saw_content
    told = final(meter)
    assert (told.image, told.audio_out, told.source) == (2, 20, "estimated")


@given(documents=st.lists(EVENT_JUNK, max_size=6))
def test_no_event_breaks_the_meter_or_gets_lost(documents: list[Any]) -> None:
    raw = TEXT + b"".join(map(event, documents))
    meter, gone = metered(*(raw[at : at + 7] for at in range(0, len(raw), 7)))

    told = final(meter)
    assert told.total_tokens >= 0
    if meter.error is None:
        assert gone + meter.last_frame == raw
    else:
        assert raw.startswith(gone)


def test_much_of_a_stream_is_not_kept() -> None:
    meter, size = GeminiStreamMeter(), 0
    for _ in range(2_000):
        size += len(meter.observe(MORE))

    kept = sum(map(len, meter._batch)) + len(meter._last_usage)
    assert size == 2_000 * len(MORE)
    assert kept < 40_000


# ---- whole answers


def read(document: Any) -> Any:
    return read_metered_answer("generateContent", orjson.dumps(document))


def test_a_whole_answer_costs_what_it_reports() -> None:
    thought = {"text": "Hm.", "thought": True}
    reported = usage(10, 5, thoughtsTokenCount=3, cachedContentTokenCount=4, totalTokenCount=18)
    told = response(thought, {"text": "Hi"}, reason="STOP", usageMetadata=reported)

    found = read(told)

    assert found.final_usage(estimated_input_tokens=99) == Usage(
        input=6, cache_read=4, output=5, reasoning=3, source="reported"
    )
    assert (found.finish_reason, found.choices, found.has_content) == ("STOP", 1, True)
    assert found.document == told


def test_a_whole_answer_without_usage_is_counted() -> None:
    call = {"functionCall": {"name": "weather", "args": {"city": "Paris"}}}
    found = read(response({"text": "12345678"}, call, reason="STOP"))

    assert found.final_usage(estimated_input_tokens=9) == Usage(
        input=9, output=8, source="estimated"
    )


def test_parts_that_nobody_knows_pass() -> None:
    found = read(response({"aPartOfTomorrow": {"x": 1}}, usageMetadata=usage(3, 2)))

    assert found.final_usage(estimated_input_tokens=9).total_tokens == 5


def test_a_prompt_that_was_declined_is_an_answer_without_a_charge() -> None:
    found = read({"promptFeedback": {"blockReason": "OTHER"}, "usageMetadata": usage(10, 0)})

    assert found.finish_reason == "OTHER"
    assert found.final_usage(estimated_input_tokens=9) == Usage(input=10)


def test_images_of_an_answer_are_counted() -> None:
    image = {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}

    found = read(response(image, usageMetadata=usage(3, 1290)))

    assert found.final_usage(estimated_input_tokens=9) == Usage(
        input=3, output=1290, image=1, source="reported"
    )


@pytest.mark.parametrize(
    "document",
    [
        {},
        [],
        {"candidates": []},
        {"candidates": 1},
        {"candidates": [1]},
        {"candidates": [{"content": []}]},
        {"candidates": [{"content": {"parts": 1}}]},
        {"candidates": [{"content": {"parts": ["Hi"]}}]},
        {"promptFeedback": {}},
        {"error": {"code": 500}, "candidates": [{}]},
    ],
)
def test_what_is_no_answer_is_the_providers_fault(document: Any) -> None:
    with pytest.raises(GatewayError) as refusal:
        read(document)

    assert refusal.value.row == "E49"


@given(document=EVENT_JUNK)
def test_no_answer_breaks_the_reader(document: Any) -> None:
    row, told = "", Usage()
    try:
        told = read({"candidates": [document]}).final_usage(estimated_input_tokens=9)
    except GatewayError as error:
        row = error.row
    assert row in ("", "E49")
    assert told.total_tokens >= 0


# ---- as an array


def test_a_stream_becomes_an_array_without_being_read() -> None:
    array = GeminiArray(REPLY)

    written = array.convert(TEXT) + array.convert(b": hi\n\n" + MORE) + array.finish(LAST)

    assert orjson.loads(written) == [
        orjson.loads(told[len(b"data: ") :]) for told in (TEXT, MORE, LAST)
    ]
    assert written.startswith(b"[" + TEXT[len(b"data: ") : -2])


def test_an_empty_stream_is_an_empty_array() -> None:
    assert GeminiArray(REPLY).finish(b"") == b"[]"


def test_an_array_that_fails_does_not_seem_complete() -> None:
    array = GeminiArray(REPLY)

    written = array.convert(TEXT) + array.break_off(GatewayError("E60"))

    with pytest.raises(orjson.JSONDecodeError):
        orjson.loads(written)
    assert orjson.loads(written + b"]")[1]["error"]["status"] == "UNAVAILABLE"
