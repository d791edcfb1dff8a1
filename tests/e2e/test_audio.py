"""Spoken answers: only where the price names them, held for at the dearest, charged by usage; named
later by who they were given to and with the key that they were made with.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import orjson
import pytest

from apps.providers.credentials import add_key
from tests.e2e.answers import HttpAnswer, ask, check_error
from tests.e2e.raw_upstream import Heard, RawUpstream, respond
from tests.e2e.wire import RawConnection, post
from tests.support.bench import INPUT_NANOS, OUTPUT_NANOS, PRICES, Bench, Stage

# What audio costs is judged before any database is asked.
pytestmark = pytest.mark.sqlite

CHAT = "/v1/chat/completions"
AUDIO_OUT_NANOS = 80_000
AUDIO_PRICES = {**PRICES, "audio_in": 40_000_000_000, "audio_out": 80_000_000_000}
SPOKEN = {"modalities": ["text", "audio"], "audio": {"voice": "alloy", "format": "pcm16"}}
USAGE = {
    "prompt_tokens": 10,
    "completion_tokens": 46,
    "total_tokens": 56,
    "completion_tokens_details": {"audio_tokens": 30, "text_tokens": 16, "reasoning_tokens": 0},
}
CHARGE = 10 * INPUT_NANOS + 16 * OUTPUT_NANOS + 30 * AUDIO_OUT_NANOS
OTHER_SECRET = "sk-another-secret-of-the-tests-0123456789"
_NUMBERS = itertools.count(1)
SECOND = "A" * 64_000  # of PCM, in base64


def _event(**members: Any) -> bytes:
    return b"data: %b\n\n" % orjson.dumps(
        {"id": "c-1", "object": "chat.completion.chunk"} | members
    )


def speak(heard: Heard) -> list[bytes] | None:
    """Speak for a second, whole or in events; prompts that begin with "wait" hear no end."""
    # One of ours for each answer: a provider's ids are its own.
    audio = {"id": f"audio_{next(_NUMBERS)}", "data": SECOND, "transcript": "Hi."}
    if heard.json.get("stream") is not True:
        message = {"role": "assistant", "content": None, "audio": audio}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return [respond(orjson.dumps({"id": "c-1", "choices": [choice], "usage": USAGE}))]
    spoken = _event(choices=[{"index": 0, "delta": {"audio": audio}, "finish_reason": None}])
    end = _event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])
    whole = spoken + end + _event(choices=[], usage=USAGE) + b"data: [DONE]\n\n"
    answer = respond(whole, kind="text/event-stream")
    if heard.prompt.startswith("wait"):
        return [answer[: answer.index(end)], *[b""] * 200]
    return [answer]


@pytest.fixture(scope="module")
def speaker(module_bench: Bench) -> Iterator[tuple[Stage, RawUpstream]]:
    """Run a provider that speaks, and make a model of it whose price names that."""
    with RawUpstream(speak) as upstream:
        provider = module_bench.make_provider(upstream.base_url)
        yield module_bench.stage("raw", provider=provider, prices=AUDIO_PRICES), upstream


def call(stage: Stage, **values: Any) -> HttpAnswer:
    """Ask for a spoken answer."""
    body = orjson.dumps(stage.body(**SPOKEN, **values))
    return ask(stage.bench.gateway, "POST", CHAT, headers=stage.caller.headers, body=body)


@pytest.mark.parametrize("is_stream", [True, False])
def test_a_spoken_answer_is_passed_on_and_charged_by_its_classes(
    bench: Bench, speaker: tuple[Stage, RawUpstream], is_stream: bool
) -> None:
    stage, upstream = speaker
    caller = bench.make_caller()
    stage = Stage(bench, caller, stage.model, stage.upstream_name)

    answer = call(stage, stream=is_stream, max_tokens=100)

    assert answer.status == 200
    assert SECOND.encode() in answer.body
    heard = upstream.heard[-1].json
    assert {name: heard[name] for name in SPOKEN} == SPOKEN
    statement = stage.settled()
    (row,) = statement.rows
    assert statement.charges == (CHARGE,)
    assert (row.input_tokens, row.output_tokens, row.audio_out_tokens) == (10, 16, 30)
    assert (row.usage_source, row.is_usage_suspect) == ("reported", False)
    # The maximum at the price of what is spoken, and the input at that of what is heard.
    assert row.hold_nanos - 100 * AUDIO_OUT_NANOS >= 10 * 40_000
    assert (row.hold_nanos - 100 * AUDIO_OUT_NANOS) % 40_000 == 0


@pytest.mark.usefixtures("counting")
def test_who_leaves_a_spoken_answer_pays_for_what_was_spoken(
    bench: Bench, speaker: tuple[Stage, RawUpstream]
) -> None:
    stage = Stage(bench, bench.make_caller(), speaker[0].model, speaker[0].upstream_name)
    messages = [{"role": "user", "content": "wait"}]
    body = stage.body(**SPOKEN, stream=True) | {"messages": messages}

    with RawConnection(bench.gateway.port) as connection:
        connection.send(post(stage.caller, body))
        connection.read_until(b'"transcript"')
        connection.reset()

    (row,) = stage.settled().rows
    assert (row.state, row.usage_source) == ("client_disconnected", "estimated")
    # A second at a token for each 50 ms; "Hi." are two tokens, "wait" one in a template of seven.
    assert (row.audio_out_tokens, row.output_tokens, row.input_tokens) == (20, 2, 8)
    assert row.charge_nanos == 8 * INPUT_NANOS + 2 * OUTPUT_NANOS + 20 * AUDIO_OUT_NANOS


@pytest.mark.parametrize("name", ["modalities", "audio"])
def test_without_a_price_of_its_own_nothing_is_spoken(bench: Bench, name: str) -> None:
    stage = bench.stage()
    body = orjson.dumps(stage.body(**{name: SPOKEN[name]}))

    answer = ask(bench.gateway, "POST", CHAT, headers=stage.caller.headers, body=body)

    check_error(
        answer, status=400, type="invalid_request_error", code="unsupported_parameter", param=name
    )
    statement = bench.statement(stage.caller)
    assert (statement.rows, statement.entries, statement.holds) == ((), (), 0)
    assert stage.upstream_calls == []


def key_of(heard: Heard) -> str:
    """Return with which key something was asked."""
    (line,) = [line for line in heard.lines if line.lower().startswith("authorization:")]
    return line


def named(audio: object) -> list[dict[str, Any]]:
    """Return a conversation with an earlier spoken answer."""
    return [
        {"role": "user", "content": "Hi"},
        {"role": "assistant", "audio": audio},
        {"role": "user", "content": "And?"},
    ]


@pytest.mark.parametrize("is_stream", [True, False])
def test_what_was_spoken_is_named_by_its_owner_alone_and_with_its_key(
    bench: Bench, speaker: tuple[Stage, RawUpstream], is_stream: bool
) -> None:
    _, upstream = speaker
    provider = bench.make_provider(upstream.base_url)
    add_key(provider=provider, secret=OTHER_SECRET)
    owner = bench.stage("raw", provider=provider, prices=AUDIO_PRICES)
    stranger = Stage(bench, bench.make_caller(), owner.model, owner.upstream_name)
    heard_before = len(upstream.heard)

    # Keys are drawn: until both were.
    ids = []
    while len({key_of(heard) for heard in upstream.heard[heard_before:]}) < 2:
        answer = call(owner, stream=is_stream)
        ids.append(orjson.loads(re.findall(rb'"audio":({[^}]*})', answer.body)[0])["id"])
    made_with = [key_of(heard) for heard in upstream.heard[heard_before:]]
    for one in ids:
        assert call(owner, stream=is_stream, messages=named({"id": one})).status == 200
    named_with = [key_of(heard) for heard in upstream.heard[heard_before + len(ids) :]]
    foreign = call(stranger, messages=named({"id": ids[0]}))
    unknown = call(stranger, messages=named({"id": "audio_none"}))

    assert named_with == made_with
    check_error(
        foreign,
        status=400,
        type="invalid_request_error",
        code="invalid_value",
        param="messages[1].audio.id",
    )
    assert foreign.body.replace(ids[0].encode(), b"audio_none") == unknown.body
    assert len(upstream.heard) == heard_before + 2 * len(ids)
    statement = bench.statement(stranger.caller)
    assert (statement.rows, statement.entries, statement.holds) == ((), (), 0)


@pytest.mark.parametrize(
    ("audio", "code", "param"),
    [
        ("audio_1", "invalid_type", "messages[1].audio"),
        ({}, "invalid_type", "messages[1].audio.id"),
        ({"id": 1}, "invalid_type", "messages[1].audio.id"),
        ({"id": "audio_1", "ID": "audio_2"}, "unsupported_parameter", "messages[1].audio.ID"),
    ],
)
def test_what_names_no_spoken_answer_is_refused(
    bench: Bench, speaker: tuple[Stage, RawUpstream], audio: object, code: str, param: str
) -> None:
    stage = Stage(bench, bench.make_caller(), speaker[0].model, speaker[0].upstream_name)
    count = len(speaker[1].heard)

    answer = call(stage, messages=named(audio))

    check_error(answer, status=400, type="invalid_request_error", code=code, param=param)
    assert len(speaker[1].heard) == count
