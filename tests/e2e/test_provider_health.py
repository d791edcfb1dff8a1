"""Bad keys, circuits, rests and the retry budget, in a gateway with real providers.

Over 400 lines because what one key or route goes through is told from end to end.
"""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from django.utils import timezone

from apps.ai_models.models import AIModel
from apps.audit.models import AdminEvent
from apps.providers.credentials import add_key, change_key
from apps.providers.demo.calls import Call
from apps.providers.health import check_key
from apps.providers.models import Provider, ProviderKey
from apps.providers.tests.listener import Listener, response
from apps.proxy.models import CircuitRest
from tests.e2e.answers import HttpAnswer, ask, check_error
from tests.e2e.raw_upstream import Heard, RawUpstream, completion, respond
from tests.e2e.rows import CHAT, chat
from tests.support.bench import INPUT_NANOS, OUTPUT_NANOS, Bench, Stage
from tests.support.gateway import FAST, DemoThread, GatewayProcess
from tests.support.processes import free_port, wait_until
from tests.support.prometheus import parse

REST_SECONDS = 1.0
CONSTANTS = {
    **FAST,
    "apps.proxy.circuit:REST_SECONDS": REST_SECONDS,
    "apps.proxy.sharing:SHARE_SECONDS": 0.05,
    "apps.proxy.sharing:REST_SECONDS_MIN": 0.5,
}
ANSWER_NANOS = 10 * INPUT_NANOS + 16 * OUTPUT_NANOS
FAILED = response(b'{"error":{"message":"no"}}', "500 Oops", "Connection: close")
ANSWERED = response(
    orjson.dumps(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "m",
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": "Yes."},
                    "finish_reason": "stop",
                }
            ],
            "usage": {"prompt_tokens": 10, "completion_tokens": 16, "total_tokens": 26},
        }
    ),
    "200 OK",
    "Content-Type: application/json",
    "Connection: close",
)

LIMITED = response(b"{}", "429 Wait", "Retry-After: 30", "Connection: close")
NOT_THIS_MODEL = response(
    b'{"error":{"message":"Project `p` does not have access to model `limited`.","code":null}}',
    "403 Forbidden",
    "Connection: close",
)

# What a provider of a chat model says at other endpoints, by path, and what it is asked there.
WRONG_ENDPOINTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "/v1/completions": (
        "404 No",
        "This is a chat model and not supported in the v1/completions endpoint.",
        {"prompt": "x", "max_tokens": 5},
    ),
    "/v1/embeddings": (
        "403 No",
        "You are not allowed to generate embeddings from this model",
        {"input": "x"},
    ),
    "/v1/moderations": ("404 No", "It is not found, or is not supported.", {"input": "x"}),
    "/v1/rerank": ("401 No", "Missing scopes: model.rerank.", {"query": "x", "documents": ["x"]}),
}


def says(answer_of: Callable[[int], bytes]) -> Callable[[socket.socket, threading.Event], None]:
    """Return what a listener says: the answer to the call of that number, from 0."""
    numbers = iter(range(1_000_000))

    def say(connection: socket.socket, stopped: threading.Event) -> None:
        connection.sendall(answer_of(next(numbers)))

    return say


def disabled_keys(provider: Provider) -> dict[int, str]:
    """Return the keys that were disabled automatically, with the reason."""
    rows = ProviderKey.objects.filter(provider=provider, disabled_at__isnull=False)
    return dict(rows.values_list("pk", "disabled_reason"))


def events_of(key: ProviderKey) -> list[str]:
    """Return what happened to a key after it was made."""
    rows = AdminEvent.objects.filter(object_type="providers.providerkey", object_id=str(key.pk))
    actions = rows.exclude(action="provider_key.created").order_by("id")
    return [f"{event.actor_name}: {event.action}" for event in actions]


def read_metric(gateway: GatewayProcess, name: str) -> float:
    """Return the sum of a metric over its labels."""
    _, samples = parse(ask(gateway, "GET", "/metrics").body.decode())
    return sum(value for key, value in samples.items() if key.partition("{")[0] == name)


# ---- rate limits


def test_a_rate_limited_route_is_left_at_once_and_rests_for_as_long_as_asked(
    bench: Bench,
) -> None:
    other = bench.make_provider()
    stage = bench.stage(
        "demo-chat:retry_after=2,fault=status(429)",
        provider=bench.make_provider(),
        fallbacks=[("demo-chat-after429:prompt=10", other)],
    )
    chat(bench.stage(provider=other))  # The connection is there.

    first = chat(stage)
    rested = [chat(stage).status for _ in range(5)]
    count = len(stage.upstream_calls)
    wait_until(
        lambda: chat(stage).status == 200 and len(stage.upstream_calls) == 2,
        timeout_seconds=5,
        what="the end of the rest",
    )

    assert (first.status, rested) == (200, [200] * 5)
    assert count == 1
    first_call, second_call = stage.upstream_calls
    assert second_call["started_at"] - first_call["started_at"] > 1.9
    statement = stage.settled(7)
    limited, answered = statement.attempts[:2]
    assert (limited.outcome, answered.outcome) == ("upstream_rate_limited", "answered")
    ended_at = limited.started_at + timedelta(milliseconds=limited.duration_ms)
    assert answered.started_at - ended_at < timedelta(milliseconds=100)
    assert set(statement.charges) == {ANSWER_NANOS}


@pytest.mark.parametrize("refusal", [LIMITED, NOT_THIS_MODEL], ids=["429", "403"])
def test_a_key_that_is_refused_for_one_model_rests_alone_and_on_its_route_only(
    bench: Bench, refusal: bytes
) -> None:
    with Listener(says(lambda n: ANSWERED)) as listener:
        heard: list[bytes] = []

        def say(connection: socket.socket, stopped: threading.Event) -> None:
            key = next(
                line for line in listener.heard[-1].split(b"\r\n") if b"authorization" in line
            )
            model = orjson.loads(listener.bodies[-1])["model"]
            heard.append(key[-5:] + b" " + model.encode())
            is_limited = key.endswith(b"first") and model == "limited"
            connection.sendall(refusal if is_limited else ANSWERED)

        listener.answer = say
        provider = bench.make_provider(
            listener.base_url, secret="sk-the-first", key_strategy="round_robin"
        )
        add_key(provider=provider, secret="sk-the-other")
        limited = bench.make_model("limited", provider=provider)
        free = bench.make_model("free", provider=provider)
        caller = bench.make_caller()
        bench.wait_for_model(free, caller)

        statuses = [
            chat(Stage(bench, caller, model, "")).status for model in [limited] * 5 + [free] * 4
        ]

    assert statuses == [200] * 9
    counted = Counter(heard)
    assert counted[b"first limited"] == 1
    assert counted[b"other limited"] == 5
    assert (counted[b"first free"], counted[b"other free"]) == (2, 2)
    assert disabled_keys(provider) == {}


@pytest.mark.parametrize(("is_sticky", "rpm"), [(False, None), (True, None), (True, 1_000)])
def test_the_further_attempt_is_with_the_other_key_however_keys_are_chosen(
    bench: Bench, is_sticky: bool, rpm: int | None
) -> None:
    unknown = response(b'{"error":{"code":"model_not_found"}}', "404 No", "Connection: close")
    with Listener(says(lambda n: ANSWERED)) as listener:

        def say(connection: socket.socket, stopped: threading.Event) -> None:
            is_first = b"sk-the-first" in listener.heard[-1]
            connection.sendall(unknown if is_first else ANSWERED)

        listener.answer = say
        provider = bench.make_provider(
            listener.base_url, secret="sk-the-first", failures_max=1_000, rpm=rpm
        )
        # All but never chosen by its weight, at random or for a sticky key.
        other = add_key(provider=provider, secret="sk-the-other", weight=1)
        provider.keys.exclude(pk=other.pk).update(weight=1_000_000)
        stage = bench.stage(provider=provider)
        AIModel.objects.filter(pk=stage.model.pk).update(is_sticky=is_sticky)
        bench.make_caller(0)  # The gateway has seen it.

        statuses = [chat(stage).status for _ in range(4)]

    assert statuses == [200] * 4
    attempts = stage.settled(4).attempts
    assert [attempt.outcome for attempt in attempts] == ["model_not_available", "answered"] * 4
    assert {a.provider_key_id for a in attempts if a.outcome == "answered"} == {other.pk}


# ---- bad keys


def test_a_refused_key_is_disabled_alone_and_the_others_go_on(bench: Bench) -> None:
    strict = DemoThread(api_key="sk-the-right-one")
    try:
        provider = bench.make_provider(
            strict.base_url, secret="sk-the-wrong-one", key_strategy="round_robin"
        )
        wrong = provider.keys.get()
        right = add_key(provider=provider, secret="sk-the-right-one")
        stage = bench.stage(provider=provider)

        statuses = [chat(stage, stream=number % 2 == 1).status for number in range(6)]
        wait_until(
            lambda: disabled_keys(provider) != {}, timeout_seconds=5, what="the disabled key"
        )
        calls = strict.ended(stage.upstream_name)
    finally:
        strict.stop()

    assert statuses == [200] * 6
    assert [call["status"] for call in calls] == [200] * 6
    assert disabled_keys(provider) == {wrong.pk: "auth"}
    assert events_of(wrong) == ["system: provider_key.disabled"]
    assert events_of(right) == []
    statement = stage.settled(6)
    # Each attempt is a row, and the client pays once.
    assert sorted(row.attempt_count for row in statement.rows) == [1, 1, 1, 1, 1, 2]
    assert [a.provider_key_id for a in statement.attempts if a.status_code == 401] == [wrong.pk]
    assert statement.charges == (ANSWER_NANOS,) * 6
    assert "is used no more: upstream_auth_error" in bench.gateway.log()


def test_a_key_that_works_again_is_used_again_by_a_check_or_by_hand(bench: Bench) -> None:
    provider = bench.make_provider()
    stage = bench.stage("demo-chat:fault=status(402)", provider=provider)
    key = provider.keys.get()

    def call_until_disabled() -> None:
        wait_until(
            lambda: chat(stage).status == 503 and disabled_keys(provider) == {key.pk: "balance"},
            timeout_seconds=5,
            what="the disabled key",
        )
        key.refresh_from_db()

    call_until_disabled()
    # The list of models is answered although chats are not.
    is_enabled = check_key(key=key, now=timezone.now())
    wait_until(
        lambda: chat(stage).status == 503 and len(stage.upstream_calls) == 2,
        timeout_seconds=5,
        what="a call with the key that was enabled",
    )
    call_until_disabled()
    change_key(key=key, values={}, secret="sk-another-secret-0123456789")
    wait_until(
        lambda: chat(stage).status == 503 and len(stage.upstream_calls) == 3,
        timeout_seconds=5,
        what="a call with the new secret",
    )

    assert is_enabled
    assert events_of(key)[:4] == [
        "system: provider_key.disabled",
        "system: provider_key.enabled",
        "system: provider_key.disabled",
        "system: provider_key.secret_replaced",
    ]


def test_a_client_cannot_put_a_key_out_of_use_by_what_it_writes(bench: Bench) -> None:
    provider = bench.make_provider(failures_max=1_000)
    page = response(b"<html>blocked</html>", "403 Forbidden", "Content-Type: text/html")
    echo = response(
        b'{"error":{"message":"Invalid value: \'insufficient funds\'"}}', "400 Bad Request"
    )
    forbidden = (
        response(b'{"error":{"code":403,"message":"%b"}}' % told, "403 Forbidden")
        for told in (
            b"Your input was flagged for violence.",
            b"You do not have permission to access the File x or it may not exist.",
            b"Not today.",
        )
    )
    answers = [page, echo, *forbidden, ANSWERED]
    with Listener(says(lambda number: answers[number])) as listener:
        Provider.objects.filter(pk=provider.pk).update(base_url=listener.base_url)
        stage = bench.stage(provider=provider)

        statuses = [chat(stage).status for _ in answers]
        time.sleep(0.3)

    assert statuses == [502, 503, 400, 400, 502, 200]
    assert disabled_keys(provider) == {}


def test_a_model_that_no_key_may_use_takes_the_key_from_no_other_model(bench: Bench) -> None:
    answers = [NOT_THIS_MODEL, ANSWERED, NOT_THIS_MODEL, ANSWERED]
    with Listener(says(lambda number: answers[number])) as listener:
        provider = bench.make_provider(listener.base_url)
        limited, free = bench.stages("limited", "free", provider=provider)

        refused = [chat(stage) for stage in (limited, free, limited, free)]

    assert [answer.status for answer in refused] == [503, 200, 503, 200]
    assert refused[0].error["code"] == "model_not_available"
    assert limited.settled(2).charges == (0, 0)
    assert disabled_keys(provider) == {}


def test_a_model_at_the_wrong_endpoint_is_taken_from_nobody(bench: Bench) -> None:
    asked: list[str] = []

    def say(connection: socket.socket, stopped: threading.Event) -> None:
        asked.append(listener.heard[-1].split()[1].decode())
        if asked[-1] in WRONG_ENDPOINTS:
            status, message, _ = WRONG_ENDPOINTS[asked[-1]]
            told = orjson.dumps({"error": {"message": message, "type": "invalid_request_error"}})
            connection.sendall(response(told, status, "Connection: close"))
        else:
            connection.sendall(ANSWERED)

    with Listener(say) as listener:
        provider = bench.make_provider(listener.base_url)
        stage = bench.stage(
            provider=provider, fallbacks=[("demo-chat-dearer:fault=status(500)", None)]
        )
        alone = bench.stage(provider=provider)

        def ask_at(path: str, stage: Stage) -> HttpAnswer:
            body = orjson.dumps({"model": stage.model.name, **WRONG_ENDPOINTS[path][2]})
            headers = stage.caller.headers
            return ask(bench.gateway, "POST", path, headers=headers, body=body)

        statuses = [chat(stage).status]
        for path in WRONG_ENDPOINTS:
            for _ in range(6):
                ask_at(path, stage)
            statuses.append(chat(stage).status)
        refused = [ask_at(path, alone) for path in WRONG_ENDPOINTS]

    assert statuses == [200] * 5
    counts = {"/v1/chat/completions": 5, **dict.fromkeys(WRONG_ENDPOINTS, 7)}
    assert Counter(asked) == counts
    assert disabled_keys(provider) == {}
    assert [answer.error["code"] for answer in refused] == [
        "model_not_supported", "model_not_supported", "model_not_available", "upstream_auth_error",
    ]  # fmt: skip
    assert [answer.status for answer in refused] == [404, 404, 503, 502]


# ---- circuits


def test_a_route_that_fails_every_other_call_is_left_and_no_client_notices(bench: Bench) -> None:
    with Listener(says(lambda number: ANSWERED if number % 2 else FAILED)) as listener:
        stage = bench.stage(
            provider=bench.make_provider(listener.base_url),
            fallbacks=[("demo-chat-steady:prompt=10", None)],
        )
        begun = time.monotonic()
        statuses = [chat(stage).status for _ in range(100)]
        took = time.monotonic() - begun

    assert statuses == [200] * 100
    rests = CircuitRest.objects.get(route_id=stage.model.routes.get(priority=0).pk)
    assert (rests.reason, rests.provider_key_id) == ("upstream_error", 0)
    # 21 calls until it opened, and some probes since, each of which may have closed it.
    assert listener.connections < 40 + 21 * took / REST_SECONDS
    attempts = stage.settled(100).attempts
    failed = [attempt for attempt in attempts if attempt.outcome == "upstream_error"]
    assert len(failed) == sum(1 for number in range(listener.connections) if number % 2 == 0)


def test_the_last_route_is_tried_whatever_its_circuit_says(bench: Bench) -> None:
    stage = bench.stage("demo-chat:fault=flaky(12)", provider=bench.make_provider())

    statuses = [chat(stage).status for _ in range(13)]

    assert statuses == [502] * 12 + [200]
    assert len(stage.upstream_calls) == 13


def test_recovery_is_noticed_by_one_probe(bench: Bench) -> None:
    stage = bench.stage(
        "demo-chat:prompt=10,fault=flaky(5)",
        provider=bench.make_provider(),
        fallbacks=[("demo-chat-reserve:prompt=10", None)],
    )

    statuses = [chat(stage).status for _ in range(8)]
    while_open = len(stage.upstream_calls)
    time.sleep(REST_SECONDS + 0.1)
    statuses += [chat(stage).status for _ in range(4)]

    assert statuses == [200] * 12
    assert while_open == 5
    assert [call["status"] for call in stage.upstream_calls] == [500] * 5 + [200] * 4


def test_where_nobody_listens_the_next_route_answers_within_a_second(bench: Bench) -> None:
    stage = bench.stage(
        provider=bench.make_provider(f"http://127.0.0.1:{free_port()}/v1"),
        fallbacks=[("demo-chat-listens:prompt=10", None)],
    )

    begun = time.monotonic()
    answer = chat(stage)

    assert (answer.status, time.monotonic() - begun < 1.0) == (200, True)
    assert [attempt.outcome for attempt in stage.settled().attempts] == [
        "upstream_unreachable",
        "answered",
    ]


# ---- the retry budget


def test_when_everything_fails_providers_get_at_most_a_fifth_more_calls(bench: Bench) -> None:
    names = [f"demo-chat-storm{number}:latency=0.4,fault=status(500)" for number in range(2)]
    stage = bench.stage(
        "demo-chat:latency=0.4,fault=status(500)",
        provider=bench.make_provider(),
        fallbacks=[(name, bench.make_provider()) for name in names],
    )
    clients, rounds = 50, 8

    def call_often(_: int) -> list[HttpAnswer]:
        return [chat(stage) for _ in range(rounds)]

    with ThreadPoolExecutor(clients) as pool:
        answers = [answer for found in pool.map(call_often, range(clients)) for answer in found]

    assert Counter(answer.status for answer in answers) == {502: 400}
    calls = [*stage.upstream_calls, *(call for name in names for call in ended(bench, name))]
    assert 400 < len(calls) <= 480
    statement = stage.settled(400)
    assert len(statement.attempts) == len(calls)
    assert (set(statement.charges), statement.entries) == ({0}, ())
    assert read_metric(bench.gateway, "gateway_retry_budget_exhausted_total") > 100
    assert read_metric(bench.gateway, "gateway_upstream_retries_total") >= len(calls) - 400


def ended(bench: Bench, name: str) -> list[Call]:
    """Return the calls of a model of the demo provider, all ended."""
    return bench.demo.ended(name)


def test_a_client_alone_is_given_both_further_attempts(bench: Bench) -> None:
    stage = bench.stage(
        "demo-chat:fault=status(500)",
        provider=bench.make_provider(),
        fallbacks=[
            ("demo-chat-alone1:fault=status(500)", bench.make_provider()),
            ("demo-chat-alone2:prompt=10", None),
        ],
    )

    assert [chat(stage).status for _ in range(4)] == [200] * 4
    assert {row.attempt_count for row in stage.settled(4).rows} == {3}


# ---- several processes


@pytest.mark.postgres
def test_what_one_gateway_finds_out_the_others_know_within_a_second(
    bench: Bench, tmp_path: Path
) -> None:
    other = GatewayProcess.start(
        tmp_path, bench.database, constants={**CONSTANTS, "apps.proxy.circuit:REST_SECONDS": 20.0}
    )
    try:
        refused = bench.make_provider()
        stage = bench.stage(
            "demo-chat:fault=status(500)",
            provider=bench.make_provider(),
            fallbacks=[("demo-chat-shared:prompt=10", None)],
        )
        keyless = bench.stage("demo-chat:fault=status(401)", provider=refused)

        def call_other(asked: Stage) -> HttpAnswer:
            return ask(
                other,
                "POST",
                CHAT,
                headers=asked.caller.headers,
                body=orjson.dumps(asked.body()),
            )

        wait_until(
            lambda: other.get("/v1/models", keyless.caller.raw) == 200,
            timeout_seconds=20,
            what="the caller",
        )
        statuses = [call_other(stage).status for _ in range(5)]
        assert call_other(keyless).status == 502
        wait_until(
            lambda: (
                read_metric(bench.gateway, "gateway_circuits_open") == 1
                and disabled_keys(refused) != {}
            ),
            timeout_seconds=20,
            what="the news",
        )
        time.sleep(0.3)
        mine = [chat(stage).status for _ in range(3)]
        answer = chat(keyless)
    finally:
        other.stop()

    assert (statuses, mine) == ([200] * 5, [200] * 3)
    assert len(stage.upstream_calls) == 5
    assert len(keyless.upstream_calls) == 1
    check_error(
        answer,
        status=502,
        type="server_error",
        code="upstream_auth_error",
        retries=True,
        has_retry_after=True,
    )


def test_connections_that_were_forgotten_cost_one_attempt_and_blame_nobody(bench: Bench) -> None:
    def answer_together() -> Iterator[bytes]:
        while len(upstream.heard) < 3:  # Each of the first has a connection of its own.
            yield b""
        yield respond(completion("Yes."))

    def say(heard: Heard) -> Iterable[bytes]:
        # As behind a box that forgets what was idle: closed at the next request.
        is_forgotten = len(upstream.heard) > 3 and upstream.connections <= 3
        return [] if is_forgotten else answer_together()

    with RawUpstream(say) as upstream:
        provider = bench.make_provider(upstream.base_url, failures_max=1)
        stage = bench.stage(provider=provider)

        with ThreadPoolExecutor(3) as pool:
            first = [answer.status for answer in pool.map(lambda _: chat(stage), range(3))]
        then = [chat(stage).status for _ in range(2)]
        connections = upstream.connections

    assert (first, then, connections) == ([200] * 3, [200] * 2, 4)
    outcomes = Counter(attempt.outcome for attempt in stage.settled(5).attempts)
    assert outcomes == {"answered": 5, "upstream_unreachable": 1}
    assert f"to provider {provider.name} rests" not in bench.gateway.log()
