"""Answers that come when their client has left, and answers with one id for all (F67, F68)."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import orjson
import pytest

from tests.e2e.answers import HttpAnswer, ask
from tests.e2e.wire import RawConnection, post
from tests.support.bench import INPUT_NANOS, OUTPUT_NANOS, Bench, Stage, Statement
from tests.support.processes import wait_until

CHAT = "/v1/chat/completions"
CLIENTS = 40
# They leave one after the other, from long before the provider answers to long after it.
LATENCY_SECONDS = 1.0
LEAVING_SECONDS = 1.6
WORDS = 3
CHARGE = 10 * INPUT_NANOS + WORDS * OUTPUT_NANOS
# By the rule for who leaves a stream: ten tokens were read, and so many words seen.
PARTS = {0, *(10 * INPUT_NANOS + words * OUTPUT_NANOS for words in range(1, WORDS + 1))}


def leave_around_the_answer(stage: Stage, *, is_stream: bool) -> Statement:
    """Have CLIENTS leave before, while and after their answers come, and return what is known."""
    request = post(stage.caller, stage.body(stream=is_stream))
    connections = [RawConnection(stage.bench.gateway.port) for _ in range(CLIENTS)]
    for connection in connections:
        connection.send(request)
    wait_until(
        lambda: len(stage.bench.demo.calls(stage.upstream_name)) == CLIENTS,
        timeout_seconds=10,
        what="all calls at the provider",
    )
    for connection in connections:
        connection.reset()
        time.sleep(LEAVING_SECONDS / CLIENTS)
    return stage.settled(CLIENTS)


def check_one_settlement_each(statement: Statement) -> None:
    """Check that each call is one row with one attempt and one charge, and nothing is held."""
    assert len({row.pk for row in statement.rows}) == len(statement.rows) == CLIENTS
    assert {row.attempt_count for row in statement.rows} == {1}
    assert len(statement.attempts) == CLIENTS
    charged = Counter(nanos for nanos in statement.charges if nanos)
    assert Counter(-nanos for kind, nanos in statement.entries if kind == "charge") == charged
    assert len(statement.entries) == charged.total()
    assert (statement.held_nanos, statement.holds, statement.owed_nanos) == (0, 0, 0)
    assert set(statement.states) <= {"client_disconnected", "completed"}


@pytest.mark.usefixtures("counting")
@pytest.mark.parametrize("is_stream", [True, False])
def test_an_answer_that_comes_after_the_cancel_is_dropped_and_makes_no_second_row(
    bench: Bench, is_stream: bool
) -> None:
    wishes = f"prompt=10,tokens={WORDS},latency={LATENCY_SECONDS}"
    stage = bench.stage(f"demo-chat:{wishes}")

    statement = leave_around_the_answer(stage, is_stream=is_stream)

    check_one_settlement_each(statement)
    # Nobody pays for what came too late, nor twice for what came in time.
    assert set(statement.charges) <= (PARTS if is_stream else {0, CHARGE})
    assert {0, CHARGE} <= set(statement.charges)
    assert len(stage.upstream_calls) == CLIENTS


@pytest.mark.parametrize("is_stream", [True, False])
def test_an_answer_that_is_read_on_is_settled_onto_the_hold_of_its_call(
    bench: Bench, is_stream: bool
) -> None:
    provider = bench.make_provider(leaving_policy="drain", drain_seconds=10)
    wishes = f"prompt=10,tokens={WORDS},latency={LATENCY_SECONDS}"
    stage = bench.stage(f"demo-chat:{wishes}", provider=provider)

    statement = leave_around_the_answer(stage, is_stream=is_stream)

    check_one_settlement_each(statement)
    assert set(statement.charges) == {CHARGE}
    assert {row.usage_source for row in statement.rows} == {"reported"}
    assert set(statement.states) == {"client_disconnected", "completed"}
    assert len(stage.upstream_calls) == CLIENTS


@pytest.mark.parametrize("is_stream", [True, False])
def test_answers_with_one_id_for_all_are_told_apart_by_ours(bench: Bench, is_stream: bool) -> None:
    stage = bench.stage("demo-chat:prompt=10,tokens=3,fault=dup_id")
    other = bench.make_caller()
    body = orjson.dumps(stage.body(stream=is_stream))

    def call(number: int) -> HttpAnswer:
        headers = (stage.caller if number % 2 else other).headers
        return ask(bench.gateway, "POST", CHAT, headers=headers, body=body)

    with ThreadPoolExecutor(8) as crowd:
        answers = list(crowd.map(call, range(20)))

    statements = [stage.settled(10), bench.settled(other, 10)]
    rows = [row for statement in statements for row in statement.rows]
    assert {answer.status for answer in answers} == {200}
    assert len({row.upstream_request_id for row in rows}) == 1
    assert rows[0].upstream_request_id != ""
    assert sorted(str(row.pk) for row in rows) == sorted(
        answer.headers["x-request-id"] for answer in answers
    )
    for statement in statements:
        assert statement.charges == (CHARGE,) * 10
        assert statement.entries == (("charge", -CHARGE),) * 10
