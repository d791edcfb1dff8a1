"""Streams from provider to client: at once, never falsely complete, bounded, charged exactly.

Over 400 lines because all that can happen to a stream is seen by the same readers of raw bytes.
"""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

import orjson
import psutil
import pytest

from apps.api_keys.models import APIKey
from tests.e2e.answers import ask
from tests.e2e.raw_upstream import RawUpstream, respond
from tests.e2e.wire import (
    LAST_CHUNK,
    RawConnection,
    body_of,
    events_of,
    head_of,
    open_stream,
    post,
    text_of,
)
from tests.support.bench import INPUT_NANOS, OUTPUT_NANOS, Bench, Stage
from tests.support.gateway import FAST
from tests.support.processes import wait_until
from tests.support.prometheus import parse

# What comes over the wire, and what it costs, is judged before any database is asked.
# Of its own: its memory is measured, and its streams may bring less (256 MiB otherwise).
STREAM_BYTES_MAX = 8 << 20
CONSTANTS = {**FAST, "apps.proxy.call:STREAM_BYTES_MAX": STREAM_BYTES_MAX}
# Else hundreds of slow readers are sent a gigabyte before anything waits in the gateway.
PLANT = ["tests.e2e.planted:shrink_send_buffers"]
pytestmark = [pytest.mark.usefixtures("counting"), pytest.mark.sqlite]

CHARGE = 10 * INPUT_NANOS + 16 * OUTPUT_NANOS
# What the interpreter, the allocator and the pools take once is there with the first of them.
FIRST_READERS, READERS = 20, 80
# Beyond what a stream takes for which nothing waits: READ_BYTES on their way to the client,
# BEHIND_BYTES and a reading more read meanwhile, WRITE_BUFFER_BYTES and a piece before its socket.
BYTES_BEHIND_MAX = 64 << 10


def estimate(output_tokens: int) -> int:
    """Return the charge where no usage came.

    "Say something." is three tokens, its role one, a message three, and three begin the answer.
    """
    return 10 * INPUT_NANOS + output_tokens * OUTPUT_NANOS


def suspect_usages(bench: Bench) -> float:
    """Return how many calls the provider of the tests told untrue numbers of."""
    samples = parse(ask(bench.gateway, "GET", "/metrics").body.decode())[1]
    return samples.get(f'gateway_suspect_usages_total{{provider="{bench.provider.pk}"}}', 0)


def test_each_event_arrives_before_the_next_one_is_sent(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10,tokens=3,pace=0.2")
    sent_when_seen = []

    with open_stream(stage) as connection:
        for text in (b'"role"', b'"This"', b'" answer"', b'" costs"'):
            connection.read_until(text)
            (call,) = bench.demo.calls(stage.upstream_name)
            sent_when_seen.append(call["events_sent"])
        received = connection.read_until(LAST_CHUNK)

    # Fewer where it was seen before the provider had noted that it was sent.
    assert all(sent <= seen for seen, sent in enumerate(sent_when_seen, start=1))
    assert events_of(received)[-1] == "[DONE]"
    assert stage.settled().charges == (10 * INPUT_NANOS + 3 * OUTPUT_NANOS,)


# The tokens of the text that was delivered.
BROKEN = {
    "cut_after(4)": ("This answer costs", 3),
    "rst_after(4)": ("This answer costs", 3),
    "half_close(4)": ("This answer costs", 3),
    "no_finish(4)": ("This answer costs", 3),
    "err_event_mid(4)": ("This answer costs", 3),
    "stall_after(4)": ("This answer costs", 3),
    "cut_in_char": ("This", 1),
    "cut_in_char(clean)": ("This", 1),
    "cut_in_line": ("This", 1),
    "cut_in_line(clean)": ("This", 1),
    "cut_in_usage": ("This answer costs", 3),
    "cut_in_usage(clean)": ("This answer costs", 3),
}


@pytest.mark.parametrize("fault", BROKEN)
def test_a_broken_stream_never_looks_finished_and_costs_what_was_delivered(
    bench: Bench, fault: str
) -> None:
    text, tokens = BROKEN[fault]
    provider = bench.make_provider(idle_timeout_seconds=0.4)
    length = 3 if fault.startswith("cut_in_usage") else 16
    stage = bench.stage(f"demo-chat:tokens={length},pace=0.02,fault={fault}", provider=provider)

    with open_stream(stage) as connection:
        received = connection.read_all()

    status, headers = head_of(received)
    events = events_of(received)
    assert (status, headers.get("connection")) == (200, None)
    assert not received.endswith(LAST_CHUNK)
    assert events[-1]["error"]["code"] == "upstream_interrupted"
    assert text_of(events) == text
    statement = stage.settled()
    assert statement.states == ("upstream_interrupted",)
    assert statement.rows[0].usage_source == "estimated"
    assert statement.charges == (estimate(tokens),)
    assert statement.entries == (("charge", -statement.charges[0]),)
    assert len(stage.upstream_calls) == 1


@pytest.mark.parametrize(
    "fault",
    ["status(500)", "err_event_first", "cut_after(0)", "stall_after(0)", "html", "redirect"],
)
@pytest.mark.parametrize("stream", [True, False])
def test_a_failure_before_the_first_event_leads_to_the_next_route_unseen(
    bench: Bench, fault: str, stream: bool
) -> None:
    provider = bench.make_provider(first_byte_timeout_seconds=0.4, idle_timeout_seconds=0.4)
    second = "demo-chat-second:prompt=10"
    stage = bench.stage(f"demo-chat:fault={fault}", provider=provider, fallbacks=[(second, None)])

    answer: Any = stage.client(max_retries=0).chat.completions.create(**stage.body(stream=stream))
    text = (
        "".join(chunk.choices[0].delta.content or "" for chunk in answer)
        if stream
        else answer.choices[0].message.content
    )

    assert text.startswith("This answer costs nothing")
    statement = stage.settled()
    assert statement.charges == (CHARGE,)
    assert statement.states == ("completed",)
    assert statement.rows[0].upstream_model == second
    assert statement.rows[0].attempt_count == 2
    assert [attempt.upstream_model for attempt in statement.attempts] == [
        stage.upstream_name,
        second,
    ]
    assert statement.attempts[1].outcome == "answered"
    assert statement.attempts[0].outcome.startswith("upstream_")
    assert len(stage.upstream_calls) == 1


def test_a_provider_that_closes_idle_connections_is_asked_once_more(bench: Bench) -> None:
    stage = bench.stage(
        "demo-chat:fault=cut_after(-1)", fallbacks=[("demo-chat-b:prompt=10", None)]
    )

    stage.client(max_retries=0).chat.completions.create(**stage.body())

    statement = stage.settled()
    assert [attempt.number for attempt in statement.attempts] == [1, 2, 3]
    assert len(stage.upstream_calls) == 2
    assert statement.charges == (CHARGE,)


def test_slow_readers_cost_the_gateway_little_memory_and_pause_the_provider(bench: Bench) -> None:
    endless = bench.stage("demo-chat:fault=never_end")
    silent = bench.stage("demo-chat:fault=stall_after(3)")
    for stage in (endless, silent):
        APIKey.objects.filter(pk=stage.caller.key.pk).update(payload_mode="off")
    time.sleep(0.2)
    gateway = psutil.Process(bench.gateway.process.pid)
    with ExitStack() as stack:

        def measure_with(stage: Stage, count: int) -> int:
            """Open so many connections and return what the gateway takes when all wait."""
            readers = [
                stack.enter_context(
                    RawConnection(bench.gateway.port, receive_buffer=4096, wait_seconds=60)
                )
                for _ in range(count)
            ]
            for reader in readers:
                reader.send(post(stage.caller, stage.body(stream=True, max_tokens=100)))
            for reader in readers:
                reader.read_until(b"data: ")
            _wait_until_paused(stage)
            taken: int = gateway.memory_info().rss
            return taken

        few = measure_with(endless, FIRST_READERS)
        idle = measure_with(silent, READERS)
        slow = measure_with(endless, READERS)

    assert (slow - idle) - (idle - few) < BYTES_BEHIND_MAX * READERS
    statement = endless.settled(FIRST_READERS + READERS)
    assert set(statement.states) == {"client_disconnected"}
    # An estimate never exceeds the hold, however much the provider went on writing.
    assert all(0 < row.charge_nanos <= row.hold_nanos for row in statement.rows)
    assert {call["ended"] for call in endless.upstream_calls} == {"client_closed"}


def test_a_client_that_takes_nothing_any_more_is_dropped(bench: Bench) -> None:
    provider = bench.make_provider(idle_timeout_seconds=0.4)
    stage = bench.stage("demo-chat:fault=never_end", provider=provider)

    with RawConnection(bench.gateway.port, receive_buffer=4096) as connection:
        # Fewer tokens than the smallest buffers on the way hold.
        connection.send(post(stage.caller, stage.body(stream=True, max_tokens=40)))
        connection.read_until(b"more")
        statement = stage.settled()
        received = connection.read_all()

    assert statement.states == ("client_disconnected",)
    assert statement.charges == (statement.rows[0].hold_nanos,)
    assert not received.endswith(LAST_CHUNK)
    assert [call["ended"] for call in stage.upstream_calls] == ["client_closed"]


def test_a_stream_that_brings_too_much_is_ended_and_costs_what_was_delivered(bench: Bench) -> None:
    stage = bench.stage("demo-chat:fault=never_end")

    with open_stream(stage, max_tokens=100) as connection:
        received = connection.read_all()

    assert len(received) > STREAM_BYTES_MAX
    assert events_of(received)[-1]["error"]["code"] == "stream_limit_exceeded"
    assert not received.endswith(LAST_CHUNK)
    statement = stage.settled()
    assert statement.states == ("limit_exceeded",)
    # An estimate never exceeds the hold.
    assert statement.charges == (statement.rows[0].hold_nanos,)
    assert statement.rows[0].output_bytes > STREAM_BYTES_MAX
    assert [call["ended"] for call in stage.upstream_calls] == ["client_closed"]


def test_answers_of_any_size_reach_a_slow_reader_whole(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10,tokens=16,fault=big_body(3000000)")

    with RawConnection(bench.gateway.port, receive_buffer=4096) as connection:
        connection.send(post(stage.caller, stage.body()))
        connection.read_until(b"\r\n\r\n")
        stage.settled()
        received = connection.read_until(b'"usage":')

    assert len(received) > 2_900_000
    assert stage.settled().charges == (CHARGE,)


def _wait_until_paused(stage: Stage) -> None:
    """Return when the provider has not been able to send anything for a while."""
    seen = [-1]

    def is_paused() -> bool:
        sent = sum(call["bytes_sent"] for call in stage.bench.demo.calls(stage.upstream_name))
        has_stopped, seen[0] = sent == seen[0], sent
        time.sleep(0.2)
        return has_stopped

    # They write as fast as they can until all buffers are full.
    wait_until(is_paused, timeout_seconds=90, what="the pause of the provider")


def _stream(stage: Stage, **values: Any) -> list[Any]:
    with open_stream(stage, **values) as connection:
        return events_of(connection.read_until(LAST_CHUNK))


@pytest.mark.parametrize(
    "fault",
    [
        "usage_twice",
        "usage_after_finish",
        "json_for_stream",
        "no_done",
        "end_twice",
        "unknown_event",
    ],
)
def test_usage_in_unusual_places_is_charged_exactly(bench: Bench, fault: str) -> None:
    stage = bench.stage(f"demo-chat:prompt=10,fault={fault}")

    events = _stream(stage)

    assert events[-1] == "[DONE]"
    assert text_of(events).startswith("This answer costs")
    statement = stage.settled()
    assert statement.states == ("completed",)
    assert statement.rows[0].usage_source == "reported"
    assert statement.charges == (CHARGE,)


@pytest.mark.parametrize(("finished", "is_whole"), [((0,), False), ((0, 0), False), ((1, 0), True)])
def test_a_stream_of_two_choices_is_not_whole_before_both_have_ended(
    bench: Bench, finished: tuple[int, ...], is_whole: bool
) -> None:
    events = [
        orjson.dumps({"choices": [{"index": index, "delta": {"content": "a"}}]}) for index in (0, 1)
    ] + [
        orjson.dumps({"choices": [{"index": index, "delta": {}, "finish_reason": "stop"}]})
        for index in finished
    ]
    body = b"".join(b"data: %b\n\n" % event for event in events)
    with RawUpstream(lambda _: [respond(body, kind="text/event-stream")]) as upstream:
        stage = bench.stage("raw", provider=bench.make_provider(upstream.base_url))

        with open_stream(stage, n=2) as connection:
            received = connection.read_all() if not is_whole else connection.read_until(LAST_CHUNK)

    last = events_of(received)[-1]
    assert (last == "[DONE]", received.endswith(LAST_CHUNK)) == (is_whole, is_whole)
    if not is_whole:
        assert last["error"]["code"] == "upstream_interrupted"
    statement = stage.settled()
    assert statement.states == ("completed" if is_whole else "upstream_interrupted",)
    assert statement.charges == (14_000,)


@pytest.mark.parametrize("fault", ["no_usage", "usage_after_finish(done)"])
def test_without_usage_the_text_is_estimated(bench: Bench, fault: str) -> None:
    stage = bench.stage(f"demo-chat:tokens=3,fault={fault}")

    events = _stream(stage)

    assert events[-1] == "[DONE]"
    statement = stage.settled()
    assert statement.rows[0].usage_source == "estimated"
    assert statement.charges == (estimate(3),)


def test_late_content_after_the_end_is_neither_shown_nor_charged(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10,fault=late_after_done(100)")

    events = _stream(stage)

    assert "late" not in text_of(events)
    assert stage.settled().charges == (CHARGE,)


ABSURD = ["-600", '"2147483647"', "1.5", "null", "true", "object", "missing"]


@pytest.mark.parametrize("value", ABSURD)
@pytest.mark.parametrize("stream", [True, False])
def test_usage_that_holds_no_count_is_replaced_by_an_estimate(
    bench: Bench, value: str, stream: bool
) -> None:
    stage = bench.stage(f"demo-chat:tokens=3,fault=bad_usage({value})")

    answer: Any = stage.client(max_retries=0).chat.completions.create(**stage.body(stream=stream))
    list(answer)

    statement = stage.settled()
    assert statement.rows[0].usage_source == "estimated"
    assert statement.rows[0].is_usage_suspect
    assert statement.charges == (estimate(3),)
    assert statement.entries == (("charge", -statement.charges[0]),)


@pytest.mark.parametrize("stream", [True, False])
def test_more_tokens_than_any_model_has_cost_the_hold_and_no_more(
    bench: Bench, stream: bool
) -> None:
    stage = bench.stage("demo-chat:tokens=3,fault=bad_usage(9223372036854775807)")

    answer: Any = stage.client(max_retries=0).chat.completions.create(
        **stage.body(stream=stream, max_tokens=16)
    )
    list(answer)

    statement = stage.settled()
    assert statement.rows[0].is_usage_suspect
    assert statement.charges == (statement.rows[0].hold_nanos,)
    assert statement.charges[0] < 1_000_000
    assert (statement.held_nanos, statement.owed_nanos) == (0, 0)


@pytest.mark.parametrize("stream", [True, False])
def test_many_times_the_tokens_of_the_text_cost_the_hold_and_are_counted(
    bench: Bench, stream: bool
) -> None:
    stage = bench.stage("demo-chat:prompt=10,tokens=16,fault=inflated_usage(1000)")
    before = suspect_usages(bench)

    answer: Any = stage.client(max_retries=0).chat.completions.create(
        **stage.body(stream=stream, max_tokens=16)
    )
    list(answer)

    statement = stage.settled()
    row = statement.rows[0]
    assert (row.input_tokens, row.output_tokens) == (10, 16_000)
    assert (row.usage_source, row.is_usage_suspect) == ("reported", True)
    assert statement.charges == (row.hold_nanos,)
    assert statement.charges[0] < 10 * INPUT_NANOS + 16_000 * OUTPUT_NANOS
    assert (statement.held_nanos, statement.owed_nanos) == (0, 0)
    assert suspect_usages(bench) - before == 1


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    "upstream",
    [
        "demo-chat:prompt=10,tokens=4,reasoning=1,fault=inflated_usage(1000000)",
        "demo-chat:prompt=9999000,tokens=3",
    ],
)
def test_what_nobody_can_have_asked_for_costs_the_hold_and_is_counted(
    bench: Bench, upstream: str, stream: bool
) -> None:
    stage = bench.stage(upstream)
    before = suspect_usages(bench)

    answer: Any = stage.client(max_retries=0).chat.completions.create(
        **stage.body(stream=stream, max_tokens=5)
    )
    list(answer)

    statement = stage.settled()
    row = statement.rows[0]
    assert row.input_tokens + row.output_tokens + row.reasoning_tokens > 3_000_000
    assert (row.usage_source, row.is_usage_suspect) == ("reported", True)
    assert statement.charges == (row.hold_nanos,)
    assert (statement.held_nanos, statement.owed_nanos) == (0, 0)
    assert suspect_usages(bench) - before == 1


@pytest.mark.parametrize("stream", [True, False])
def test_what_was_written_is_believed_though_nothing_thought_is_told(
    bench: Bench, stream: bool
) -> None:
    stage = bench.stage("demo-chat:prompt=10,tokens=16,fault=inflated_usage(8)")

    answer: Any = stage.client(max_retries=0).chat.completions.create(
        **stage.body(stream=stream, max_tokens=16)
    )
    list(answer)

    statement = stage.settled()
    assert not statement.rows[0].is_usage_suspect
    assert statement.charges == (10 * INPUT_NANOS + 128 * OUTPUT_NANOS,)


def test_a_credible_usage_above_the_hold_is_charged_in_full(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=5000,tokens=3")

    stage.client().chat.completions.create(**stage.body(max_tokens=16))

    statement = stage.settled()
    hold = statement.rows[0].hold_nanos
    charge = 5000 * INPUT_NANOS + 3 * OUTPUT_NANOS
    assert hold < charge
    assert statement.charges == (charge,)
    assert statement.entries == (("charge", -hold), ("excess", hold - charge))
    assert statement.posted_nanos + statement.held_nanos - statement.owed_nanos == (
        10_000_000_000 - charge
    )


def test_a_number_that_is_not_json_ends_the_stream_as_a_failure(bench: Bench) -> None:
    stage = bench.stage("demo-chat:tokens=3,pace=0.02,fault=bad_usage(NaN)")

    with open_stream(stage) as connection:
        received = connection.read_all()

    assert events_of(received)[-1]["error"]["code"] == "upstream_interrupted"
    assert not received.endswith(LAST_CHUNK)
    assert stage.settled().charges == (estimate(3),)


def test_a_client_that_does_not_know_chunks_gets_whole_answers_and_no_streams(
    bench: Bench,
) -> None:
    stage = bench.stage("demo-chat:prompt=10,tokens=2")
    answers = []

    for is_stream in (True, False):
        with RawConnection(bench.gateway.port) as connection:
            request = post(stage.caller, stage.body(stream=is_stream))
            connection.send(request.replace(b"HTTP/1.1", b"HTTP/1.0", 1))
            answers.append(connection.read_all())

    (refused, whole) = [head_of(answer) for answer in answers]
    assert (refused[0], whole[0]) == (400, 200)
    assert orjson.loads(body_of(answers[0]))["error"]["param"] == "stream"
    assert "transfer-encoding" not in whole[1]
    assert stage.settled().states == ("completed",)
