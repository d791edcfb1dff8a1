"""Each endpoint gives the same answers: rows E01 to E53, wherever they can be met."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import orjson
import pytest

from tests.e2e.answers import HttpAnswer, ask, check_error
from tests.e2e.rows import INVALID
from tests.support.bench import MESSAGES, Bench, Caller, Stage

# What an endpoint refuses is judged before any database is asked.
pytestmark = pytest.mark.sqlite

_SERVER: Final = "server_error"
# What an endpoint is asked, and what it cannot do without.
ENDPOINTS: Final[dict[str, tuple[str, dict[str, Any], str]]] = {
    "chat/completions": ("demo-chat", {"messages": MESSAGES, "max_tokens": 100}, "messages"),
    "completions": ("demo-chat", {"prompt": "Say something.", "max_tokens": 100}, "prompt"),
    "embeddings": ("demo-embedding", {"input": "a text"}, "input"),
    "moderations": ("demo-moderation", {"input": "a text"}, "input"),
    "rerank": ("demo-rerank", {"query": "red", "documents": ["a red car"]}, "documents"),
}


@dataclass(frozen=True, slots=True)
class Asked:
    """One endpoint and a stage for it."""

    path: str
    stage: Stage
    body: dict[str, Any]

    def __call__(
        self, method: str = "POST", *, caller: Caller | None = None, raw: bytes = b"", **values: Any
    ) -> HttpAnswer:
        """Ask, with other values in the body; None leaves a member out."""
        body = {**self.body, **values}
        kept = {name: value for name, value in body.items() if value is not None}
        return ask(
            self.stage.bench.gateway,
            method,
            self.path,
            headers=(caller or self.stage.caller).headers,
            body=raw or orjson.dumps(kept),
        )


def _asked(bench: Bench, endpoint: str) -> Asked:
    name, body, _ = ENDPOINTS[endpoint]
    stage = bench.stage(name)
    return Asked(f"/v1/{endpoint}", stage, {"model": stage.model.name, **body})


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_each_endpoint_refuses_alike_and_nothing_happens(bench: Bench, endpoint: str) -> None:
    asked = _asked(bench, endpoint)
    stage, needed = asked.stage, ENDPOINTS[endpoint][2]
    poor = bench.make_caller(wallet_nanos=1)
    capped = bench.make_caller(cap_nanos=1)
    spent = bench.make_caller(user_values={"daily_budget_nanos": 1})
    elsewhere = bench.make_caller(allowed_networks=["10.0.0.0/8"])
    narrow = bench.make_caller(allowed_operations=["models"])
    unpriced = bench.make_model(stage.upstream_name, prices=None)
    bench.wait_for_model(unpriced, stage.caller)
    text = orjson.dumps(asked.body)
    without: dict[str, Any] = {needed: None}
    # Status, type, code and parameter.
    rows: list[tuple[Callable[[], HttpAnswer], int, str, str, str | None]] = [
        (lambda: ask(bench.gateway, "POST", asked.path, body=text),
         401, INVALID, "missing_api_key", None),
        (lambda: asked(caller=elsewhere), 403, INVALID, "ip_not_authorized", None),
        (lambda: asked(caller=narrow), 403, INVALID, "insufficient_scope", None),
        (lambda: asked(model="none"), 404, INVALID, "model_not_found", "model"),
        (lambda: asked("GET"), 405, INVALID, "method_not_supported", None),
        (lambda: asked(raw=b"{"), 400, INVALID, "invalid_json", None),
        (lambda: asked(raw=b'{"Model": "x", ' + text[1:]),
         400, INVALID, "duplicate_parameter", "model"),
        (lambda: asked(model=7), 400, INVALID, "invalid_type", "model"),
        (lambda: asked(**without), 400, INVALID, "missing_required_parameter", needed),
        (lambda: asked(caller=poor), 429, "insufficient_quota", "credit_balance_exhausted", None),
        (lambda: asked(caller=capped),
         429, "insufficient_quota", "project_spend_limit_exceeded", None),
        (lambda: asked(caller=spent),
         429, "insufficient_quota", "organization_spend_limit_exceeded", None),
        (lambda: asked(model=unpriced.name), 503, _SERVER, "model_not_available", None),
    ]  # fmt: skip

    for answer, status, type, code, param in rows:
        check_error(answer(), status=status, type=type, code=code, param=param)

    for caller in (stage.caller, poor, capped, spent, elsewhere, narrow):
        statement = bench.statement(caller)
        assert (statement.rows, statement.entries, statement.holds) == ((), (), 0)
    assert stage.upstream_calls == []


# The provider's fault, and the status, type and code that it becomes.
FAILURES: Final = {
    "status(400,context_length_exceeded)": (400, INVALID, "context_length_exceeded"),
    "status(401)": (502, _SERVER, "upstream_auth_error"),
    "status(402)": (503, _SERVER, "upstream_unavailable"),
    "status(404)": (503, _SERVER, "model_not_available"),
    "status(413)": (413, INVALID, "request_too_large"),
    "status(429)": (429, "rate_limit_error", "upstream_rate_limited"),
    "status(500)": (502, _SERVER, "upstream_error"),
    "status(529)": (503, _SERVER, "upstream_error"),
    "html(502)": (502, _SERVER, "upstream_error"),
    "cut_after(-1)": (502, _SERVER, "upstream_unreachable"),
    "stall_after(-1)": (504, _SERVER, "upstream_timeout"),
    "html": (502, _SERVER, "upstream_invalid_response"),
    "garbage": (502, _SERVER, "upstream_invalid_response"),
    "wrong_shape": (502, _SERVER, "upstream_invalid_response"),
    "redirect": (502, _SERVER, "upstream_invalid_response"),
}


@pytest.mark.parametrize("endpoint", ENDPOINTS)
def test_each_endpoint_answers_for_its_provider_alike_and_charges_nothing(
    bench: Bench, endpoint: str
) -> None:
    asked = _asked(bench, endpoint)
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

    for answer, (status, type, code) in zip(answers, FAILURES.values(), strict=True):
        is_retried = status in (429, 502, 503, 504)
        check_error(
            answer,
            status=status,
            type=type,
            code=code,
            param=answer.error["param"],  # the provider's, where it is one of ours
            retries=is_retried,
            has_retry_after=is_retried,
        )
    statement = asked.stage.settled(len(models))
    assert [row.error_code for row in statement.rows] == [code for _, _, code in FAILURES.values()]
    assert set(statement.states) == {"failed"}
    assert (set(statement.charges), statement.entries) == ({0}, ())
