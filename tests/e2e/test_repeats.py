"""Calls with an `Idempotency-Key`: one is carried out, its repeats get what it was answered.

Over 400 lines because E27 to E31 share their set-up.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import openai
import orjson
import pytest

from apps.audit.models import CallKey
from apps.audit.retention import Selection, erase_payloads
from apps.billing.adjustments import adjust_balance
from tests.e2e.answers import HttpAnswer, ask, check_error
from tests.e2e.keyed import post, stream
from tests.e2e.rows import CONSTANTS, PLANT, check_nothing_happened
from tests.e2e.wire import RawConnection, body_of, events_of, head_of, post_bytes
from tests.support.bench import DOLLAR, INPUT_NANOS, OUTPUT_NANOS, Bench, Stage
from tests.support.people import rest_client
from tests.support.processes import wait_until

__all__ = ["CONSTANTS", "PLANT"]

CHARGE = 10 * INPUT_NANOS + 16 * OUTPUT_NANOS
TYPE = "idempotency_error"


# ---- E30: the same answer again


def test_a_repeat_gets_the_same_answer_and_costs_nothing(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10")

    first, second, third = (post(stage) for _ in range(3))

    statement = stage.settled()
    assert (first.status, second.status) == (200, 200)
    assert second.body == first.body
    assert third.body == first.body
    assert "idempotent-replayed" not in first.headers
    assert second.headers["idempotent-replayed"] == "true"
    assert "x-should-retry" not in second.headers
    assert second.headers["x-request-id"] == str(statement.rows[0].id)
    assert second.headers["content-type"] == first.headers["content-type"]
    assert statement.charges == (CHARGE,)
    assert len(stage.upstream_calls) == 1


def test_the_official_sdk_gets_its_answer_again(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10")
    client = stage.client()
    asked = {**stage.body(), "extra_headers": {"Idempotency-Key": "sdk"}}

    first = client.chat.completions.create(**asked)
    second = client.chat.completions.with_raw_response.create(**asked)
    streamed = [list(client.chat.completions.create(**asked_stream(stage))) for _ in range(2)]

    assert second.headers["idempotent-replayed"] == "true"
    assert second.parse() == first
    assert streamed[0] == streamed[1]
    assert stage.settled(2).charges == (CHARGE, CHARGE)


def asked_stream(stage: Stage) -> dict[str, Any]:
    return {**stage.body(stream=True), "extra_headers": {"Idempotency-Key": "sdk-stream"}}


def test_the_official_sdk_s_own_option_is_the_header(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10")
    client = stage.client()
    client._idempotency_header = "Idempotency-Key"

    answers = [
        client.post(
            "/chat/completions",
            cast_to=object,
            body=stage.body(),
            options={"idempotency_key": "own"},
        )
        for _ in range(2)
    ]

    assert answers[0] == answers[1]
    assert stage.settled().charges == (CHARGE,)


@pytest.mark.parametrize("usage", [True, False])
def test_a_stream_is_repeated_to_the_byte(bench: Bench, usage: bool) -> None:
    stage = bench.stage("demo-chat:prompt=10")
    options = {"include_usage": usage}

    first, second = (stream(stage, stream_options=options) for _ in range(2))

    (_, headers), (status, again) = head_of(first), head_of(second)
    assert (status, again["idempotent-replayed"]) == (200, "true")
    assert again["content-type"] == headers["content-type"] == "text/event-stream; charset=utf-8"
    assert body_of(second) == body_of(first)
    assert events_of(second)[-1] == "[DONE]"
    assert stage.settled().charges == (CHARGE,)
    assert len(stage.upstream_calls) == 1


def test_a_json_answer_to_a_stream_is_repeated_to_the_byte(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10,fault=json_for_stream")

    first, second = (stream(stage) for _ in range(2))

    assert head_of(second)[1]["idempotent-replayed"] == "true"
    assert body_of(second) == body_of(first)
    assert body_of(second).count(b"[DONE]") == 1
    assert len(stage.upstream_calls) == 1


def test_an_embedding_is_repeated(bench: Bench) -> None:
    stage = bench.stage("demo-embedding:prompt=10")
    body = orjson.dumps({"model": stage.model.name, "input": "text"})

    first, second = (post(stage, path="/v1/embeddings", body=body) for _ in range(2))

    assert (first.status, second.status, second.body) == (200, 200, first.body)
    assert len(stage.settled().rows) == 1


def test_a_lowered_output_cap_is_told_again(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10")
    # What it covers is some hundred tokens less than the model may answer.
    poor = bench.make_caller(3_000_000)

    first, second = (post(stage, caller=poor) for _ in range(2))

    assert first.status == 200
    assert second.headers["x-gateway-output-cap"] == first.headers["x-gateway-output-cap"]


def test_a_final_error_is_repeated_and_not_to_be_retried(bench: Bench) -> None:
    stage = bench.stage("demo-chat:fault=status(400)")

    first, second = (post(stage) for _ in range(2))

    assert (first.status, second.status) == (400, 400)
    assert second.body == first.body
    assert (second.headers["idempotent-replayed"], second.headers["x-should-retry"]) == (
        "true",
        "false",
    )
    assert stage.settled().charges == (0,)
    assert len(stage.upstream_calls) == 1


def test_a_client_that_left_at_the_end_gets_its_answer_when_it_asks_again(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10,fault=slow_first(0.5)")
    sent = orjson.dumps(stage.body())
    with RawConnection(bench.gateway.port) as connection:
        connection.send(post_bytes(stage.caller, sent, extra="Idempotency-Key: once\r\n"))
        wait_until(
            lambda: CallKey.objects.filter(user_id=stage.caller.user.pk).exists(),
            timeout_seconds=5,
            what="the claim",
        )
        running = post(stage)
        connection.read_until(b"\r\n\r\n")

    answer = post(stage)

    check_error(
        running,
        status=409,
        type=TYPE,
        code="idempotency_in_progress",
        retries=True,
        has_retry_after=True,
        retry_after="1",
    )
    assert (answer.status, answer.headers["idempotent-replayed"]) == (200, "true")
    assert stage.settled().charges == (CHARGE,)


def test_the_same_key_is_the_same_call_under_both_prefixes_and_of_all_keys_of_a_user(
    bench: Bench,
) -> None:
    stage = bench.stage("demo-chat:prompt=10")
    other_key = bench.make_caller(user=stage.caller.user)

    answers = [
        post(stage),
        post(stage, path="/api/v1/chat/completions/"),
        post(stage, caller=other_key),
    ]

    assert [answer.body for answer in answers] == [answers[0].body] * 3
    assert len(stage.settled().rows) == 1


# ---- E28 and E29


def test_e28_the_order_of_members_does_not_matter_and_one_character_does(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10")
    name = stage.model.name
    first = post(
        stage,
        body=orjson.dumps(
            {"model": name, "messages": [{"role": "user", "content": "a"}], "user": "é", "top_p": 1}
        ),
    )

    same = post(
        stage,
        body=b'{ "top_p": 1, "user": "\\u00e9",\n "messages": [{"content": "a", "role": "user"}],'
        b' "model": "%s" }' % name.encode(),
    )
    other = post(
        stage,
        body=orjson.dumps(
            {"model": name, "messages": [{"role": "user", "content": "b"}], "user": "é", "top_p": 1}
        ),
    )

    assert (first.status, same.status, same.body) == (200, 200, first.body)
    check_error(other, status=422, type=TYPE, code="idempotency_key_reused")
    assert stage.settled().charges == (CHARGE,)
    assert len(stage.upstream_calls) == 1


def test_e28_another_path_is_another_call(bench: Bench) -> None:
    stage = bench.stage("demo-embedding:prompt=10")
    body = orjson.dumps({"model": stage.model.name, "input": "text"})
    first = post(stage, path="/v1/embeddings", body=body)

    other = post(stage, path="/v1/moderations", body=body)

    assert first.status == 200
    check_error(other, status=422, type=TYPE, code="idempotency_key_reused")
    assert len(stage.settled().rows) == 1


@pytest.mark.parametrize("key", ["", "x" * 256, "tab\tinside", "caf\xe9"])
def test_e29_a_malformed_key(bench: Bench, key: str) -> None:
    stage = bench.stage()

    answer = post(stage, key)

    check_error(answer, status=400, type=TYPE, code="invalid_idempotency_key")
    check_nothing_happened(stage)
    assert not CallKey.objects.filter(user_id=stage.caller.user.pk).exists()


def test_a_key_of_255_characters_is_one(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10")
    key = "~ " * 127 + "~"

    answers = [post(stage, key) for _ in range(2)]

    assert [answer.status for answer in answers] == [200, 200]
    assert len(stage.settled().rows) == 1


# ---- I-34: nothing of another user


def test_another_user_with_the_same_key_makes_a_call_of_his_own(bench: Bench) -> None:
    stage, other = bench.stage("demo-chat:prompt=10"), bench.make_caller()
    post(stage)

    answer = post(stage, caller=other)
    changed = post(stage, caller=other, temperature=0.5)

    assert answer.status == 200
    assert "idempotent-replayed" not in answer.headers
    assert bench.settled(other, 1).charges == (CHARGE,)
    check_error(changed, status=422, type=TYPE, code="idempotency_key_reused")
    assert str(stage.settled().rows[0].id) not in changed.body.decode() + answer.body.decode()


# ---- I-36: who was refused may try again


def test_a_call_that_was_refused_does_not_burn_its_key(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10")
    poor = bench.make_caller(0)
    refused = post(stage, caller=poor, max_tokens=100)
    malformed = post(stage, caller=poor, max_tokens=-1)
    adjust_balance(
        customer_id=poor.user.customer_id, amount_nanos=DOLLAR, actor=None, reason="a top-up"
    )

    answer = post(stage, caller=poor, max_tokens=100)

    assert (refused.status, refused.error["code"]) == (429, "credit_balance_exhausted")
    assert malformed.status == 400
    assert answer.status == 200
    assert "idempotent-replayed" not in answer.headers


def test_a_call_that_failed_uncharged_does_not_burn_its_key(bench: Bench) -> None:
    stage = bench.stage("demo-chat:fault=status(500)")

    first, second = (post(stage) for _ in range(2))

    assert (first.status, second.status) == (502, 502)
    assert "idempotent-replayed" not in second.headers
    assert len(stage.settled(2).rows) == 2
    assert not CallKey.objects.filter(user_id=stage.caller.user.pk).exists()


def test_32_at_once_with_an_empty_wallet_are_all_told_so(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10")
    poor = bench.make_caller(0)

    answers = at_once(32, lambda: post(stage, caller=poor, max_tokens=100))

    codes = {answer.error["code"] for answer in answers}
    assert codes == {"credit_balance_exhausted"}
    check_nothing_happened(stage, poor)


def at_once(count: int, act: Any) -> list[HttpAnswer]:
    barrier = threading.Barrier(count, timeout=20)

    def run() -> HttpAnswer:
        barrier.wait()
        answer: HttpAnswer = act()
        return answer

    with ThreadPoolExecutor(count) as threads:
        return [future.result() for future in [threads.submit(run) for _ in range(count)]]


def test_64_at_once_are_one_call(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10,fault=slow_first(0.3)")

    answers = at_once(64, lambda: post(stage))

    made = [answer for answer in answers if answer.status == 200]
    running = [answer for answer in answers if answer.status == 409]
    assert len(made) + len(running) == 64
    assert {answer.body for answer in made} == {made[0].body}
    assert {answer.error["code"] for answer in running} <= {"idempotency_in_progress"}
    assert len([a for a in made if "idempotent-replayed" not in a.headers]) == 1
    assert stage.settled().charges == (CHARGE,)
    assert len(stage.upstream_calls) == 1


def test_the_sdk_waits_for_a_call_that_still_runs(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10,fault=slow_first(0.5)")
    asked = {**stage.body(), "extra_headers": {"Idempotency-Key": "once"}}
    client = stage.client(max_retries=500)

    with ThreadPoolExecutor(4) as threads:
        futures = [
            threads.submit(lambda: client.chat.completions.create(**asked)) for _ in range(4)
        ]
        answers = [future.result() for future in futures]

    assert {answer.id for answer in answers} == {answers[0].id}
    assert stage.settled().charges == (CHARGE,)


@pytest.mark.parametrize("is_stream", [False, True], ids=["whole", "stream"])
def test_who_left_an_answer_that_was_read_on_and_paid_gets_it_when_he_asks_again(
    bench: Bench, is_stream: bool
) -> None:
    provider = bench.make_provider(leaving_policy="drain", drain_seconds=10)
    stage = bench.stage("demo-chat:prompt=10,latency=0.5", provider=provider)
    sent = orjson.dumps(stage.body(stream=is_stream))
    connection = RawConnection(bench.gateway.port)
    connection.send(post_bytes(stage.caller, sent, extra="Idempotency-Key: once\r\n"))
    wait_until(
        lambda: bool(bench.demo.calls(stage.upstream_name)), timeout_seconds=5, what="the call"
    )
    connection.close()
    statement = stage.settled()

    answer = post(stage, stream=is_stream)

    assert (statement.states, statement.charges) == (("client_disconnected",), (CHARGE,))
    assert (answer.status, answer.headers["idempotent-replayed"]) == (200, "true")
    assert b"This" in answer.body
    assert answer.body.endswith(b"data: [DONE]\n\n" if is_stream else b"}")
    assert stage.settled().charges == (CHARGE,)
    assert len(stage.upstream_calls) == 1


# ---- E31: charged, and not kept


def test_e31_what_was_cut_in_the_middle_is_not_made_again(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10,fault=cut_after(5)")
    first = stream(stage)
    (row,) = stage.settled().rows

    answer = post(stage, stream=True)

    assert body_of(first) != b""
    assert row.charge_nanos > 0
    check_error(answer, status=409, type=TYPE, code="idempotent_result_unavailable")
    assert str(row.id) in answer.error["message"]
    assert len(stage.upstream_calls) == 1
    with pytest.raises(openai.ConflictError):  # The SDK does not try again.
        stage.client().chat.completions.create(
            **stage.body(stream=True), extra_headers={"Idempotency-Key": "once"}
        )


@pytest.mark.parametrize(("size", "is_kept"), [(900_000, True), (1_100_000, False)])
def test_e31_more_than_a_mebibyte_is_not_kept(bench: Bench, size: int, is_kept: bool) -> None:
    stage = bench.stage(f"demo-chat:prompt=10,fault=big_body({size})")
    first = post(stage)
    assert (first.status, len(first.body) > 1 << 20) == (200, not is_kept)

    answer = post(stage)

    if is_kept:
        assert (answer.status, answer.body) == (200, first.body)
    else:
        check_error(answer, status=409, type=TYPE, code="idempotent_result_unavailable")
    assert len(stage.settled().rows) == 1


def test_e31_after_the_bodies_were_erased(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10")
    post(stage)
    stage.settled()

    erase_payloads(Selection(user_id=stage.caller.user.pk), reason="test")

    check_error(post(stage), status=409, type=TYPE, code="idempotent_result_unavailable")
    assert len(stage.settled().rows) == 1


# ---- what is stored


def test_key_and_answer_cannot_be_read_in_the_database(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10")
    first = post(stage, "sk-CANARY-idempotency-key")
    text = orjson.loads(first.body)["choices"][0]["message"]["content"]
    assert len(text) > 20

    row = CallKey.objects.get(user_id=stage.caller.user.pk)
    stored = b"".join([bytes(row.digest), bytes(row.fingerprint), bytes(row.body or b"")])

    assert b"CANARY" not in stored + row.headers.encode()
    assert text.encode() not in stored
    assert b"\x28\xb5\x2f\xfd" not in stored  # the beginning of a compressed body
    assert "CANARY" not in bench.gateway.log()


def test_one_finds_the_call_of_a_key_over_rest_and_nobody_else_s(bench: Bench) -> None:
    stage, other = bench.stage("demo-chat:prompt=10"), bench.make_caller()
    post(stage, "mine")
    (row,) = stage.settled().rows
    path = "/api/user/requests/?idempotency_key="

    mine = rest_client(stage.caller.user).get(path + "mine").json()["results"]
    unknown = rest_client(stage.caller.user).get(path + "yours").json()["results"]
    theirs = rest_client(other.user).get(path + "mine").json()["results"]

    assert [found["id"] for found in mine] == [str(row.id)]
    assert (unknown, theirs) == ([], [])


def test_a_call_without_a_key_leaves_nothing_to_repeat(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10")
    client = stage.client()

    for _ in range(2):
        client.chat.completions.create(**stage.body())

    assert stage.settled(2).charges == (CHARGE, CHARGE)
    assert not CallKey.objects.filter(user_id=stage.caller.user.pk).exists()


def test_replays_are_counted(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10")
    before = replays(bench)

    post(stage)
    post(stage)

    assert replays(bench) == before + 1


def replays(bench: Bench) -> int:
    text = ask(bench.gateway, "GET", "/metrics").body.decode()
    found = [line for line in text.splitlines() if line.startswith("gateway_replays_total{")]
    return sum(int(float(line.rpartition(" ")[2])) for line in found)
