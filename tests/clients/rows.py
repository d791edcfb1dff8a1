"""The rows of the error table as clients meet them: what brings each about, and how often it is
tried.

A try is a request that the gateway gets: SDKs try 408, 409, 429 and 5xx three times in all, unless
`x-should-retry: false` is with them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import orjson

from apps.api_keys.models import APIKey
from apps.users.models import User
from tests.e2e import planted
from tests.e2e.failed import FAILED, Failed
from tests.e2e.faults import BrokenHolds
from tests.e2e.rows import INVALID, chat
from tests.e2e.wire import RawConnection, post_bytes
from tests.support.bench import Bench, Stage
from tests.support.processes import free_port, wait_until
from tests.support.risk import make_rule

PLANT: Final = [
    "tests.e2e.planted:break_before_settlement",
    "tests.e2e.planted:break_after_settlement",
]
TRIES: Final = 3
Prepare = Callable[[Bench, ExitStack], Stage]


@dataclass(frozen=True, slots=True)
class Row:
    """One row and what the SDK shows of it. `status` None: the error came inside a stream."""

    row: str
    status: int | None
    code: str
    prepare: Prepare
    type: str = INVALID
    param: str | None = None
    tries: int = 1
    is_recorded: bool = False  # each try is a call on record
    is_charged: bool = False
    do: str = "plain"
    job: dict[str, Any] = field(default_factory=dict)
    name: str = ""  # tells rows apart whose number is the same

    def __str__(self) -> str:
        return f"{self.row} {self.name or self.code}"


# ---- what brings it about


def _plain(bench: Bench, stack: ExitStack) -> Stage:
    return bench.stage()


def _with_key(stage: Stage, raw: str) -> Stage:
    return replace(stage, caller=replace(stage.caller, raw=raw))


def _unknown_key(bench: Bench, stack: ExitStack) -> Stage:
    return _with_key(bench.stage(), "sk-audit-unknown")


def _disabled_key(bench: Bench, stack: ExitStack) -> Stage:
    return _changed_key(bench, is_active=False)


def _expired_key(bench: Bench, stack: ExitStack) -> Stage:
    return _changed_key(bench, expires_at=datetime.now(UTC) - timedelta(seconds=1))


def _changed_key(bench: Bench, **values: Any) -> Stage:
    stage = bench.stage()
    APIKey.objects.filter(pk=stage.caller.key.pk).update(**values)
    _wait_for(stage, 401)
    return stage


def _suspended(bench: Bench, stack: ExitStack) -> Stage:
    stage = bench.stage()
    User.objects.filter(pk=stage.caller.user.pk).update(is_active=False)
    _wait_for(stage, 403)
    return stage


def _wait_for(stage: Stage, status: int) -> None:
    wait_until(
        lambda: stage.bench.gateway.get("/v1/models", stage.caller.raw) == status,
        timeout_seconds=5,
        what="the change in the gateway's configuration",
    )


def _elsewhere(bench: Bench, stack: ExitStack) -> Stage:
    return replace(bench.stage(), caller=bench.make_caller(allowed_networks=["10.0.0.0/8"]))


def _narrow(bench: Bench, stack: ExitStack) -> Stage:
    return replace(bench.stage(), caller=bench.make_caller(allowed_operations=["models"]))


def _unlisted_model(bench: Bench, stack: ExitStack) -> Stage:
    stage = bench.stage()
    bench.group.models.remove(stage.model)
    wait_until(
        lambda: bench.gateway.get(f"/v1/models/{stage.model.name}", stage.caller.raw) == 404,
        timeout_seconds=5,
        what="the end of the model",
    )
    return stage


def _poor(bench: Bench, stack: ExitStack) -> Stage:
    return replace(bench.stage(), caller=bench.make_caller(wallet_nanos=1_000))


def _capped(bench: Bench, stack: ExitStack) -> Stage:
    return replace(bench.stage(), caller=bench.make_caller(cap_nanos=1_000))


def _without_budget(bench: Bench, stack: ExitStack) -> Stage:
    poor = bench.make_caller(user_values={"monthly_budget_nanos": 1_000})
    return replace(bench.stage(), caller=poor)


def _busy(bench: Bench, stack: ExitStack) -> Stage:
    # It has to last while all the other rows are prepared.
    provider = bench.make_provider(idle_timeout_seconds=600)
    stage = bench.stage("demo-chat:fault=stall_after(2)", provider=provider)
    busy = replace(stage, caller=bench.make_caller(concurrency=1))
    running = stack.enter_context(RawConnection(bench.gateway.port))
    running.send(post_bytes(busy.caller, orjson.dumps(busy.body(stream=True))))
    running.read_until(b'"This"')
    return busy


def _without_price(bench: Bench, stack: ExitStack) -> Stage:
    stage = bench.stage()
    model = bench.make_model(prices=None)
    bench.wait_for_model(model, stage.caller)
    found = replace(stage, model=model)
    wait_until(lambda: chat(found).status == 503, timeout_seconds=5, what="the configuration")
    return found


def _broken_record(bench: Bench, stack: ExitStack) -> Stage:
    stage = bench.stage()
    stack.enter_context(BrokenHolds(bench.database, stage.caller.user.username))
    return stage


def _unreachable(bench: Bench, stack: ExitStack) -> Stage:
    return bench.stage(provider=bench.make_provider(f"http://127.0.0.1:{free_port()}/v1"))


def _failing(case: Failed) -> Prepare:
    def prepare(bench: Bench, stack: ExitStack) -> Stage:
        # Long enough for a busy machine: what is late is never seen before thirty seconds.
        provider = bench.make_provider(first_byte_timeout_seconds=4, idle_timeout_seconds=4)
        return bench.stage(f"demo-chat:fault={case.fault}", provider=provider)

    return prepare


def _broken_off(bench: Bench, stack: ExitStack) -> Stage:
    return bench.stage("demo-chat:prompt=10,pace=0.02,fault=cut_after(4)")


def _endless(bench: Bench, stack: ExitStack) -> Stage:
    # Longer than a busy machine needs for the first event.
    provider = bench.make_provider(total_timeout_seconds=3)
    return bench.stage("demo-chat:prompt=10,pace=0.02,fault=never_end", provider=provider)


def _bug_before(bench: Bench, stack: ExitStack) -> Stage:
    return bench.stage(planted.BEFORE_SETTLEMENT)


def _bug_after(bench: Bench, stack: ExitStack) -> Stage:
    return bench.stage(f"{planted.AFTER_SETTLEMENT}:prompt=10,fault=json_for_stream")


def _blocked(bench: Bench, stack: ExitStack) -> Stage:
    return _ruled(bench, kind="request", networks=["127.0.0.0/8", "::1/128"])


def _worded(bench: Bench, stack: ExitStack) -> Stage:
    return _ruled(bench, pattern="[a-z]")


def _ruled(bench: Bench, **values: Any) -> Stage:
    stage = bench.stage()
    user = stage.caller.user
    make_rule(f"rule of {user.username}", users=[user.pk], **values)
    # The gateway sees changes in their order: who is known now was made after the rule.
    bench.make_caller(wallet_nanos=0)
    return stage


# ---- the table

_QUOTA: Final = "insufficient_quota"
_SERVER: Final = "server_error"

ROWS: Final = (
    Row("E02", 401, "invalid_api_key", _unknown_key),
    Row("E04", 401, "api_key_disabled", _disabled_key),
    Row("E04", 401, "api_key_expired", _expired_key),
    Row("E05", 403, "account_disabled", _suspended),
    Row("E06", 403, "ip_not_authorized", _elsewhere),
    Row("E07", 404, "model_not_found", _unlisted_model, param="model"),
    Row("E08", 403, "insufficient_scope", _narrow),
    Row("E09", 404, "unknown_url", _plain, job={"below": "/none"}),
    Row("E13", 400, "integer_below_min_value", _plain, param="n", job={"options": {"n": 0}}),
    Row("E14", 400, "unsupported_parameter", _plain, param="service_tier",
        job={"options": {"service_tier": "priority"}}),
    Row("E19", 429, "credit_balance_exhausted", _poor, _QUOTA,
        job={"options": {"max_tokens": 100}}),
    Row("E20", 429, "project_spend_limit_exceeded", _capped, _QUOTA,
        job={"options": {"max_tokens": 100}}),
    Row("E21", 429, "organization_spend_limit_exceeded", _without_budget, _QUOTA,
        job={"options": {"max_tokens": 100}}),
    # What is charged is the stream that runs meanwhile.
    Row("E24", 429, "slow_down", _busy, "rate_limit_error", tries=TRIES, is_charged=True),
    Row("E25", 403, "request_blocked", _blocked),
    Row("E26", 400, "content_policy_violation", _worded),
    Row("E32", 503, "model_not_available", _without_price, _SERVER),
    Row("E35", 503, "service_unavailable", _broken_record, _SERVER, tries=TRIES),
    *(
        Row(case.row, case.status, case.code, _failing(case), case.type, case.param,
            TRIES if case.retries else 1, is_recorded=True,
            do="stream" if case.stream else "plain", name=case.fault)
        for case in FAILED
    ),
    Row("E47", 502, "upstream_unreachable", _unreachable, _SERVER, tries=TRIES, is_recorded=True,
        name="nobody listens"),
    Row("E60", None, "upstream_interrupted", _broken_off, _SERVER, is_recorded=True,
        is_charged=True, do="stream"),
    Row("E61", None, "stream_limit_exceeded", _endless, _SERVER, is_recorded=True,
        is_charged=True, do="stream"),
    Row("E70", 500, "internal_error", _bug_before, _SERVER, tries=TRIES, is_recorded=True),
    Row("E71", 500, "internal_error", _bug_after, _SERVER, is_recorded=True, is_charged=True),
)  # fmt: skip

# Status and type as Anthropic's SDKs show them, by row, or by row and name where it has several.
# They try again what OpenAI's do.
ANTHROPIC: Final = {
    "E02": (401, "authentication_error"),
    "E04": (401, "authentication_error"),
    "E05": (403, "permission_error"),
    "E06": (403, "permission_error"),
    "E07": (404, "not_found_error"),
    "E08": (403, "permission_error"),
    "E09": (404, "not_found_error"),
    "E13": (400, "invalid_request_error"),
    "E14": (400, "invalid_request_error"),
    "E19": (402, "billing_error"),
    "E20": (402, "billing_error"),
    "E21": (402, "billing_error"),
    "E24": (429, "rate_limit_error"),
    "E25": (403, "permission_error"),
    "E26": (400, "invalid_request_error"),
    "E32": (503, "api_error"),
    "E35": (503, "api_error"),
    "E40": (400, "invalid_request_error"),
    "E40 status(422)": (422, "invalid_request_error"),
    "E43": (429, "rate_limit_error"),
    "E44": (503, "api_error"),
    "E45": (413, "request_too_large"),
    "E46": (502, "api_error"),
    "E46 status(503)": (529, "overloaded_error"),
    "E46 status(529)": (529, "overloaded_error"),
    "E47": (502, "api_error"),
    "E48": (504, "timeout_error"),
    "E49": (502, "api_error"),
    "E51": (502, "api_error"),
    "E52": (502, "api_error"),
    "E53": (529, "overloaded_error"),
    "E60": (None, "api_error"),
    "E61": (None, "api_error"),
    "E70": (500, "api_error"),
    "E71": (500, "api_error"),
}
# What brings a row about in Anthropic's words, where they are others.
ANTHROPIC_JOBS: Final[dict[str, dict[str, Any]]] = {
    "E09": {"below": "/messages"},
    "E13": {"options": {"max_tokens": 0}},
}

# Rows that a test of their own brings about, or that no SDK can meet.
ELSEWHERE: Final = {
    "E01": "SDKs send a key or do not start: test_error_rows_requests",
    "E03": "SDKs send one key: test_error_rows_requests",
    "E10": "SDKs know the method: test_error_rows_requests",
    "E11": "SDKs write JSON: test_bodies",
    "E12": "SDKs name a parameter once: test_bodies",
    "E15": "32 MiB through each SDK show nothing more: test_error_rows_requests, test_bodies",
    "E16": "SDKs send JSON: test_error_rows_requests",
    "E17": "SDKs send short heads: test_error_rows_http",
    "E18": "SDKs send bodies whole: test_error_rows_http",
    "E22": "test_waiting",
    "E23": "test_waiting",
    **dict.fromkeys(("E27", "E28", "E29", "E31"), "keys by hand: test_repeats"),
    "E33": "the last route is always tried: test_error_rows_limits",
    "E34": "test_waiting",
    "E36": "a gateway that ends: test_error_rows_alone",
    "E37": "test_full_gateway",
    **dict.fromkeys(("E41", "E42"), "a key is asked no more: test_provider_health"),
    "E54": "a model at the wrong endpoint: test_provider_health",
    "E62": "the client is gone: test_features, test_disconnects",
    "E64": "nobody is left to say it: test_error_rows_alone",
    "E66": "a gateway that ends: test_error_rows_alone",
}
