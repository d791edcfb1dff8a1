"""Answers that a provider keeps: who may name them, and in whose account they are looked for.

The demo provider keeps them by the key that it was asked with, as OpenAI does by the account.

Over 400 lines because every case has the same two users and two keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, Final

import httpx
import openai
import pytest
from django.db import connection
from django.db.models import F
from openai.types.responses import Response

from apps.ai_models.models import Route
from apps.audit.models import APIRequest, StoredAnswer
from apps.providers.credentials import add_key
from apps.providers.models import ProviderKey
from apps.proxy.stored_answers import KEPT, digest_of
from tests.e2e.answers import ask as send
from tests.e2e.dialects import Stages
from tests.support.bench import PROVIDER_SECRET, Bench, Caller, Stage

OTHER_SECRET: Final = "sk-another-secret-of-the-tests-0123456789"


def make_stage(bench: Bench, wishes: str = "prompt=10,tokens=12", **values: Any) -> Stage:
    """Return a stage whose provider keeps answers, for two keys."""
    provider = bench.make_provider(dialect="openai-responses", **values)
    add_key(provider=provider, secret=OTHER_SECRET)
    return bench.stage(f"demo-chat:{wishes}", provider=provider)


def ask(stage: Stage, *, is_stream: bool = False, **values: Any) -> Response:
    """Return an answer to the caller of a stage."""
    asked: dict[str, Any] = {"model": stage.model.name, "input": "Say something.", **values}
    client = stage.client(max_retries=0)
    answer: Response
    if not is_stream:
        answer = client.responses.create(**asked)
        return answer
    (answer,) = [
        event.response
        for event in client.responses.create(**asked, stream=True)
        if event.type == "response.completed"
    ]
    return answer


def keys_asked(stage: Stage) -> list[str | None]:
    """Return with which keys the provider was asked, digested."""
    return [call["authorization_sha256"] for call in stage.upstream_calls]


def rows_of(caller: Caller) -> list[StoredAnswer]:
    """Return what is known of a caller's answers."""
    return list(StoredAnswer.objects.filter(user_id=caller.user.pk).order_by("pk"))


@pytest.mark.parametrize("is_stream", [False, True])
def test_an_answer_is_gone_on_from_with_the_key_that_it_was_made_with(
    bench: Bench, is_stream: bool
) -> None:
    stage = make_stage(bench)

    # Keys are drawn: until both were.
    firsts = [ask(stage, is_stream=is_stream)]
    while len(set(keys_asked(stage))) < 2:
        firsts.append(ask(stage, is_stream=is_stream))
    count = len(firsts)
    seconds = [ask(stage, is_stream=is_stream, previous_response_id=first.id) for first in firsts]

    assert [second.previous_response_id for second in seconds] == [first.id for first in firsts]
    keys = keys_asked(stage)
    assert keys[count:] == keys[:count]
    rows = stage.settled(2 * count).rows
    assert [row.state for row in rows] == ["completed"] * 2 * count
    # The earlier answer is read, too, and nobody knows how long it is: a full context is held.
    assert rows[count].hold_nanos > rows[0].hold_nanos
    assert rows[count].hold_nanos >= stage.model.context_length * 1_000


def test_a_row_names_the_owner_and_the_key(bench: Bench) -> None:
    stage = make_stage(bench)

    answer = ask(stage)

    by_digest = {bytes(row.digest): row for row in rows_of(stage.caller)}
    assert set(by_digest) == {digest_of(answer.id), digest_of(answer.output[0].id or "")}
    row = by_digest[digest_of(answer.id)]
    (attempt,) = stage.settled().attempts
    assert (row.provider_id, row.provider_key_id, row.model_id) == (
        attempt.provider_id,
        attempt.provider_key_id,
        stage.model.pk,
    )
    assert row.expires_at - row.created_at == KEPT == timedelta(days=30)


def test_nothing_is_written_of_what_is_not_kept(bench: Bench) -> None:
    stage = make_stage(bench)
    converted = Stages(bench, "anthropic").make()

    ask(stage, store=False)
    ask(converted)
    stage.client().chat.completions.create(**stage.body())

    assert rows_of(stage.caller) == rows_of(converted.caller) == []


def test_strangers_get_what_an_unknown_id_gets(bench: Bench) -> None:
    stage = make_stage(bench)
    first = ask(stage)
    stranger = bench.make_caller()
    client = bench.client(stranger, max_retries=0)

    def refused(call: Callable[[str], object]) -> list[tuple[int, str]]:
        told = []
        for response_id in (first.id, "resp_" + "0" * 29):
            with pytest.raises(openai.APIStatusError) as refusal:
                call(response_id)
            text = str(refusal.value.body).replace(response_id, "the id")
            told.append((refusal.value.status_code, text))
        return told

    for call, status in (
        (client.responses.retrieve, 404),
        (client.responses.delete, 404),
        (client.responses.input_items.list, 404),
        (
            lambda one: next(
                iter(
                    client.responses.create(
                        model=stage.model.name, input="And?", previous_response_id=one, stream=True
                    )
                )
            ),
            400,
        ),
        (
            lambda one: client.responses.create(
                model=stage.model.name, input="And?", previous_response_id=one
            ),
            400,
        ),
        (
            lambda one: client.responses.create(
                model=stage.model.name, input=[{"type": "item_reference", "id": one}]
            ),
            400,
        ),
    ):
        foreign, unknown = refused(call)
        assert foreign == unknown
        assert foreign[0] == status

    assert len(stage.upstream_calls) == 1
    assert bench.statement(stranger).rows == ()
    assert bench.statement(stranger).held_nanos == 0
    assert stage.client().responses.retrieve(first.id) == first


def test_another_key_of_the_same_user_is_no_stranger(bench: Bench) -> None:
    stage = make_stage(bench)
    first = ask(stage)
    again = bench.make_caller(user=stage.caller.user)

    assert bench.client(again).responses.retrieve(first.id) == first


def test_an_unknown_answer_is_refused_as_openai_does(bench: Bench) -> None:
    stage = make_stage(bench)

    with pytest.raises(openai.BadRequestError) as refusal:
        ask(stage, previous_response_id="resp_1")

    assert refusal.value.body == {
        "message": "Previous response with id 'resp_1' not found.",
        "type": "invalid_request_error",
        "param": "previous_response_id",
        "code": "previous_response_not_found",
    }
    assert stage.upstream_calls == []
    assert stage.settled(0).rows == ()


def test_items_of_kept_answers_can_be_named_by_their_owner(bench: Bench) -> None:
    stage = make_stage(bench)
    # Keys are drawn: until both were.
    firsts = [ask(stage)]
    while len(set(keys_asked(stage))) < 2:
        firsts.append(ask(stage))
    hello: Any = {"role": "user", "content": "And?"}

    for first in firsts:
        ask(stage, input=[{"type": "item_reference", "id": first.output[0].id}, hello])
    with pytest.raises(openai.BadRequestError) as refusal:
        ask(stage, input=[hello, {"type": "reasoning", "id": "rs_of_nobody", "summary": []}])

    keys = keys_asked(stage)
    assert keys[len(firsts) :] == keys[: len(firsts)]
    assert (refusal.value.code, refusal.value.param) == ("invalid_value", "input[1].id")


def test_a_conversation_of_the_account_is_nobody_s(bench: Bench) -> None:
    stage = make_stage(bench)

    with pytest.raises(openai.BadRequestError) as refusal:
        ask(stage, conversation="conv_1")

    assert refusal.value.param == "conversation"
    assert stage.upstream_calls == []


def test_kept_answers_are_had_again_free_of_charge(bench: Bench) -> None:
    stage = make_stage(bench)
    firsts = [ask(stage) for _ in range(4)]
    client = stage.client(max_retries=0)
    before = stage.settled(4)

    for first in firsts:
        assert client.responses.retrieve(first.id, include=["reasoning.encrypted_content"]) == first
        (item,) = client.responses.input_items.list(first.id, limit=5).data
        assert item.to_dict()["content"] == [{"type": "input_text", "text": "Say something."}]

    assert bench.statement(stage.caller) == before
    assert APIRequest.objects.filter(user_id=stage.caller.user.pk).count() == 4


def test_what_is_deleted_is_gone_at_both(bench: Bench) -> None:
    stage = make_stage(bench)
    first = ask(stage)
    client = stage.client(max_retries=0)

    client.responses.delete(first.id)

    with pytest.raises(openai.NotFoundError) as refusal:
        client.responses.retrieve(first.id)
    assert refusal.value.code == "response_not_found"
    assert digest_of(first.id) not in {bytes(row.digest) for row in rows_of(stage.caller)}
    with pytest.raises(openai.BadRequestError):
        ask(stage, previous_response_id=first.id)


def test_what_the_provider_has_forgotten_is_not_found(bench: Bench) -> None:
    stage = make_stage(bench)
    first = ask(stage)
    url = bench.demo.base_url + f"/responses/{first.id}"
    deleted = [
        httpx.delete(url, headers={"authorization": f"Bearer {secret}"}).status_code
        for secret in (PROVIDER_SECRET, OTHER_SECRET)
    ]
    assert sorted(deleted) == [200, 404]

    with pytest.raises(openai.NotFoundError):
        stage.client().responses.retrieve(first.id)
    with pytest.raises(openai.BadRequestError) as refusal:
        ask(stage, previous_response_id=first.id)

    assert refusal.value.code == "previous_response_not_found"
    assert refusal.value.param == "previous_response_id"
    assert stage.settled(2).charges[1] == 0


@pytest.mark.parametrize("what", ["key", "provider", "route"])
def test_what_no_key_leads_to_any_more_is_refused(bench: Bench, what: str) -> None:
    stage = make_stage(bench)
    first = ask(stage)
    (row, _) = rows_of(stage.caller)
    if what == "key":
        ProviderKey.objects.filter(pk=row.provider_key_id).update(is_active=False)
    elif what == "provider":
        other = bench.make_provider(dialect="openai-responses")
        Route.objects.filter(model=stage.model).update(provider=other)
    else:
        other = Stages(bench, "anthropic").make().model.routes.get().provider
        Route.objects.filter(model=stage.model).update(provider=other)
    bench.make_caller()  # The gateway sees changes in their order.

    with pytest.raises(openai.BadRequestError) as refusal:
        ask(stage, previous_response_id=first.id)
    with pytest.raises(openai.NotFoundError) as missing:
        stage.client().responses.retrieve(first.id)

    assert refusal.value.code == (
        "unsupported_parameter" if what == "route" else "previous_response_not_found"
    )
    assert refusal.value.param == "previous_response_id"
    assert missing.value.code == "response_not_found"
    assert len(stage.upstream_calls) == 1
    assert stage.settled(1).states == ("completed",)


def test_a_row_whose_time_is_up_leads_nowhere(bench: Bench) -> None:
    stage = make_stage(bench)
    first = ask(stage)
    StoredAnswer.objects.filter(user_id=stage.caller.user.pk).update(expires_at=F("created_at"))

    with pytest.raises(openai.BadRequestError) as refusal:
        ask(stage, previous_response_id=first.id)
    with pytest.raises(openai.NotFoundError):
        stage.client().responses.retrieve(first.id)

    assert refusal.value.code == "previous_response_not_found"
    assert len(stage.upstream_calls) == 1


def test_of_several_providers_the_one_that_keeps_the_answer_goes_on(bench: Bench) -> None:
    stage = make_stage(bench)
    other = bench.make_provider(dialect="openai-responses", secret=OTHER_SECRET + "-third")
    converting = Stages(bench, "anthropic").make().model.routes.get().provider
    for provider in (other, converting):
        Route.objects.create(
            model=stage.model, provider=provider, upstream_name=stage.upstream_name, priority=0
        )
    bench.make_caller()  # The gateway sees changes in their order.

    firsts = [ask(stage) for _ in range(24)]
    providers = [attempt.provider_id for attempt in attempts_in_order(stage, 24)]
    kept = [
        first
        for first, provider in zip(firsts, providers, strict=True)
        if provider != converting.pk
    ]
    for first in kept:
        ask(stage, previous_response_id=first.id)
    unkept = next(
        first
        for first, provider in zip(firsts, providers, strict=True)
        if provider == converting.pk
    )
    with pytest.raises(openai.BadRequestError) as refusal:
        ask(stage, previous_response_id=unkept.id)

    assert len(set(providers)) == 3
    later = [attempt.provider_id for attempt in attempts_in_order(stage, 24 + len(kept))[24:]]
    assert later == [one for one in providers if one != converting.pk]
    assert refusal.value.code == "previous_response_not_found"


def attempts_in_order(stage: Stage, count: int) -> list[Any]:
    """Return the attempts of calls that took one each, in the order of the calls."""
    statement = stage.settled(count)
    by_call = {attempt.request_id: attempt for attempt in statement.attempts}
    assert len(by_call) == len(statement.attempts) == len(statement.rows) == count
    return [by_call[row.id] for row in statement.rows]


@contextmanager
def refusing_rows() -> Iterator[None]:
    """Have the database refuse every row of a stored answer."""
    table = "audit_storedanswer"
    is_sqlite = connection.vendor == "sqlite"
    refuse = (
        "BEGIN SELECT RAISE(ABORT, 'refused'); END"
        if is_sqlite
        else "FOR EACH ROW EXECUTE FUNCTION refuse_change()"
    )
    with connection.cursor() as cursor:
        cursor.execute(f"CREATE TRIGGER refusing BEFORE INSERT ON {table} {refuse}")
    yield
    with connection.cursor() as cursor:
        cursor.execute("DROP TRIGGER refusing" + ("" if is_sqlite else f" ON {table}"))


@pytest.mark.parametrize("is_stream", [False, True])
def test_an_answer_ends_and_is_charged_where_its_place_is_refused(
    bench: Bench, is_stream: bool
) -> None:
    stage = make_stage(bench)

    with refusing_rows():
        first = ask(stage, is_stream=is_stream)

    assert first.output_text
    assert stage.settled().charges == (58_000,)
    assert rows_of(stage.caller) == []
    with pytest.raises(openai.BadRequestError):
        ask(stage, previous_response_id=first.id)
    # And it goes on being written.
    second = ask(stage)
    assert ask(stage, previous_response_id=second.id).previous_response_id == second.id


def test_an_answer_can_be_named_when_its_settlement_comes_out_of_the_journal(bench: Bench) -> None:
    stage = make_stage(bench)
    rename = "ALTER TABLE {} RENAME TO {}"
    with connection.cursor() as cursor:
        cursor.execute(rename.format("audit_storedanswer", "audit_elsewhere"))
    try:
        first = ask(stage)
        # It has ended without the database: its settlement is on disk.
        assert not APIRequest.objects.filter(user_id=stage.caller.user.pk).exists()
    finally:
        with connection.cursor() as cursor:
            cursor.execute(rename.format("audit_elsewhere", "audit_storedanswer"))

    assert stage.settled().charges == (58_000,)
    assert len(rows_of(stage.caller)) == 2
    assert ask(stage, previous_response_id=first.id).previous_response_id == first.id


@pytest.mark.parametrize(
    ("method", "below", "status", "code"),
    [
        ("GET", "?stream=true", 400, "unsupported_parameter"),
        ("GET", "?include[]=a%0d%0ab", 400, "unsupported_parameter"),
        ("GET", "?limit=5", 400, "unsupported_parameter"),
        ("GET", "/input_items?limit=5&other=1", 400, "unsupported_parameter"),
        ("DELETE", "?limit=5", 400, "unsupported_parameter"),
        ("DELETE", "/input_items", 405, "method_not_supported"),
        ("POST", "", 405, "method_not_supported"),
        ("POST", "/cancel", 404, "unknown_url"),
        ("GET", "/../../models", 404, "unknown_url"),
        ("GET", "%2f..%2fmodels", 404, "unknown_url"),
        ("GET", "%0d%0ax", 404, "unknown_url"),
    ],
)
def test_what_is_asked_of_kept_answers_is_checked(
    bench: Bench, method: str, below: str, status: int, code: str
) -> None:
    stage = make_stage(bench)
    first = ask(stage)
    before = len(bench.demo.calls(""))

    path = f"/v1/responses/{first.id}{below}"
    answer = send(bench.gateway, method, path, headers=stage.caller.headers)

    assert (answer.status, answer.error["code"]) == (status, code)
    assert len(bench.demo.calls("")) == before


def test_questions_count_as_requests(bench: Bench) -> None:
    stage = make_stage(bench)
    first = ask(stage)
    limited = bench.make_caller(user=stage.caller.user, rpm=2)
    client = bench.client(limited, max_retries=0)

    client.responses.retrieve(first.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve("resp_1")
    with pytest.raises(openai.RateLimitError):
        client.responses.retrieve(first.id)


def test_the_input_of_a_response_is_counted(bench: Bench, counting: None) -> None:
    stage = make_stage(bench)
    client = stage.client(max_retries=0)

    counted = client.responses.input_tokens.count(model=stage.model.name, input="Say something.")
    with pytest.raises(openai.BadRequestError) as refusal:
        client.responses.input_tokens.count(
            model=stage.model.name, input="And?", previous_response_id="resp_1"
        )

    assert (counted.object, counted.input_tokens) == ("response.input_tokens", 10)
    assert refusal.value.param == "previous_response_id"
    assert stage.upstream_calls == []
    assert stage.settled(0).rows == ()
