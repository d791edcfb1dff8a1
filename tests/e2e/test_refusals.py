"""Refused calls are counted, each one once, and leave nothing else behind (I-22)."""

from __future__ import annotations

import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import orjson
from django.db.models import Sum

from apps.api_keys.models import APIKey
from apps.audit.models import APIRequest, RefusalCount
from apps.billing.models import Hold
from tests.e2e.answers import ask
from tests.e2e.wire import RawConnection, post_bytes
from tests.support.bench import Bench, Caller
from tests.support.gateway import FAST
from tests.support.people import make_admin, rest_client
from tests.support.processes import wait_until

CHAT = "/v1/chat/completions"
CONSTANTS = FAST
# Counts are written with the heartbeat: every half second instead of every ten.
PLANT = ["tests.e2e.planted:shorten_patience"]


def _counted() -> Counter[tuple[int, str]]:
    rows = RefusalCount.objects.values_list("api_key_id", "code").annotate(sum=Sum("count"))
    return Counter({(key, code): total for key, code, total in rows})


def _counted_after_one_more(bench: Bench, caller: Caller) -> Counter[tuple[int, str]]:
    """Return the counts once those of the calls so far are all written: they go together."""
    code = ask(bench.gateway, "POST", CHAT, headers=caller.headers, body=b"{").error["code"]
    wait_until(
        lambda: RefusalCount.objects.filter(api_key_id=caller.key.pk, code=code).exists(),
        timeout_seconds=10,
        what="the count of a refusal",
    )
    return _counted()


def test_refused_calls_are_counted_exactly_by_key_and_reason(bench: Bench) -> None:
    stage = bench.stage()
    poor = bench.make_caller(wallet_nanos=0)
    capped = bench.make_caller(cap_nanos=1)
    narrow = bench.make_caller(allowed_operations=["models"])
    limited = bench.make_caller(rpm=0)
    body = orjson.dumps(stage.body())
    unknown = orjson.dumps(stage.body(model="no-such-model"))
    nobody = {"Authorization": "Bearer sk-audit-nobody-at-all-0123456789"}
    calls = [
        *[({}, body)] * 7,
        *[(nobody, body)] * 11,
        *[(stage.caller.headers, unknown)] * 5,
        *[(stage.caller.headers, b"{")] * 3,
        *[(poor.headers, body)] * 13,
        *[(capped.headers, body)] * 9,
        *[(narrow.headers, body)] * 6,
        *[(limited.headers, b"{")] * 4,
    ]
    before = _counted_after_one_more(bench, bench.make_caller())

    with ThreadPoolExecutor(8) as crowd:
        answers = list(
            crowd.map(
                lambda call: ask(bench.gateway, "POST", CHAT, headers=call[0], body=call[1]), calls
            )
        )

    keys = [0] * 18 + [stage.caller.key.pk] * 8 + [poor.key.pk] * 13 + [capped.key.pk] * 9
    keys += [narrow.key.pk] * 6 + [limited.key.pk] * 4
    seen = Counter((key, answer.error["code"]) for key, answer in zip(keys, answers, strict=True))
    assert Counter(answer.status for answer in answers) == {
        401: 18,
        404: 5,
        400: 3,
        429: 26,
        403: 6,
    }
    wait_until(
        lambda: (_counted() - before).total() >= seen.total(), timeout_seconds=10, what="the counts"
    )
    assert _counted() - before == seen
    assert APIRequest.objects.count() == Hold.objects.count() == 0
    sums = rest_client(make_admin()).get(f"/api/admin/refusals/sum/?api_key={poor.key.pk}").json()
    assert sums == {
        "total": 14,
        "codes": [
            {"code": "credit_balance_exhausted", "count": 13},
            {"code": "model_not_found", "count": 1},  # of who waited for the key
        ],
    }


def test_a_key_that_is_narrowed_while_its_body_comes_is_refused_and_counted_once(
    bench: Bench,
) -> None:
    stage = bench.stage()
    request = post_bytes(stage.caller, orjson.dumps(stage.body()))
    statuses: list[int] = []
    began = time.monotonic()

    def is_narrowed() -> bool:
        statuses.append(bench.gateway.get("/v1/usage", stage.caller.raw))
        return statuses[-1] == 403

    with RawConnection(bench.gateway.port) as connection:
        connection.send(request[:-5])
        APIKey.objects.filter(pk=stage.caller.key.pk).update(allowed_operations=["models"])
        wait_until(is_narrowed, timeout_seconds=5, what="the narrowed key")
        # Whose body took so long is looked at again.
        time.sleep(max(0.0, began + 1.2 - time.monotonic()))
        connection.send(request[-5:])
        answer = connection.read_until(b"insufficient_scope")

    counted = _counted_after_one_more(bench, bench.make_caller())
    assert b"HTTP/1.1 403 " in answer
    assert counted[stage.caller.key.pk, "insufficient_scope"] == 2
    assert statuses.count(403) == 1
    assert (bench.statement(stage.caller).rows, stage.upstream_calls) == ((), [])


def test_questions_that_are_refused_are_counted_as_calls_are(bench: Bench) -> None:
    stage = bench.stage()
    limited = bench.make_caller(rpm=2)
    before = _counted_after_one_more(bench, bench.make_caller())

    def question(path: str, caller: Caller, times: int = 1) -> None:
        for _ in range(times):
            ask(bench.gateway, "GET", path, headers=caller.headers)

    question(f"/v1/models/{stage.model.name}", stage.caller)
    question("/v1/models/no-such-model", stage.caller, 3)
    question("/v1/responses/resp_of_nobody", stage.caller, 2)
    question("/v1/responses/resp_of_nobody?limit=1", stage.caller)
    question("/v1/usage", limited, 6)
    question("/v1/models", limited)

    counted = _counted_after_one_more(bench, bench.make_caller()) - before
    asked = {stage.caller.key.pk, limited.key.pk}
    assert {kind: count for kind, count in counted.items() if kind[0] in asked} == {
        (stage.caller.key.pk, "model_not_found"): 3,
        (stage.caller.key.pk, "response_not_found"): 2,
        (stage.caller.key.pk, "unsupported_parameter"): 1,
        (limited.key.pk, "rate_limit_exceeded"): 4,
    }
    assert (bench.statement(stage.caller).rows, stage.upstream_calls) == ((), [])
