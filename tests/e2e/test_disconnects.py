"""Clients that leave: the provider is stopped at once, and what it produced is paid for."""

from __future__ import annotations

import socket
import time

import pytest

from apps.billing.models import Hold
from tests.e2e.faults import LockedAccounts
from tests.e2e.wire import RawConnection, open_stream, post
from tests.support.bench import INPUT_NANOS, OUTPUT_NANOS, Bench, Stage
from tests.support.processes import wait_until

pytestmark = pytest.mark.usefixtures("counting")

LEAVINGS = ("close", "reset")


def _leave(connection: RawConnection, how: str) -> float:
    left_at = time.time()
    connection.reset() if how == "reset" else connection.close()
    return left_at


def _wait_for_upstream(stage: Stage) -> None:
    wait_until(
        lambda: bool(stage.bench.demo.calls(stage.upstream_name)),
        timeout_seconds=5,
        what="the call at the provider",
    )


def _check_stopped(stage: Stage, left_at: float) -> None:
    """Check that the provider was told within a second, and was called once."""
    (call,) = stage.upstream_calls
    assert call["ended"] == "client_closed"
    assert call["client_closed_at"] is not None
    assert call["client_closed_at"] - left_at < 1.0


def _estimate(output_tokens: int) -> int:
    """Return the charge where no usage came: the input is ten tokens with its template."""
    return 10 * INPUT_NANOS + output_tokens * OUTPUT_NANOS


@pytest.mark.parametrize("how", LEAVINGS)
@pytest.mark.parametrize("stream", [True, False])
def test_leaving_before_the_provider_answered_costs_nothing(
    bench: Bench, how: str, stream: bool
) -> None:
    stage = bench.stage("demo-chat:latency=30")
    connection = RawConnection(bench.gateway.port)
    connection.send(post(stage.caller, stage.body(stream=stream)))
    _wait_for_upstream(stage)

    left_at = _leave(connection, how)

    statement = stage.settled()
    _check_stopped(stage, left_at)
    assert statement.states == ("client_disconnected",)
    assert (statement.rows[0].status_code, statement.rows[0].usage_source) == (499, "none")
    assert statement.charges == (0,)
    assert statement.entries == ()
    assert (statement.held_nanos, statement.holds) == (0, 0)


@pytest.mark.parametrize("how", LEAVINGS)
def test_leaving_before_the_first_word_costs_nothing(bench: Bench, how: str) -> None:
    stage = bench.stage("demo-chat:fault=stall_after(1)")
    connection = open_stream(stage)
    connection.read_until(b'"role"')

    left_at = _leave(connection, how)

    statement = stage.settled()
    _check_stopped(stage, left_at)
    assert statement.states == ("client_disconnected",)
    assert statement.charges == (0,)


@pytest.mark.parametrize("how", LEAVINGS)
def test_leaving_after_one_word_costs_the_input_and_that_word(bench: Bench, how: str) -> None:
    stage = bench.stage("demo-chat:fault=stall_after(2)")
    connection = open_stream(stage)
    connection.read_until(b'"This"')

    left_at = _leave(connection, how)

    statement = stage.settled()
    _check_stopped(stage, left_at)
    assert statement.states == ("client_disconnected",)
    assert statement.rows[0].usage_source == "estimated"
    assert statement.charges == (_estimate(1),)
    assert statement.entries == (("charge", -statement.charges[0]),)
    assert (statement.held_nanos, statement.holds) == (0, 0)


@pytest.mark.parametrize("how", LEAVINGS)
def test_leaving_before_the_usage_came_costs_all_words(bench: Bench, how: str) -> None:
    # Role, three words and the finish reason.
    stage = bench.stage("demo-chat:tokens=3,fault=stall_after(5)")
    connection = open_stream(stage)
    connection.read_until(b'"stop"')

    left_at = _leave(connection, how)

    statement = stage.settled()
    _check_stopped(stage, left_at)
    assert statement.states == ("client_disconnected",)
    assert statement.rows[0].finish_reason == "stop"
    assert statement.charges == (_estimate(3),)


@pytest.mark.parametrize("how", LEAVINGS)
def test_leaving_after_the_usage_came_costs_what_was_reported(bench: Bench, how: str) -> None:
    # The usage event is the sixth; the end of the stream never comes.
    stage = bench.stage("demo-chat:prompt=10,tokens=3,fault=stall_after(6)")
    connection = open_stream(stage, stream_options={"include_usage": True})
    connection.read_until(b'"prompt_tokens"')

    left_at = _leave(connection, how)

    statement = stage.settled()
    _check_stopped(stage, left_at)
    assert statement.states == ("client_disconnected",)
    assert statement.rows[0].usage_source == "reported"
    assert statement.charges == (10 * INPUT_NANOS + 3 * OUTPUT_NANOS,)


def test_a_client_that_only_stops_sending_still_gets_its_answer_or_is_told_to_have_left(
    bench: Bench,
) -> None:
    stage = bench.stage("demo-chat:prompt=10,tokens=3,pace=0.02")
    with open_stream(stage) as connection:
        connection.read_until(b'"role"')

        connection.end_sending()
        connection.read_all()

    statement = stage.settled()
    assert len(statement.rows) == 1
    assert statement.states[0] in ("completed", "client_disconnected")
    assert statement.held_nanos == 0


@pytest.mark.parametrize("how", LEAVINGS)
def test_leaving_while_the_hold_commits_gives_it_back_without_an_upstream_call(
    bench: Bench, how: str
) -> None:
    stage, next_one = bench.stages("demo-chat", "demo-chat")
    connection = RawConnection(bench.gateway.port)

    with LockedAccounts(bench.database):
        connection.send(post(stage.caller, stage.body()))
        # Long enough to be read and to wait for the lock, shorter than the patience of a hold.
        time.sleep(0.2)
        _leave(connection, how)
        time.sleep(0.1)

    # Its hold comes after the other one: when it is answered, that one has been dealt with.
    next_one.client().chat.completions.create(**next_one.body())
    statement = stage.settled(0)
    assert statement.states in ((), ("voided",))
    assert statement.charges in ((), (0,))
    assert statement.entries == ()
    assert (statement.held_nanos, statement.holds) == (0, 0)
    assert stage.upstream_calls == []


def test_a_hundred_clients_that_leave_at_random_leave_nothing_behind(bench: Bench) -> None:
    stage, next_one = bench.stages("demo-chat:prompt=10,tokens=8,pace=0.01", "demo-chat")
    request = post(stage.caller, stage.body(stream=True))
    connections = []
    for _ in range(100):
        connection = RawConnection(bench.gateway.port)
        connection.send(request)
        connections.append(connection)

    for number, connection in enumerate(connections):
        if number % 2:
            connection.reset()
        else:
            connection.close()

    next_one.client().chat.completions.create(**next_one.body())
    wait_until(
        lambda: not Hold.objects.filter(customer_id=stage.caller.user.customer_id).exists(),
        timeout_seconds=10,
        what="the end of all holds",
    )
    statement = stage.settled(0)
    assert set(statement.states) <= {"client_disconnected", "completed", "voided"}
    assert sum(amount for _, amount in statement.entries) == -sum(statement.charges)
    assert statement.posted_nanos == 10_000_000_000 - sum(statement.charges)
    assert (statement.held_nanos, statement.owed_nanos) == (0, 0)
    started = {call["response_id"] for call in stage.upstream_calls}
    assert len(started) <= len(statement.rows)


def test_sockets_of_clients_that_left_are_closed(bench: Bench) -> None:
    stage = bench.stage("demo-chat:fault=stall_after(2)")
    connection = open_stream(stage)
    connection.read_until(b'"This"')
    connection.end_sending()

    stage.settled()

    with pytest.raises((ConnectionError, EOFError, socket.timeout)):
        connection.read_until(b"never")
    connection.close()
