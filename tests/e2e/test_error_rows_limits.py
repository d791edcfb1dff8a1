"""Rows E19 to E37 of the error table: limits, and the gateway's own state."""

from __future__ import annotations

from typing import Any

import openai
import orjson
import pytest

from tests.e2e.answers import HttpAnswer, Told, check_error, check_told
from tests.e2e.endpoints import CHATS, ENDPOINTS, Asked
from tests.e2e.faults import BrokenHolds, LockedAccounts
from tests.e2e.rows import (
    CONSTANTS,
    PLANT,
    chat,
    check_nothing_happened,
)
from tests.e2e.wire import RawConnection, post_bytes
from tests.support.bench import (
    Bench,
)
from tests.support.processes import free_port, wait_until

__all__ = ["CONSTANTS", "PLANT"]


# ---- E19 to E37: limits, and the gateway's own state


def test_e19_a_balance_that_cannot_cover_the_call(bench: Bench) -> None:
    stage = bench.stage()
    poor = bench.make_caller(wallet_nanos=1_000)

    answer = chat(stage, poor, max_tokens=100)

    check_error(answer, status=429, type="insufficient_quota", code="credit_balance_exhausted")
    with pytest.raises(openai.RateLimitError):
        bench.client(poor).chat.completions.create(**stage.body(max_tokens=100))
    check_nothing_happened(stage, poor)


def test_e20_a_key_that_has_spent_its_limit(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10")
    capped = bench.make_caller(cap_nanos=300_000)
    chat(stage, capped, max_tokens=16)

    answers = [chat(stage, capped, max_tokens=16) for _ in range(4)]

    check_error(
        answers[-1], status=429, type="insufficient_quota", code="project_spend_limit_exceeded"
    )
    statement = bench.settled(capped, 1)
    assert sum(statement.charges) <= 300_000
    assert len(stage.upstream_calls) == len(statement.rows)
    before = len(statement.rows)
    with pytest.raises(openai.RateLimitError):
        bench.client(capped).chat.completions.create(**stage.body(max_tokens=16))
    assert len(bench.statement(capped).rows) == before


@pytest.mark.parametrize(
    ("limits", "type", "left"),
    # What a call used replaces what was reserved for it.
    [({"rpm": 1}, "requests", "0"), ({"tpm": 30}, "tokens", "4")],
)
def test_e22_and_e23_more_than_a_minute_takes(
    bench: Bench, limits: dict[str, int], type: str, left: str
) -> None:
    stage = bench.stage("demo-chat:prompt=10")
    values: dict[str, Any] = {"user": "x" * 200}
    limited = bench.make_caller(**limits)  # type: ignore[arg-type]  # rpm or tpm
    first = chat(stage, limited, **values)

    second = chat(stage, limited, **values)

    assert first.status == 200
    assert f"x-ratelimit-limit-{type}" in first.headers
    check_error(
        second,
        status=429,
        type=type,
        code="rate_limit_exceeded",
        retries=True,
        has_retry_after=True,
        **{f"x_ratelimit_remaining_{type}": left},
    )
    with pytest.raises(openai.RateLimitError):
        bench.client(limited).chat.completions.create(**stage.body(**values))
    assert len(bench.settled(limited, 1).rows) == 1
    assert len(stage.upstream_calls) == 1


def test_e24_more_at_the_same_time_than_allowed(bench: Bench) -> None:
    stage = bench.stage("demo-chat:fault=stall_after(2)")
    limited = bench.make_caller(concurrency=1)
    with RawConnection(bench.gateway.port) as running:
        running.send(post_bytes(limited, orjson.dumps(stage.body(stream=True))))
        running.read_until(b'"This"')

        answer = chat(stage, limited)
        with pytest.raises(openai.RateLimitError):
            bench.client(limited).chat.completions.create(**stage.body())

    check_error(
        answer,
        status=429,
        type="rate_limit_error",
        code="slow_down",
        retries=True,
        has_retry_after=True,
    )
    assert len(bench.settled(limited, 1).rows) == 1
    assert len(stage.upstream_calls) == 1


@pytest.mark.parametrize("kind", ["no price", "no route", "no key"])
def test_e32_a_model_without_price_or_route(bench: Bench, kind: str) -> None:
    stage = bench.stage()
    provider = bench.make_provider()
    if kind == "no key":
        provider.keys.all().delete()
    upstream_name = f"demo-chat-e32-{kind}"
    model = bench.make_model(
        upstream_name,
        prices=None if kind == "no price" else {"input": 1, "output": 1},
        provider=provider,
    )
    if kind == "no route":
        model.routes.all().delete()
    bench.wait_for_model(model, stage.caller)

    def answer() -> HttpAnswer:
        return chat(stage, model=model.name)

    wait_until(lambda: answer().status == 503, timeout_seconds=5, what="the configuration")
    before = len(bench.demo.calls(upstream_name))
    check_error(answer(), status=503, type="server_error", code="model_not_available")
    with pytest.raises(openai.InternalServerError):
        stage.client().chat.completions.create(**{**stage.body(), "model": model.name})
    assert len(bench.demo.calls(upstream_name)) == before


def test_e33_the_last_route_is_tried_although_its_circuit_is_open(bench: Bench) -> None:
    port = free_port()
    stage = bench.stage(provider=bench.make_provider(f"http://127.0.0.1:{port}/v1"))

    answers = [chat(stage) for _ in range(7)]

    assert {answer.error["code"] for answer in answers} == {"upstream_unreachable"}
    assert stage.settled(7).charges == (0,) * 7


def _check_unavailable(answer: HttpAnswer, dialect: str) -> None:
    told = Told(503, "server_error", "service_unavailable", "api_error", "UNAVAILABLE")
    check_told(answer, told, dialect, retries=True, has_retry_after=True)


def test_e34_the_database_does_not_answer(bench: Bench) -> None:
    stage = bench.stage()
    chats = [Asked(ENDPOINTS[name], stage) for name in CHATS]

    with LockedAccounts(bench.database):
        answers = [asked() for asked in chats]
        with pytest.raises(openai.InternalServerError):
            stage.client().chat.completions.create(**stage.body())

    for asked, answer in zip(chats, answers, strict=True):
        _check_unavailable(answer, asked.dialect)
    statement = stage.settled(0)
    assert set(statement.charges) <= {0}
    assert statement.entries == ()
    assert stage.upstream_calls == []
    wait_until(lambda: chat(stage).status == 200, timeout_seconds=10, what="the recovery")


def test_e35_the_record_of_the_call_cannot_be_written(bench: Bench) -> None:
    stage = bench.stage()
    chats = [Asked(ENDPOINTS[name], stage) for name in CHATS]
    fine = bench.make_caller()

    with BrokenHolds(bench.database, stage.caller.user.username):
        answers = [asked() for asked in chats]
        other = chat(stage, fine)

    for asked, answer in zip(chats, answers, strict=True):
        _check_unavailable(answer, asked.dialect)
    assert other.status == 200
    assert bench.statement(stage.caller).rows == ()
    assert len(stage.upstream_calls) == 1
