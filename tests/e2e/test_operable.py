"""What operators see of a gateway: probes, metrics, and the log lines of one call."""

from __future__ import annotations

import json
import time
from typing import Any

import orjson
import psycopg
import pytest
from django.db import connection

from apps.audit.models import APIRequest, Attempt
from tests.e2e.answers import HttpAnswer, ask
from tests.e2e.rows import CHAT, chat
from tests.e2e.wire import open_stream
from tests.support.bench import Bench, Stage
from tests.support.gateway import FAST
from tests.support.processes import wait_until
from tests.support.prometheus import Samples, parse

CONSTANTS = FAST
PLANT = ["tests.e2e.planted:break_before_settlement"]
LOST_SECONDS_MAX = 2.0
BACK_SECONDS_MAX = 8.0


def metrics(bench: Bench) -> Samples:
    """Return what the gateway tells now."""
    answer = ask(bench.gateway, "GET", "/metrics")
    assert answer.status == 200
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    return parse(answer.body.decode())[1]


def lines_about(bench: Bench, request_id: str) -> list[dict[str, Any]]:
    """Return the log lines with an id."""
    lines = [json.loads(line) for line in bench.gateway.log().splitlines()]
    return [line for line in lines if line.get("request_id") == request_id]


def ask_with_id(stage: Stage, client_id: str) -> HttpAnswer:
    """Make a call that has an id of the client's."""
    headers = {**stage.caller.headers, "X-Request-Id": client_id}
    return ask(stage.bench.gateway, "POST", CHAT, headers=headers, body=orjson.dumps(stage.body()))


@pytest.mark.parametrize("path", ["/livez", "/readyz", "/health", "/api/health"])
def test_probes_answer_without_a_key(bench: Bench, path: str) -> None:
    answer = ask(bench.gateway, "GET", path)

    assert (answer.status, answer.body) == (200, b'{"ok":true}')
    assert answer.headers["cache-control"] == "no-store"


def test_metrics_tell_of_calls_attempts_refusals_and_the_ledger(bench: Bench) -> None:
    good, bad = bench.stages("demo-chat:prompt=10,tokens=4", "demo-chat:fault=status(500)")
    before = metrics(bench)

    assert chat(good).status == 200
    with open_stream(good) as stream:
        stream.read_until(b"[DONE]")
    assert chat(bad).status == 502
    assert ask(bench.gateway, "POST", CHAT, body=b"{}").status == 401
    good.settled(2)
    bad.settled()
    after = metrics(bench)

    def grown(name: str) -> float:
        return after[name] - before.get(name, 0.0)

    chats = 'gateway_calls_total{endpoint="chat/completions",'
    assert grown(chats + 'state="completed",status="2xx"}') == 2
    assert grown(chats + 'state="failed",status="5xx"}') == 1
    assert grown('gateway_refusals_total{row="E01",code="missing_api_key"}') == 1
    assert grown('gateway_upstream_attempts_total{outcome="answered"}') == 2
    assert grown("gateway_call_duration_seconds_count") == 3
    assert grown("gateway_time_to_first_token_seconds_count") == 1
    assert grown("gateway_writer_batch_commands_sum") == 6
    assert grown("gateway_writer_commit_seconds_count") == grown(
        "gateway_writer_batch_commands_count"
    )
    assert grown("gateway_snapshot_version") >= 0
    assert after["gateway_ready"] == after["gateway_database_available"] == 1
    assert after["gateway_calls_in_flight"] == after["gateway_holds_open"] == 0
    assert after["gateway_journal_settlements"] == after["gateway_limiter_degraded"] == 0
    assert after["process_resident_memory_bytes"] > 30_000_000


def test_an_attempt_that_stalls_is_counted_once_as_what_its_row_says(bench: Bench) -> None:
    provider = bench.make_provider(idle_timeout_seconds=0.5)
    stage = bench.stage("demo-chat:fault=stall_after(2)", provider=provider)
    before = metrics(bench)

    with open_stream(stage) as stream:
        stream.read_all()
    statement = stage.settled()
    after = metrics(bench)

    counted = "gateway_upstream_attempts_total"
    grown = {
        name: value - before.get(name, 0.0)
        for name, value in after.items()
        if name.startswith(counted) and value != before.get(name, 0.0)
    }
    (outcome,) = (attempt.outcome for attempt in statement.attempts)
    assert outcome == "upstream_interrupted"
    assert grown == {f'{counted}{{outcome="{outcome}"}}': 1}


def test_metrics_show_what_is_open_now(bench: Bench) -> None:
    stage = bench.stage("demo-chat:fault=stall_after(4)")

    with open_stream(stage) as stream:
        stream.read_until(b"costs")
        during = metrics(bench)
    stage.settled()
    after = metrics(bench)

    names = ("gateway_streams_open", "gateway_calls_in_flight", "gateway_holds_open")
    assert [during[name] for name in names] == [1, 1, 1]
    assert [after[name] for name in names] == [0, 0, 0]
    assert during["gateway_bytes_in_flight"] > 0
    assert after["gateway_bytes_in_flight"] == 0


def test_who_may_not_read_metrics_is_told_what_is_told_of_any_missing_page(bench: Bench) -> None:
    headers = {"X-Forwarded-For": "127.0.0.1"}

    hidden = ask(bench.gateway, "GET", "/metrics", headers=headers)
    missing = ask(bench.gateway, "GET", "/metricz", headers=headers)

    assert hidden.status == missing.status == 404
    assert hidden.body.replace(b"/metrics", b"/metricz") == missing.body
    assert hidden.headers.keys() == missing.headers.keys()


def test_the_id_of_a_failed_call_leads_to_its_log_its_record_and_the_provider(
    bench: Bench,
) -> None:
    stage = bench.stage("demo-chat:fault=status(500)")

    answer = ask_with_id(stage, "order-4711.try_2")

    request_id = answer.headers["x-request-id"]
    assert answer.status == 502
    assert [
        (line["level"], line["message"], line["client_request_id"])
        for line in lines_about(bench, request_id)
    ] == [("warning", "no provider answered: upstream_error after 1 attempts", "order-4711.try_2")]
    (row,) = stage.settled().rows
    assert str(row.pk) == request_id
    assert Attempt.objects.filter(request_id=row.pk).count() == 1
    (call,) = stage.upstream_calls
    assert call["request_headers"]["x-request-id"] == request_id
    assert "order-4711" not in json.dumps(call["request_headers"])


def test_the_id_of_a_call_that_met_a_bug_is_on_its_traceback(bench: Bench) -> None:
    stage = bench.stage("demo-chat-bug-before")
    before = metrics(bench)

    answer = ask_with_id(stage, "two words")

    (line,) = lines_about(bench, answer.headers["x-request-id"])
    assert answer.status == 500
    assert line["level"] == "error"
    assert "PlantedBug" in line["message"]
    assert "client_request_id" not in line
    name = "gateway_internal_errors_total"
    assert metrics(bench)[name] - before[name] == 1


def test_a_stream_that_breaks_off_is_in_the_log_with_its_id(bench: Bench) -> None:
    stage = bench.stage("demo-chat:fault=cut_after(4)")

    with open_stream(stage) as stream:
        stream.read_all()

    (row,) = stage.settled().rows
    assert row.state == "upstream_interrupted"
    assert [line["message"] for line in lines_about(bench, str(row.pk))] == [
        "a stream is broken off: upstream_interrupted"
    ]


def test_a_call_that_ends_well_leaves_no_line(bench: Bench) -> None:
    stage = bench.stage()

    answer = chat(stage)

    assert answer.status == 200
    assert APIRequest.objects.filter(pk=answer.headers["x-request-id"]).exists()
    assert lines_about(bench, answer.headers["x-request-id"]) == []


def test_the_control_plane_tells_the_id_of_each_answer(bench: Bench) -> None:
    one = ask(bench.gateway, "GET", "/api/user/profile/")
    other = ask(bench.gateway, "GET", "/api/schema/")

    assert (one.status, other.status) == (401, 200)
    assert len({one.headers["x-request-id"], other.headers["x-request-id"]}) == 2


@pytest.mark.postgres
def test_readyz_tells_within_two_seconds_that_the_database_is_lost_and_recovers(
    bench: Bench,
) -> None:
    database = bench.database
    assert database.server is not None
    allow = f'ALTER DATABASE "{database.name}" ALLOW_CONNECTIONS'
    connection.close()  # It would be ended, too.

    with psycopg.connect(**database.server.parameters("postgres"), autocommit=True) as operator:
        operator.execute(f"{allow} false".encode())
        try:
            operator.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s",
                (database.name,),
            )
            lost_at = time.monotonic()
            _wait_for_readiness(bench, 503, LOST_SECONDS_MAX)
            lost_after = time.monotonic() - lost_at
            live, metrics_away = bench.gateway.get("/livez"), metrics(bench)
        finally:
            operator.execute(f"{allow} true".encode())
        _wait_for_readiness(bench, 200, BACK_SECONDS_MAX)

    assert lost_after <= LOST_SECONDS_MAX
    assert live == 200
    assert metrics_away["gateway_ready"] == 0
    assert "the ledger's database does not answer" in bench.gateway.log()


def _wait_for_readiness(bench: Bench, status: int, seconds: float) -> None:
    wait_until(
        lambda: bench.gateway.get("/readyz") == status,
        timeout_seconds=seconds,
        what=f"{status} from /readyz",
    )
