"""Each endpoint of every dialect gives the same answers: rows E01 to E53, where they can be met."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import pytest

from apps.api_keys.models import APIKey
from apps.audit.models import CallKey
from apps.audit.retention import Selection, erase_payloads
from apps.users.models import User
from tests.e2e.answers import HttpAnswer, Told, ask, check_told
from tests.e2e.endpoints import ENDPOINTS, asked_at
from tests.e2e.rows import INVALID
from tests.e2e.wire import RawConnection, post_bytes
from tests.support.bench import Bench
from tests.support.processes import wait_until

# What an endpoint refuses is judged before any database is asked.
pytestmark = pytest.mark.sqlite

_SERVER: Final = "server_error"
_QUOTA: Final = "insufficient_quota"
_KEYED: Final = "idempotency_error"
# As Anthropic and Google name them.
_BAD: Final = ("invalid_request_error", "INVALID_ARGUMENT")
_WHO: Final = ("authentication_error", "UNAUTHENTICATED")
_FORBIDDEN: Final = ("permission_error", "PERMISSION_DENIED")
_UNPAID: Final = ("402 billing_error", "402 RESOURCE_EXHAUSTED")
_LIMITED: Final = ("rate_limit_error", "RESOURCE_EXHAUSTED")
_CONFLICT: Final = ("conflict_error", "ABORTED")
_AWAY: Final = ("api_error", "UNAVAILABLE")
_OVERLOADED: Final = ("529 overloaded_error", "UNAVAILABLE")
_LARGE: Final = ("request_too_large", "INVALID_ARGUMENT")
# What SDKs try again by themselves, of what is refused, and are told when.
_TRIED_AGAIN: Final = {
    "idempotency_in_progress", "rate_limit_exceeded", "server_is_overloaded", "slow_down",
}  # fmt: skip
# What an answer says in its head, too, by its code.
_HEADERS: Final[dict[str, dict[str, str]]] = {
    "missing_api_key": {"www_authenticate": "Bearer"},
    "invalid_api_key": {"www_authenticate": "Bearer"},
    "api_key_expired": {"www_authenticate": "Bearer"},
    "method_not_supported": {"allow": "POST"},
    "request_too_large": {"connection": "close"},
    "unsupported_media_type": {"accept": "application/json"},
}


@pytest.mark.parametrize("name", ENDPOINTS)
def test_each_endpoint_refuses_alike_and_nothing_happens(bench: Bench, name: str) -> None:
    asked = asked_at(bench, name)
    stage, needed = asked.stage, asked.endpoint.needed
    poor = bench.make_caller(wallet_nanos=1)
    capped = bench.make_caller(cap_nanos=1)
    spent = bench.make_caller(user_values={"daily_budget_nanos": 1})
    elsewhere = bench.make_caller(allowed_networks=["10.0.0.0/8"])
    narrow = bench.make_caller(allowed_operations=["models"])
    disabled, expired, suspended = (bench.make_caller() for _ in range(3))
    APIKey.objects.filter(pk=disabled.key.pk).update(is_active=False)
    past = datetime.now(UTC) - timedelta(seconds=1)
    APIKey.objects.filter(pk=expired.key.pk).update(expires_at=past)
    User.objects.filter(pk=suspended.user.pk).update(is_active=False)
    no_requests = bench.make_caller(rpm=0)
    no_tokens = bench.make_caller(tpm=0)
    none_at_once = bench.make_caller(concurrency=0)
    unpriced = bench.make_model(stage.upstream_name, prices=None)
    full = bench.make_model(stage.upstream_name, provider=bench.make_provider(rpm=0))
    bench.wait_for_model(full, stage.caller)
    text = asked.body()
    without: dict[str, Any] = {needed: None}
    wrong: dict[str, Any] = {"model" if asked.has_model_in_body else needed: 7}
    rows: list[tuple[Callable[[], HttpAnswer], Told, str | None]] = [
        (lambda: ask(bench.gateway, "POST", asked.path_of(), body=text),
         Told(401, INVALID, "missing_api_key", *_WHO), None),
        (lambda: asked(headers={"Authorization": "Bearer sk-other"}),
         Told(401, INVALID, "invalid_api_key", *_WHO), None),
        (lambda: asked(headers={"x-api-key": "sk-other"}),
         Told(401, INVALID, "conflicting_credentials", *_WHO), None),
        (lambda: asked(caller=disabled), Told(401, INVALID, "api_key_disabled", *_WHO), None),
        (lambda: asked(caller=expired), Told(401, INVALID, "api_key_expired", *_WHO), None),
        (lambda: asked(caller=suspended),
         Told(403, INVALID, "account_disabled", *_FORBIDDEN), None),
        (lambda: asked(caller=elsewhere),
         Told(403, INVALID, "ip_not_authorized", *_FORBIDDEN), None),
        (lambda: asked(caller=narrow),
         Told(403, INVALID, "insufficient_scope", *_FORBIDDEN), None),
        (lambda: asked(model="none"),
         Told(404, INVALID, "model_not_found", "not_found_error", "NOT_FOUND"), "model"),
        (lambda: asked("GET"), Told(405, INVALID, "method_not_supported", *_BAD), None),
        (lambda: asked(raw=b"{"), Told(400, INVALID, "invalid_json", *_BAD), None),
        (lambda: asked(raw=b'{"%s": 1, ' % needed.title().encode() + text[1:]),
         Told(400, INVALID, "duplicate_parameter", *_BAD), needed),
        (lambda: asked(**wrong), Told(400, INVALID, "invalid_type", *_BAD), next(iter(wrong))),
        (lambda: asked(**without),
         Told(400, INVALID, "missing_required_parameter", *_BAD), needed),
        (lambda: asked(headers={"Content-Length": str((32 << 20) + 1)}),
         Told(413, INVALID, "request_too_large", *_LARGE), None),
        (lambda: asked(headers={"Content-Type": "text/plain"}),
         Told(415, INVALID, "unsupported_media_type", *_BAD), None),
        (lambda: asked(caller=poor), Told(429, _QUOTA, "credit_balance_exhausted", *_UNPAID), None),
        (lambda: asked(caller=capped),
         Told(429, _QUOTA, "project_spend_limit_exceeded", *_UNPAID), None),
        (lambda: asked(caller=spent),
         Told(429, _QUOTA, "organization_spend_limit_exceeded", *_UNPAID), None),
        (lambda: asked(caller=no_requests),
         Told(429, "requests", "rate_limit_exceeded", *_LIMITED), None),
        (lambda: asked(caller=no_tokens),
         Told(429, "tokens", "rate_limit_exceeded", *_LIMITED), None),
        (lambda: asked(caller=none_at_once),
         Told(429, "rate_limit_error", "slow_down", *_LIMITED), None),
        (lambda: asked(headers={"Idempotency-Key": "x" * 256}),
         Told(400, _KEYED, "invalid_idempotency_key", *_BAD), None),
        (lambda: asked(model=unpriced.name),
         Told(503, _SERVER, "model_not_available", "api_error", "501 UNIMPLEMENTED"), None),
        (lambda: asked(model=full.name),
         Told(503, "service_unavailable_error", "server_is_overloaded", *_OVERLOADED), None),
    ]  # fmt: skip

    for answer, told, param in rows:
        is_tried_again = told.code in _TRIED_AGAIN
        check_told(
            answer(),
            told,
            asked.dialect,
            param=param,
            retries=is_tried_again,
            has_retry_after=is_tried_again,
            **_HEADERS.get(told.code, {}),
        )

    for caller in (
        stage.caller, poor, capped, spent, elsewhere, narrow, disabled, expired, suspended,
        no_requests, no_tokens, none_at_once,
    ):  # fmt: skip
        statement = bench.statement(caller)
        assert (statement.rows, statement.entries, statement.holds) == ((), (), 0)
    assert stage.upstream_calls == []


# What makes another call of it.
OTHERS: Final[dict[str, dict[str, Any]]] = {
    "anthropic": {"metadata": {"user_id": "x"}},
    "gemini": {"labels": {"a": "b"}},
}


@pytest.mark.parametrize("name", ENDPOINTS)
def test_each_endpoint_repeats_alike(bench: Bench, name: str) -> None:
    asked = asked_at(bench, name, ":fault=slow_first(0.5)")
    stage, once = asked.stage, {"Idempotency-Key": "once"}
    keys = CallKey.objects.filter(user_id=stage.caller.user.pk)
    request = post_bytes(
        stage.caller, asked.body(), asked.path_of(), extra="Idempotency-Key: once\r\n"
    )

    with RawConnection(bench.gateway.port) as connection:
        connection.send(request)
        wait_until(keys.exists, timeout_seconds=5, what="the claim")
        running = asked(headers=once)
        first = connection.read_until(b"\r\n\r\n")
    stage.settled()
    again = asked(headers=once)
    other = asked(headers=once, **OTHERS.get(asked.dialect, {"user": "x"}))
    erase_payloads(Selection(user_id=stage.caller.user.pk), reason="test")
    gone = asked(headers=once)

    assert first.startswith(b"HTTP/1.1 200 ")
    assert (again.status, again.headers["idempotent-replayed"]) == (200, "true")
    for answer, told in (
        (running, Told(409, _KEYED, "idempotency_in_progress", *_CONFLICT)),
        (other, Told(422, _KEYED, "idempotency_key_reused", *_BAD)),
        (gone, Told(409, _KEYED, "idempotent_result_unavailable", *_CONFLICT)),
    ):
        is_tried_again = told.code in _TRIED_AGAIN
        check_told(
            answer, told, asked.dialect, retries=is_tried_again, has_retry_after=is_tried_again
        )
    assert len(stage.settled().rows) == 1
    assert len(stage.upstream_calls) == 1


# The provider's fault, and what it becomes.
FAILURES: Final = {
    "status(400,context_length_exceeded)": Told(400, INVALID, "context_length_exceeded", *_BAD),
    "status(401)": Told(502, _SERVER, "upstream_auth_error", *_AWAY),
    "status(402)": Told(503, _SERVER, "upstream_unavailable", *_AWAY),
    "status(404)": Told(503, _SERVER, "model_not_available", *_AWAY),
    "status(413)": Told(413, INVALID, "request_too_large", *_LARGE),
    "status(429)": Told(429, "rate_limit_error", "upstream_rate_limited", *_LIMITED),
    "status(500)": Told(502, _SERVER, "upstream_error", *_AWAY),
    "status(529)": Told(503, _SERVER, "upstream_error", *_OVERLOADED),
    "html(502)": Told(502, _SERVER, "upstream_error", *_AWAY),
    "cut_after(-1)": Told(502, _SERVER, "upstream_unreachable", *_AWAY),
    "stall_after(-1)": Told(504, _SERVER, "upstream_timeout", "timeout_error", "DEADLINE_EXCEEDED"),
    "html": Told(502, _SERVER, "upstream_invalid_response", *_AWAY),
    "garbage": Told(502, _SERVER, "upstream_invalid_response", *_AWAY),
    "wrong_shape": Told(502, _SERVER, "upstream_invalid_response", *_AWAY),
    "redirect": Told(502, _SERVER, "upstream_invalid_response", *_AWAY),
    "big_body(34000000)": Told(
        502, _SERVER, "upstream_response_too_large", "api_error", "501 INTERNAL"
    ),
}


@pytest.mark.parametrize("name", ENDPOINTS)
def test_each_endpoint_answers_for_its_provider_alike_and_charges_nothing(
    bench: Bench, name: str
) -> None:
    asked = asked_at(bench, name)
    models = [
        bench.make_model(
            f"{asked.stage.upstream_name}-{number}:fault={fault}",
            # A provider each: a key that was refused is not used again.
            provider=bench.make_provider(first_byte_timeout_seconds=2),
        )
        for number, fault in enumerate(FAILURES)
    ]
    bench.wait_for_model(models[-1], asked.stage.caller)

    answers = [asked(model=model.name) for model in models]

    for answer, told in zip(answers, FAILURES.values(), strict=True):
        is_retried = told.status in (429, 502, 503, 504)
        is_retried = is_retried and told.code != "upstream_response_too_large"
        check_told(
            answer,
            told,
            asked.dialect,
            # The provider's, who speaks OpenAI's dialect.
            param=(
                "messages"
                if asked.dialect == "openai" and told.code == "context_length_exceeded"
                else None
            ),
            retries=is_retried,
            has_retry_after=is_retried,
        )
    statement = asked.stage.settled(len(models))
    assert [row.error_code for row in statement.rows] == [told.code for told in FAILURES.values()]
    assert set(statement.states) == {"failed"}
    assert (set(statement.charges), statement.entries) == ({0}, ())
