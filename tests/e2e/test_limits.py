"""Limits on requests, tokens and concurrency: on key, user and group, in one gateway and in two."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from apps.users.models import UserGroup
from tests.clients.refusals import refusals, subtract
from tests.e2e.answers import HttpAnswer, ask
from tests.e2e.wire import RawConnection, post
from tests.support.bench import Bench, Caller, Stage, open_bench
from tests.support.databases import Database
from tests.support.gateway import DemoThread, GatewayProcess
from tests.support.processes import wait_until
from tests.support.redis import RedisServer, is_installed

CHAT = "/v1/chat/completions"
_numbers = itertools.count(1)


def chat(stage: Stage, caller: Caller, gateway: GatewayProcess | None = None) -> HttpAnswer:
    """Make a call."""
    return ask(
        gateway or stage.bench.gateway,
        "POST",
        CHAT,
        headers=caller.headers,
        body=orjson.dumps(stage.body()),
    )


def make_pair(bench: Bench, scope: str, **limits: Any) -> tuple[Caller, Caller, Caller]:
    """Return two callers under one limit, and one who is not."""
    if scope == "key":
        limited = bench.make_caller(**limits)
        return limited, limited, bench.make_caller(user=limited.user)
    if scope == "user":
        limited = bench.make_caller(user_values=limits)
        return limited, bench.make_caller(user=limited.user), bench.make_caller()
    group = UserGroup.objects.create(name=f"group {next(_numbers)}", **limits)
    first, second = (bench.make_caller(user_values={"user_group": group}) for _ in range(2))
    return first, second, bench.make_caller()


SCOPES = ("key", "user", "group")


@pytest.mark.parametrize("scope", SCOPES)
def test_requests_per_minute_count_for_all_under_one_limit(bench: Bench, scope: str) -> None:
    stage = bench.stage()
    first, second, free = make_pair(bench, scope, rpm=3)

    statuses = [chat(stage, caller).status for caller in (first, second, first, second, free)]

    assert statuses == [200, 200, 200, 429, 200]
    assert len(stage.upstream_calls) == 4


@pytest.mark.parametrize("scope", SCOPES)
def test_reading_what_was_used_counts_as_a_request(bench: Bench, scope: str) -> None:
    stage = bench.stage()
    first, second, free = make_pair(bench, scope, rpm=3, concurrency=1)

    def read(caller: Caller) -> HttpAnswer:
        return ask(bench.gateway, "GET", "/v1/usage", headers=caller.headers)

    answers = [read(first), read(second), chat(stage, first), read(second), read(free)]

    assert [answer.status for answer in answers] == [200, 200, 200, 429, 200]
    assert (answers[3].error["type"], answers[3].error["code"]) == (
        "requests",
        "rate_limit_exceeded",
    )
    assert answers[0].headers["x-ratelimit-limit-requests"] == "3"
    assert bench.gateway.get("/v1/models", first.raw) == 200


@pytest.mark.parametrize("scope", SCOPES)
def test_tokens_per_minute_count_what_was_used(bench: Bench, scope: str) -> None:
    # A call uses 1000 tokens; what is reserved for it is far less.
    stage = bench.stage("demo-chat:prompt=984,tokens=16")
    first, second, free = make_pair(bench, scope, tpm=1500)

    answers = [chat(stage, caller) for caller in (first, second, first, free)]

    assert [answer.status for answer in answers] == [200, 200, 429, 200]
    assert answers[2].error["type"] == "tokens"


@pytest.mark.parametrize("scope", SCOPES)
def test_concurrent_calls_are_counted_until_they_end(bench: Bench, scope: str) -> None:
    stage = bench.stage("demo-chat:fault=stall_after(2)")
    other = bench.stage()
    first, second, free = make_pair(bench, scope, concurrency=1)

    with RawConnection(bench.gateway.port) as running:
        running.send(post(first, stage.body(stream=True)))
        running.read_until(b'"This"')
        statuses = [chat(other, caller).status for caller in (second, free)]

    assert statuses == [429, 200]
    wait_until(
        lambda: chat(other, second).status == 200, timeout_seconds=5, what="the end of the stream"
    )


def test_a_refused_call_takes_nothing_from_other_limits(bench: Bench) -> None:
    stage = bench.stage()
    limited = bench.make_caller(rpm=1, user_values={"rpm": 3})
    sibling = bench.make_caller(user=limited.user)

    statuses = [chat(stage, limited).status for _ in range(4)]
    others = [chat(stage, sibling).status for _ in range(3)]

    assert statuses == [200, 429, 429, 429]
    assert others == [200, 200, 429]


def test_a_refused_call_holds_and_costs_nothing(bench: Bench) -> None:
    stage = bench.stage()
    limited = bench.make_caller(rpm=1)

    statuses = [chat(stage, limited).status for _ in range(3)]

    statement = bench.statement(limited)
    assert statuses == [200, 429, 429]
    assert len(statement.rows) == len(statement.entries) == 1
    assert (statement.holds, statement.held_nanos) == (0, 0)


def ask_without_body(bench: Bench, caller: Caller, path: str = CHAT) -> bytes:
    """Return the answer to a call of whose body nothing is sent."""
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {caller.raw}\r\n"
    with RawConnection(bench.gateway.port) as peer:
        peer.send(
            f"{head}Content-Type: application/json\r\nContent-Length: 4000000\r\n\r\n".encode()
        )
        return peer.read_until(b"}}" if path == CHAT else b"}")


def test_who_is_at_a_limit_is_told_before_the_body_is_read(bench: Bench) -> None:
    stage = bench.stage()
    limited = bench.make_caller(rpm=2, user_values={"rpm": 9})
    sibling = bench.make_caller(user=limited.user)
    statuses, before = [chat(stage, limited).status for _ in range(2)], refusals(bench)

    refused = [ask_without_body(bench, limited) for _ in range(3)]
    refused.append(ask_without_body(bench, limited, "/v1/messages"))
    others = [chat(stage, sibling).status for _ in range(8)]

    assert statuses == [200, 200]
    for answer in refused:
        assert answer.startswith(b"HTTP/1.1 429")
        assert b"retry-after: " in answer
    assert b"x-ratelimit-limit-requests: 2\r\nx-ratelimit-remaining-requests: 0" in refused[0]
    assert b'"code":"rate_limit_exceeded"' in refused[0]
    assert b"anthropic-ratelimit-requests-limit: 2" in refused[3]
    # Nothing was taken from the user's limit, and each refusal is counted once.
    assert others == [200] * 7 + [429]
    counted = subtract(refusals(bench), before)
    assert counted == {("E22", "rate_limit_exceeded"): 5}


def test_who_has_his_calls_running_is_told_before_the_body_is_read(bench: Bench) -> None:
    stage = bench.stage("demo-chat:fault=stall_after(2)")
    limited = bench.make_caller(concurrency=1)

    with RawConnection(bench.gateway.port) as running:
        running.send(post(limited, stage.body(stream=True)))
        running.read_until(b'"This"')
        answer = ask_without_body(bench, limited)

    assert answer.startswith(b"HTTP/1.1 429")
    assert b'"code":"slow_down"' in answer


def test_headers_tell_what_is_left(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10")
    limited = bench.make_caller(rpm=5, tpm=100_000)

    headers = chat(stage, limited).headers

    assert headers["x-ratelimit-limit-requests"] == "5"
    assert headers["x-ratelimit-remaining-requests"] == "4"
    assert headers["x-ratelimit-limit-tokens"] == "100000"
    assert headers["x-ratelimit-reset-requests"]


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """Run a Redis that the test may kill."""
    if not is_installed():
        pytest.skip("redis-server is not installed")
    server = RedisServer.start(tmp_path)
    yield server
    server.stop()


@pytest.mark.redis
@pytest.mark.postgres
def test_two_gateways_with_redis_share_their_limits(
    committed_db: Database, demo: DemoThread, tmp_path: Path, redis_server: RedisServer
) -> None:
    environment = {"REDIS_URL": redis_server.url}
    bench = open_bench(tmp_path / "a", committed_db, demo, environment=environment)
    other = GatewayProcess.start(tmp_path / "b", committed_db, environment=environment)
    try:
        stage = bench.stage()
        limited = bench.make_caller(rpm=6)
        wait_until(
            lambda: other.get("/v1/models", limited.raw) == 200,
            timeout_seconds=5,
            what="the key in the other gateway",
        )
        gateways = itertools.cycle([bench.gateway, other])

        statuses = [chat(stage, limited, next(gateways)).status for _ in range(10)]
    finally:
        other.stop()
        bench.gateway.stop()

    assert statuses == [200] * 6 + [429] * 4
    assert len(stage.upstream_calls) == 6


@pytest.mark.redis
def test_calls_are_answered_and_limited_while_redis_is_dead(
    committed_db: Database, demo: DemoThread, tmp_path: Path, redis_server: RedisServer
) -> None:
    bench = open_bench(
        tmp_path / "a", committed_db, demo, environment={"REDIS_URL": redis_server.url}
    )
    try:
        stage = bench.stage()
        limited, free = bench.make_caller(rpm=5), bench.make_caller(rpm=1000)
        before = [chat(stage, limited).status for _ in range(2)]

        redis_server.stop()
        after = [chat(stage, limited).status for _ in range(5)]
        others = [chat(stage, free).status for _ in range(20)]
    finally:
        bench.gateway.stop()

    assert before == [200, 200]
    assert after == [200, 200, 200, 429, 429]
    assert others == [200] * 20
    assert "edis" in bench.gateway.log()
