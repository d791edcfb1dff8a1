"""Rules that refuse calls, in every dialect: rows E25 and E26, what they leave on record, and what
they keep from happening.
"""

from __future__ import annotations

import json
from typing import Any, Final
from uuid import UUID

import anthropic
import openai
import orjson
import pytest
from django.db import connection

from apps.audit.models import RefusalCount
from apps.risk.models import RiskFinding, RiskRule
from tests.e2e.answers import HttpAnswer, ask, check_error, check_nothing_leaks
from tests.e2e.rows import CHAT, INVALID, chat, check_nothing_happened
from tests.support.bench import Bench, Caller, Stage
from tests.support.gateway import FAST
from tests.support.processes import wait_until
from tests.support.risk import make_rule

# Rules are judged before any database is asked; how they are loaded is tested on both.
pytestmark = pytest.mark.sqlite

CONSTANTS = FAST
# Counts are written with the heartbeat: every half second instead of every ten.
PLANT = ["tests.e2e.planted:shorten_patience"]

SECONDS: Final = 15
TOLD: Final = "Ask your administrator."
# Path, and a body that says the text, for each dialect.
DIALECTS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "anthropic": (
        "/v1/messages", {"max_tokens": 20, "messages": [{"role": "user", "content": "TEXT"}]},
    ),
    "gemini": (
        "/v1beta/models/MODEL:generateContent", {"contents": [{"parts": [{"text": "TEXT"}]}]},
    ),
    "openai": (CHAT, {"messages": [{"role": "user", "content": "TEXT"}]}),
    "openai-responses": ("/v1/responses", {"input": "TEXT"}),
}  # fmt: skip
ENDPOINTS: Final[dict[str, dict[str, Any]]] = {
    "completions": {"prompt": "TEXT"},
    "embeddings": {"input": ["x", "TEXT"]},
    "moderations": {"input": "TEXT"},
    "rerank": {"query": "x", "documents": ["TEXT"]},
}


def _say(stage: Stage, dialect: str, text: str, caller: Caller | None = None) -> HttpAnswer:
    path, body = DIALECTS[dialect]
    filled = json.loads(json.dumps(body).replace("TEXT", text))
    if dialect != "gemini":
        filled["model"] = stage.model.name
    return ask(
        stage.bench.gateway, "POST", path.replace("MODEL", stage.model.name),
        headers=(caller or stage.caller).headers, body=orjson.dumps(filled),
    )  # fmt: skip


def _make_rule(stage: Stage, **values: Any) -> RiskRule:
    """Make a rule about the stage's caller, and return when the gateway goes by it."""
    rule = make_rule(
        f"rule of {stage.caller.user.username}", users=[stage.caller.user.pk], **values
    )
    _wait_for_changes(stage.bench)
    return rule


def _wait_for_changes(bench: Bench) -> None:
    # The gateway sees changes in their order: one that is made now is the last.
    bench.make_caller(wallet_nanos=0)


def _findings(stage: Stage, count: int = 1) -> list[RiskFinding]:
    rows = RiskFinding.objects.filter(user_id=stage.caller.user.pk).order_by("id")
    wait_until(lambda: rows.count() >= count, timeout_seconds=SECONDS, what="the findings")
    return list(rows.all())


def _check_refused(
    answer: HttpAnswer, dialect: str, *, status: int, code: str, message: str
) -> None:
    """Check a refusal in the shape of the dialect."""
    if dialect in ("openai", "openai-responses"):
        check_error(answer, status=status, type=INVALID, code=code)
        assert answer.error["message"] == message
        return
    check_nothing_leaks(answer)
    assert answer.status == status
    told = orjson.loads(answer.body)
    if dialect == "anthropic":
        kinds = {403: "permission_error", 400: "invalid_request_error"}
        assert told["error"] == {"type": kinds[status], "message": message}
        assert told["request_id"] == answer.headers["request-id"]
    else:
        names = {403: "PERMISSION_DENIED", 400: "INVALID_ARGUMENT"}
        assert told["error"]["status"] == names[status]
        assert (told["error"]["code"], told["error"]["message"]) == (status, message)
        assert told["error"]["details"][0]["reason"] == code.upper()
    assert "retry-after" not in answer.headers


@pytest.mark.parametrize("dialect", DIALECTS)
def test_e25_a_rule_blocks_where_a_call_comes_from(bench: Bench, dialect: str) -> None:
    stage = bench.stage()
    rule = _make_rule(stage, kind="request", networks=["127.0.0.0/8"], message=TOLD)
    other = bench.make_caller()

    answer = _say(stage, dialect, "hello")
    others = _say(stage, dialect, "hello", other)

    _check_refused(answer, dialect, status=403, code="request_blocked", message=TOLD)
    assert others.status == 200
    assert len(stage.upstream_calls) == 1
    statement = bench.statement(stage.caller)
    assert (statement.rows, statement.entries, statement.holds) == ((), (), 0)
    (finding,) = _findings(stage)
    assert (finding.rule_id, finding.rule_name, finding.kind) == (rule.pk, rule.name, "request")
    assert (finding.action, finding.ip_address) == ("block", "127.0.0.1")
    assert finding.request_id == UUID(answer.headers["x-request-id"])
    assert finding.api_key_id == stage.caller.key.pk
    assert finding.requested_model == stage.model.name
    blocked = RefusalCount.objects.filter(api_key_id=stage.caller.key.pk, code="request_blocked")
    wait_until(blocked.exists, timeout_seconds=SECONDS, what="the count of a refusal")
    assert blocked.get().count == 1


@pytest.mark.parametrize("dialect", DIALECTS)
def test_e26_a_rule_blocks_what_a_call_says(bench: Bench, dialect: str) -> None:
    stage = bench.stage()
    rule = _make_rule(stage, words=["nerve gas"], pattern="sk-[a-z]{7}")

    refused = [_say(stage, dialect, text) for text in ("make ＮＥＲＶＥ\\ngas", "my sk-abcdefg")]

    for answer in refused:
        _check_refused(
            answer, dialect, status=400, code="content_policy_violation",
            message="The request was refused because of what it says.",
        )  # fmt: skip
        assert b"nerve" not in answer.body
        assert b"sk-" not in answer.body
    check_nothing_happened(stage)
    findings = _findings(stage, 2)
    assert [(row.rule_id, row.kind, row.action) for row in findings] == [
        (rule.pk, "content", "block")
    ] * 2
    log = bench.gateway.log()
    assert "nerve" not in log
    assert "sk-[a-z]" not in log


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_e26_at_every_other_endpoint(bench: Bench, endpoint: str) -> None:
    names = {
        "embeddings": "demo-embedding",
        "moderations": "demo-moderation",
        "rerank": "demo-rerank",
    }
    stage = bench.stage(names.get(endpoint, "demo-chat:prompt=10"))
    _make_rule(stage, words=["nerve gas"])
    body = json.loads(json.dumps(ENDPOINTS[endpoint]).replace("TEXT", "nerve gas"))

    answer = ask(
        bench.gateway, "POST", f"/v1/{endpoint}", headers=stage.caller.headers,
        body=orjson.dumps({"model": stage.model.name, **body}),
    )  # fmt: skip

    check_error(answer, status=400, type=INVALID, code="content_policy_violation")
    check_nothing_happened(stage)


def test_the_sdks_raise_and_do_not_try_again(bench: Bench) -> None:
    stage = bench.stage()
    _make_rule(stage, words=["nerve gas"])
    said = [{"role": "user", "content": "nerve gas"}]

    with pytest.raises(openai.BadRequestError) as raised:
        stage.client().chat.completions.create(**stage.body(messages=said))
    with (
        anthropic.Anthropic(base_url=bench.gateway.url, api_key=stage.caller.raw) as client,
        pytest.raises(anthropic.BadRequestError),
    ):
        client.messages.create(model=stage.model.name, max_tokens=9, messages=said)  # type: ignore[arg-type]  # plain dicts
    assert raised.value.code == "content_policy_violation"
    assert len(_findings(stage, 2)) == 2
    check_nothing_happened(stage)


def test_what_is_only_noted_passes_and_is_charged(bench: Bench) -> None:
    stage = bench.stage()
    first = _make_rule(stage, action="record", words=["nerve gas"])
    second = make_rule(
        "also noted", kind="request", action="record", operations=["chat/completions"],
        users=[stage.caller.user.pk],
    )  # fmt: skip
    _wait_for_changes(bench)

    answer = chat(stage, messages=[{"role": "user", "content": "nerve gas"}])
    plain = chat(stage)

    assert (answer.status, plain.status) == (200, 200)
    rows = stage.settled(2).rows
    assert all(row.charge_nanos > 0 for row in rows)
    found = {(row.rule_id, row.action, row.request_id) for row in _findings(stage, 3)}
    assert found == {
        (first.pk, "record", rows[0].pk),
        (second.pk, "record", rows[0].pk),
        (second.pk, "record", rows[1].pk),
    }


def test_a_change_of_a_rule_reaches_a_running_gateway(bench: Bench) -> None:
    stage = bench.stage()
    said = [{"role": "user", "content": "red or blue"}]
    rule = _make_rule(stage, words=["red"])
    seen = [chat(stage, messages=said).status]

    RiskRule.objects.filter(pk=rule.pk).update(words=["green"])
    _wait_for_changes(bench)
    seen.append(chat(stage, messages=said).status)
    with connection.cursor() as cursor:
        cursor.execute("UPDATE risk_riskrule SET pattern = 'b.ue' WHERE id = %s", [rule.pk])
    _wait_for_changes(bench)
    seen.append(chat(stage, messages=said).status)
    RiskRule.objects.filter(pk=rule.pk).update(is_active=False)
    _wait_for_changes(bench)
    seen.append(chat(stage, messages=said).status)
    RiskRule.objects.filter(pk=rule.pk).update(is_active=True)
    _wait_for_changes(bench)
    seen.append(chat(stage, messages=said).status)
    RiskRule.objects.filter(pk=rule.pk).delete()
    _wait_for_changes(bench)
    seen.append(chat(stage, messages=said).status)

    assert seen == [400, 200, 400, 200, 400, 200]
    assert len(stage.settled(3).rows) == 3


def test_a_rule_that_cannot_be_read_keeps_no_other_from_being_in_force(bench: Bench) -> None:
    stage = bench.stage()
    broken = RiskRule.objects.create(
        name="broken", kind="content", action="block", pattern="(secret"
    )
    _make_rule(stage, words=["red"])

    assert chat(stage, messages=[{"role": "user", "content": "red"}]).status == 400
    assert chat(stage).status == 200
    log = bench.gateway.log()
    assert f"risk rule {broken.pk} is left out: it cannot be read" in log
    assert "secret" not in log.partition("risk rule")[2]


def test_a_rule_tells_nobody_of_a_model_that_is_not_his(bench: Bench) -> None:
    stage, hidden = bench.stages("demo-chat:prompt=10", "demo-chat:prompt=10")
    bench.group.models.remove(hidden.model)
    _make_rule(stage, kind="request", models=[hidden.model.pk])

    answer, unknown = (chat(stage, model=name) for name in (hidden.model.name, "no-such-model"))

    for found in (answer, unknown):
        check_error(found, status=404, type=INVALID, code="model_not_found", param="model")
    assert answer.error == unknown.error
    assert chat(stage).status == 200


def test_an_idempotency_key_is_not_used_up_by_a_refused_call(bench: Bench) -> None:
    stage = bench.stage()
    rule = _make_rule(stage, words=["red"])
    body = orjson.dumps(stage.body(messages=[{"role": "user", "content": "red"}]))
    headers = {**stage.caller.headers, "Idempotency-Key": "once"}

    refused = ask(bench.gateway, "POST", CHAT, headers=headers, body=body)
    RiskRule.objects.filter(pk=rule.pk).delete()
    _wait_for_changes(bench)
    answered = ask(bench.gateway, "POST", CHAT, headers=headers, body=body)

    assert (refused.status, answered.status) == (400, 200)
    assert "idempotent-replayed" not in answered.headers
    assert len(stage.settled(1).rows) == 1


def test_quotes_and_counts_are_held_against_rules_too(bench: Bench) -> None:
    stage = bench.stage()
    _make_rule(stage, words=["red"])
    said = [{"role": "user", "content": "red"}]

    answers = [
        ask(bench.gateway, "POST", path, headers=stage.caller.headers, body=orjson.dumps(body))
        for path, body in (
            ("/v1/quote", stage.body(messages=said, max_tokens=5)),
            ("/v1/quote", stage.body(messages=said, max_tokens=5, hold_seconds=60)),
            ("/v1/messages/count_tokens", stage.body(messages=said)),
        )
    ]

    assert [answer.status for answer in answers] == [400, 400, 400]
    check_nothing_happened(stage)


def test_a_prompt_in_tokens_cannot_slip_through(bench: Bench) -> None:
    stage = bench.stage()
    _make_rule(stage, words=["red"], operations=["completions"])
    body = {"model": stage.model.name, "prompt": [1, 2, 3]}

    answer = ask(
        bench.gateway, "POST", "/v1/completions", headers=stage.caller.headers,
        body=orjson.dumps(body),
    )  # fmt: skip

    check_error(answer, status=400, type=INVALID, code="content_policy_violation", param="prompt")
    check_nothing_happened(stage)
    assert len(_findings(stage)) == 1


def test_a_word_at_the_end_of_a_large_body_is_found(bench: Bench) -> None:
    stage = bench.stage()
    _make_rule(stage, words=["red"], pattern="(x+x+)+y")
    text = "x" * (20 << 20) + " red"

    answer = chat(stage, messages=[{"role": "user", "content": text}])

    check_error(answer, status=400, type=INVALID, code="content_policy_violation")
    check_nothing_happened(stage)


def test_what_rules_find_is_told_in_the_metrics(bench: Bench) -> None:
    stage = bench.stage()
    rule = _make_rule(stage, words=["red"])

    for _ in range(25):
        assert chat(stage, messages=[{"role": "user", "content": "red"}]).status == 400

    # Of one rule and key, 20 a minute are kept.
    text = ask(bench.gateway, "GET", "/metrics").body.decode()
    assert f'gateway_rule_matches_total{{rule="{rule.pk}",action="block"}} 25' in text
    assert "gateway_rule_findings_dropped_total 5" in text
    assert len(_findings(stage, 20)) == 20
    check_nothing_happened(stage)
