"""What holds for the clients of every dialect, whichever their provider speaks."""

from __future__ import annotations

import time
from typing import Final

import pytest

from tests.e2e.answers import HttpAnswer, Told, check_broken_off, check_told
from tests.e2e.dialects import SURFACES, Stages, Surface
from tests.e2e.faults import LOCKED_SECONDS, nothing_commits
from tests.e2e.rows import INVALID
from tests.e2e.sdks import anthropic_of, google_of
from tests.e2e.wire import RawConnection, body_of, head_of
from tests.support.bench import INPUT_NANOS, OUTPUT_NANOS, Bench, Stage
from tests.support.processes import wait_until

# What comes over the wire depends on no engine.
pytestmark = pytest.mark.sqlite


CACHE_PRICES: Final = {
    "input": 1_000_000_000,
    "cache_read": 100_000_000,
    "cache_write_5m": 1_250_000_000,
    "cache_write_1h": 2_000_000_000,
    "output": 4_000_000_000,
}


@pytest.fixture(params=SURFACES)
def surface(request: pytest.FixtureRequest) -> Surface:
    """A client of each dialect in turn."""
    return SURFACES[request.param]


def test_the_end_of_a_stream_waits_for_its_charge(stages: Stages, surface: Surface) -> None:
    stage = stages.make("prompt=10,tokens=5,latency=0.3")

    with RawConnection(stage.bench.gateway.port) as connection:
        connection.send(surface.request(stage))
        wait_until(
            lambda: bool(stage.bench.demo.calls(stage.upstream_name)),
            timeout_seconds=5,
            what="the provider's call",
        )
        with nothing_commits(stage):
            calls = stage.upstream_calls
            time.sleep(LOCKED_SECONDS)
            received = connection.read_what_came()
        connection.read_until(surface.end)

    assert [call["ended"] for call in calls] == ["done"]
    assert b"data: " in received
    assert surface.end not in received
    assert stage.settled().charges == (10 * INPUT_NANOS + 5 * OUTPUT_NANOS,)


def test_who_leaves_a_stream_pays_for_what_was_delivered(stages: Stages, surface: Surface) -> None:
    stage = stages.make("prompt=10,tokens=150,pace=0.02")

    with RawConnection(stage.bench.gateway.port) as connection:
        connection.send(surface.request(stage))
        while connection.received.count(b"data: ") < 30:
            assert connection.read_more()

    (row,) = stage.settled().rows
    assert row.state == "client_disconnected"
    (call,) = stage.upstream_calls
    assert call["ended"] == "client_closed"
    # Google tells with every piece what it has come to.
    assert row.usage_source == ("reported" if stages.dialect == "gemini" else "estimated")
    # The demo's words are about a token each.
    assert 10 * OUTPUT_NANOS < row.charge_nanos < 150 * OUTPUT_NANOS


def test_a_whole_answer_and_a_stream_cost_the_same(stages: Stages, surface: Surface) -> None:
    stage = stages.make("prompt=10,tokens=12")

    for is_stream in (False, True):
        with RawConnection(stage.bench.gateway.port) as connection:
            connection.send(surface.request(stage, is_stream=is_stream))
            connection.read_until(surface.end if is_stream else b"}")
        stage.settled(1 + is_stream)

    assert stage.settled(2).charges == (58_000, 58_000)


def test_what_was_written_to_a_cache_is_told_with_its_lifetime_but_by_google(bench: Bench) -> None:
    stage = Stages(bench, "anthropic").make(
        "prompt=20,cached=4,cache_write_5m=5,cache_write_1h=3,tokens=8", prices=CACHE_PRICES
    )
    name = stage.model.name

    with stage.client() as openai, anthropic_of(stage) as anthropic, google_of(stage) as google:
        chat = openai.chat.completions.create(
            model=name, messages=[{"role": "user", "content": "Hi"}]
        )
        response = openai.responses.create(model=name, input="Hi")
        message = anthropic.messages.create(
            model=name, max_tokens=100, messages=[{"role": "user", "content": "Hi"}]
        )
        googles = google.models.generate_content(model=name, contents="Hi").usage_metadata

    for told in (chat.usage, response.usage):
        assert told is not None
        usage = told.model_dump()
        inputs = usage.get("prompt_tokens_details") or usage["input_tokens_details"]
        lifetimes = inputs["cache_creation_token_details"]
        assert usage.get("prompt_tokens", usage.get("input_tokens")) == 20
        assert (inputs["cached_tokens"], inputs["cache_write_tokens"]) == (4, 8)
        assert lifetimes == {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": 3}
    lasting = message.usage.cache_creation
    assert lasting is not None
    assert (message.usage.input_tokens, message.usage.cache_read_input_tokens) == (8, 4)
    assert (lasting.ephemeral_5m_input_tokens, lasting.ephemeral_1h_input_tokens) == (5, 3)
    # Google has no word for it: it is part of the prompt.
    assert googles is not None
    assert (googles.prompt_token_count, googles.cached_content_token_count) == (20, 4)
    charge = 8 * 1_000 + 4 * 100 + 5 * 1_250 + 3 * 2_000 + 8 * 4_000
    assert stage.settled(4).charges == (charge,) * 4


# ---- streams that fail, and such as are none


def _stream(stage: Stage, surface: Surface) -> bytes:
    """Return all that comes before the gateway closes, or an answer with a length."""
    with RawConnection(stage.bench.gateway.port) as connection:
        connection.send(surface.request(stage))
        head, _, rest = connection.read_until(b"\r\n\r\n").partition(b"\r\n\r\n")
        length = head_of(head)[1].get("content-length")
        if length is None:
            return connection.read_all()
        while len(rest) < int(length):  # bounded by the socket's timeout
            assert connection.read_more()
            rest = connection.received.partition(b"\r\n\r\n")[2]
        return connection.received


def test_e50_an_answer_that_is_no_stream_becomes_one(stages: Stages, surface: Surface) -> None:
    stage = stages.make("prompt=10,tokens=12,fault=json_for_stream")

    with RawConnection(stage.bench.gateway.port) as connection:
        connection.send(surface.request(stage))
        connection.read_until(surface.end)
        received = connection.read_until(b"\r\n0\r\n\r\n")

    status, headers = head_of(received)
    body = body_of(received)
    assert (status, headers["content-type"]) == (200, "text/event-stream; charset=utf-8")
    assert body.count(surface.end) == 1
    assert b"This" in body
    assert b'"error":{' not in body
    assert stage.settled().charges == (10 * INPUT_NANOS + 12 * OUTPUT_NANOS,)


def test_e40_a_parameter_is_named_only_to_who_sent_it_by_that_name(stages: Stages) -> None:
    stage = stages.make("fault=status(400)")

    answers = {dialect: _stream(stage, surface) for dialect, surface in SURFACES.items()}

    is_openai = stages.dialect.startswith("openai")
    code = "invalid_value" if is_openai else "invalid_request"
    told = Told(400, INVALID, code, INVALID, "INVALID_ARGUMENT")
    for dialect, received in answers.items():
        answer = HttpAnswer(*head_of(received), body_of(received))
        # In another dialect the parameter has another name, or is made of several.
        is_own = is_openai and dialect == stages.dialect
        check_told(answer, told, dialect, param="messages" if is_own else None)
    assert stage.settled(4).charges == (0,) * 4


def test_e53_an_error_as_the_first_event_is_told_before_the_stream(stages: Stages) -> None:
    stage = stages.make("fault=err_event_first")

    answers = {dialect: _stream(stage, surface) for dialect, surface in SURFACES.items()}

    told = Told(503, "server_error", "upstream_error", "529 overloaded_error", "UNAVAILABLE")
    if stages.dialect == "gemini":
        # Google's error stands amid the events and is none: E49.
        told = Told(502, "server_error", "upstream_invalid_response", "api_error", "UNAVAILABLE")
    for dialect, received in answers.items():
        answer = HttpAnswer(*head_of(received), body_of(received))
        check_told(answer, told, dialect, retries=True, has_retry_after=True)
    assert stage.settled(4).charges == (0,) * 4


@pytest.mark.parametrize("fault", ["cut_after(8)", "err_event_mid(8)"])
def test_e60_what_breaks_off_in_the_middle_is_told_there(stages: Stages, fault: str) -> None:
    stage = stages.make(f"prompt=10,tokens=20,pace=0.02,fault={fault}")

    answers = {dialect: _stream(stage, surface) for dialect, surface in SURFACES.items()}

    told = Told(200, "server_error", "upstream_interrupted", "api_error", "503 UNAVAILABLE")
    for dialect, received in answers.items():
        check_broken_off(received, told, dialect, is_converted=dialect != stages.dialect)
    statement = stage.settled(4)
    assert statement.states == ("upstream_interrupted",) * 4
    assert all(0 < row.charge_nanos <= row.hold_nanos for row in statement.rows)


def test_e61_what_takes_too_long_is_ended_in_the_middle(stages: Stages) -> None:
    provider = stages.make_provider(total_timeout_seconds=0.5)
    stage = stages.bench.stage("demo-chat:pace=0.02,fault=never_end", provider=provider)

    answers = {dialect: _stream(stage, surface) for dialect, surface in SURFACES.items()}

    told = Told(200, "server_error", "stream_limit_exceeded", "api_error", "501 INTERNAL")
    for dialect, received in answers.items():
        check_broken_off(received, told, dialect, is_converted=dialect != stages.dialect)
    statement = stage.settled(4)
    assert statement.states == ("limit_exceeded",) * 4
    assert all(0 < row.charge_nanos <= row.hold_nanos for row in statement.rows)
    assert [call["ended"] for call in stage.upstream_calls] == ["client_closed"] * 4
