"""Rows E40 to E71 of the error table: what the provider did, and our own bugs."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import openai
import pytest

from apps.api_keys.models import APIKey
from apps.billing.verification import report
from apps.providers.models import ProviderKey
from tests.e2e import planted
from tests.e2e.answers import Told, check_error, check_told
from tests.e2e.endpoints import CHATS, ENDPOINTS, Asked
from tests.e2e.failed import FAILED, Failed
from tests.e2e.faults import LockedAccounts
from tests.e2e.rows import (
    CONSTANTS,
    PLANT,
    chat,
    wait_until_refused,
)
from tests.e2e.wire import LAST_CHUNK, events_of, open_stream
from tests.support.bench import (
    INPUT_NANOS,
    OUTPUT_NANOS,
    PROVIDER_SECRET,
    Bench,
    Stage,
)
from tests.support.processes import free_port, wait_until

# What a provider does wrong is judged before any database is asked.
pytestmark = pytest.mark.sqlite

__all__ = ["CONSTANTS", "PLANT"]


# ---- E40 to E53: what the provider did


EXCEPTIONS = {
    400: openai.BadRequestError,
    413: openai.APIStatusError,
    422: openai.UnprocessableEntityError,
    429: openai.RateLimitError,
}


# What a provider says once: its key is not used again.
REFUSED = [
    Failed("E41", "status(401)", 502, "upstream_auth_error"),
    Failed("E41", "status(403)", 502, "upstream_auth_error"),
    Failed("E42", "status(402)", 503, "upstream_unavailable"),
    Failed("E42", "status(429,insufficient_quota)", 503, "upstream_unavailable"),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: f"{case.row} {case.fault}")
def test_e41_and_e42_a_refused_key_is_out_of_use_after_one_call(bench: Bench, case: Failed) -> None:
    stage = bench.stage(f"demo-chat:fault={case.fault}", provider=bench.make_provider())

    first, second = chat(stage), chat(stage, stream=True)
    wait_until(
        lambda: ProviderKey.objects.filter(
            provider__routes__model=stage.model, disabled_at__isnull=False
        ).exists(),
        timeout_seconds=15,
        what="the key to be disabled",
    )
    third = chat(stage)

    for answer in (first, second, third):
        check_error(
            answer,
            status=case.status,
            type=case.type,
            code=case.code,
            retries=True,
            has_retry_after=True,
        )
    statement = stage.settled()
    assert len(stage.upstream_calls) == 1
    assert (statement.states, statement.charges) == (("failed",), (0,))
    assert (statement.holds, statement.held_nanos, statement.entries) == (0, 0, ())
    assert PROVIDER_SECRET not in "".join(attempt.error_text for attempt in statement.attempts)


@pytest.mark.parametrize(
    ("case", "is_stream"),
    [
        pytest.param(
            case,
            is_stream,
            id=f"{case.row} {case.fault}-{kind}",
        )
        for case in FAILED
        for is_stream, kind in ((False, "whole"), (True, "stream"))
        if case.stream in (None, is_stream)
    ],
)
def test_e40_to_e53_a_provider_that_fails(bench: Bench, case: Failed, is_stream: bool) -> None:
    # What is late on a busy machine is no other fault.
    patience = 0.6 if case.row == "E48" else 20.0
    provider = bench.make_provider(
        first_byte_timeout_seconds=patience, idle_timeout_seconds=patience
    )
    stage = bench.stage(f"demo-chat:fault={case.fault}", provider=provider)

    answer = chat(stage, stream=is_stream)
    with pytest.raises(EXCEPTIONS.get(case.status, openai.InternalServerError)):
        stage.client().chat.completions.create(**stage.body(stream=is_stream))

    check_error(
        answer,
        status=case.status,
        type=case.type,
        code=case.code,
        param=case.param,
        retries=case.retries,
        has_retry_after=case.has_retry_after,
    )
    calls = 4 if case.retries else 2
    statement = stage.settled(calls)
    assert len(statement.rows) == calls
    assert set(statement.states) == {"failed"}
    assert (set(statement.charges), statement.entries) == ({0}, ())
    assert (statement.held_nanos, statement.holds) == (0, 0)
    assert len(stage.upstream_calls) == calls * case.tries
    assert {row.error_code for row in statement.rows} == {case.code}
    assert PROVIDER_SECRET not in "".join(attempt.error_text for attempt in statement.attempts)


def test_e43_the_provider_decides_how_long_to_wait_up_to_a_minute(bench: Bench) -> None:
    short = bench.stage("demo-chat:retry_after=7,fault=status(429)")
    long = bench.stage("demo-chat:retry_after=3600,fault=status(429)")

    assert chat(short).headers["retry-after"] == "7"
    assert chat(long).headers["retry-after"] == "60"


def test_e47_nobody_listens_at_the_provider(bench: Bench) -> None:
    stage = bench.stage(provider=bench.make_provider(f"http://127.0.0.1:{free_port()}/v1"))

    answer = chat(stage)
    with pytest.raises(openai.InternalServerError):
        stage.client().chat.completions.create(**stage.body())

    check_error(
        answer,
        status=502,
        type="server_error",
        code="upstream_unreachable",
        retries=True,
        has_retry_after=True,
    )
    statement = stage.settled(4)
    assert (set(statement.charges), statement.entries) == ({0}, ())


def test_e40_is_final_and_everything_else_is_tried_elsewhere(bench: Bench) -> None:
    final = bench.stage("demo-chat:fault=status(400)", fallbacks=[("demo-chat-never", None)])

    answer = chat(final)

    assert answer.status == 400
    assert bench.demo.calls("demo-chat-never") == []
    assert len(final.settled().attempts) == 1


def test_three_attempts_are_the_most(bench: Bench) -> None:
    names = [f"demo-chat-most{number}:fault=status(500)" for number in range(4)]
    stage = bench.stage("demo-chat:fault=status(500)", fallbacks=[(name, None) for name in names])

    answer = chat(stage)

    assert answer.status == 502
    assert len(stage.settled().attempts) == 3
    assert [len(bench.demo.calls(name)) for name in names] == [1, 1, 0, 0]


# ---- E60 to E66: after the stream has begun


def _error_of_sdk_stream(stage: Stage) -> openai.APIError:
    with pytest.raises(openai.APIError) as raised:
        list(stage.client().chat.completions.create(**stage.body(stream=True)))
    return raised.value


def test_e60_the_sdk_raises_and_does_not_try_again(bench: Bench) -> None:
    stage = bench.stage("demo-chat:pace=0.02,fault=cut_after(4)")

    error = _error_of_sdk_stream(stage)

    assert (error.code, error.type) == ("upstream_interrupted", "server_error")
    assert len(stage.upstream_calls) == 1
    assert len(stage.settled().rows) == 1


def test_e61_a_stream_that_takes_too_long_is_ended(bench: Bench) -> None:
    provider = bench.make_provider(total_timeout_seconds=0.5)
    stage = bench.stage("demo-chat:pace=0.02,fault=never_end", provider=provider)

    error = _error_of_sdk_stream(stage)

    assert error.code == "stream_limit_exceeded"
    statement = stage.settled()
    assert statement.states == ("limit_exceeded",)
    assert 0 < statement.charges[0] <= statement.rows[0].hold_nanos
    assert [call["ended"] for call in stage.upstream_calls] == ["client_closed"]


def test_e63_a_stream_whose_key_is_revoked_runs_to_its_end(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10,tokens=16,pace=0.05")
    with open_stream(stage) as connection:
        connection.read_until(b'"This"')
        APIKey.objects.filter(pk=stage.caller.key.pk).update(is_active=False)
        wait_until_refused(stage.caller, bench)

        events = events_of(connection.read_until(LAST_CHUNK))

    assert events[-1] == "[DONE]"
    assert stage.settled().charges == (10 * INPUT_NANOS + 16 * OUTPUT_NANOS,)


def test_e65_a_stream_ends_normally_while_the_database_is_away_and_is_settled_later(
    bench: Bench,
) -> None:
    stage = bench.stage("demo-chat:prompt=10,tokens=3,pace=0.02")
    with open_stream(stage) as connection:
        connection.read_until(b'"role"')
        with LockedAccounts(bench.database):
            events = events_of(connection.read_until(LAST_CHUNK))
            journal = sorted((bench.gateway.data_dir / "journal").iterdir())

    assert events[-1] == "[DONE]"
    assert journal
    statement = stage.settled()
    assert statement.charges == (10 * INPUT_NANOS + 3 * OUTPUT_NANOS,)
    assert statement.entries == (("charge", -statement.charges[0]),)
    wait_until(lambda: chat(stage).status == 200, timeout_seconds=10, what="the recovery")


# ---- E70 and E71: our own bugs


def test_e70_a_bug_before_the_settlement_costs_nothing(bench: Bench) -> None:
    stage = bench.stage(planted.BEFORE_SETTLEMENT)
    chats = [Asked(ENDPOINTS[name], stage) for name in CHATS]

    answers = [asked() for asked in chats]
    with pytest.raises(openai.InternalServerError):
        stage.client().chat.completions.create(**stage.body())

    told = Told(500, "server_error", "internal_error", "api_error", "INTERNAL")
    for asked, answer in zip(chats, answers, strict=True):
        check_told(answer, told, asked.dialect, retries=True)
        assert answer.headers["x-request-id"] in answer.error["message"]
    statement = stage.settled(7)
    assert statement.states == ("failed",) * 7
    assert (statement.charges, statement.entries) == ((0,) * 7, ())
    assert stage.upstream_calls == []
    assert planted.SECRET not in bench.gateway.log()


@pytest.mark.parametrize("stream", [False, True])
def test_e71_a_bug_after_the_settlement_is_not_tried_again(bench: Bench, stream: bool) -> None:
    stage = bench.stage(f"{planted.AFTER_SETTLEMENT}:prompt=10,fault=json_for_stream")

    with pytest.raises(openai.InternalServerError) as raised:
        stage.client().chat.completions.create(**stage.body(stream=stream))

    assert raised.value.response.headers["x-should-retry"] == "false"
    assert raised.value.code == "internal_error"
    statement = stage.settled()
    assert statement.charges == (10 * INPUT_NANOS + 16 * OUTPUT_NANOS,)
    assert len(stage.upstream_calls) == 1


def test_e71_in_each_dialect(bench: Bench) -> None:
    stage = bench.stage(f"{planted.AFTER_SETTLEMENT}:prompt=10")
    chats = [Asked(ENDPOINTS[name], stage) for name in CHATS]

    answers = [asked() for asked in chats]

    told = Told(500, "server_error", "internal_error", "api_error", "501 INTERNAL")
    for asked, answer in zip(chats, answers, strict=True):
        check_told(answer, told, asked.dialect)
    assert stage.settled(4).charges == (10 * INPUT_NANOS + 16 * OUTPUT_NANOS,) * 4


def test_a_bug_inside_a_stream_is_no_failure_before_it_and_pays_what_was_delivered(
    bench: Bench,
) -> None:
    stage = bench.stage(f"{planted.INSIDE_A_STREAM}:prompt=10,tokens=200,pace=0.002")

    with open_stream(stage) as connection:
        received = connection.read_all()

    assert b"[DONE]" not in received
    (row,) = stage.settled().rows
    assert (row.state, row.status_code, row.error_code) == ("interrupted", 200, "internal_error")
    assert row.usage_source == "estimated"
    assert 0 < row.output_tokens < 100
    assert row.charge_nanos == row.input_tokens * INPUT_NANOS + row.output_tokens * OUTPUT_NANOS
    found = report(is_full=True, anchors_path=Path("/nonexistent"), now=datetime.now(UTC))
    assert [finding for finding in found.findings if str(row.id) in finding.subject] == []
