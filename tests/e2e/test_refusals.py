"""Refused calls are counted, each one once, and leave nothing else behind (I-22)."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import orjson
from django.db.models import Sum

from apps.audit.models import APIRequest, RefusalCount
from apps.billing.models import Hold
from tests.e2e.answers import ask
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
    ask(bench.gateway, "POST", CHAT, headers=caller.headers, body=b"{")
    wait_until(
        lambda: RefusalCount.objects.filter(api_key_id=caller.key.pk).exists(),
        timeout_seconds=10,
        what="the count of a refusal",
    )
    return _counted()


def test_refused_calls_are_counted_exactly_by_key_and_reason(bench: Bench) -> None:
    stage = bench.stage()
    poor = bench.make_caller(wallet_nanos=0)
    capped = bench.make_caller(cap_nanos=1)
    narrow = bench.make_caller(allowed_operations=["models"])
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
    ]
    before = _counted_after_one_more(bench, bench.make_caller())

    with ThreadPoolExecutor(8) as crowd:
        answers = list(
            crowd.map(
                lambda call: ask(bench.gateway, "POST", CHAT, headers=call[0], body=call[1]), calls
            )
        )

    keys = [0] * 18 + [stage.caller.key.pk] * 8 + [poor.key.pk] * 13 + [capped.key.pk] * 9
    keys += [narrow.key.pk] * 6
    seen = Counter((key, answer.error["code"]) for key, answer in zip(keys, answers, strict=True))
    assert Counter(answer.status for answer in answers) == {
        401: 18,
        404: 5,
        400: 3,
        429: 22,
        403: 6,
    }
    wait_until(
        lambda: (_counted() - before).total() >= seen.total(), timeout_seconds=10, what="the counts"
    )
    assert _counted() - before == seen
    assert APIRequest.objects.count() == Hold.objects.count() == 0
    sums = rest_client(make_admin()).get(f"/api/admin/refusals/sum/?api_key={poor.key.pk}").json()
    assert sums == {"total": 13, "codes": [{"code": "credit_balance_exhausted", "count": 13}]}
