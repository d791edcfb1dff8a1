"""Row E21: budgets of a day and of a month, of users and of user groups."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import anthropic
import httpx
import openai
import orjson
import pytest
from google import genai
from google.genai import errors, types

from apps.billing.models import SpendCounter
from apps.billing.periods import bounds_of, day_of, month_of
from apps.users.models import UserGroup
from tests.clients.refusals import refusals, subtract
from tests.e2e.answers import HttpAnswer, ask, check_error, check_nothing_leaks
from tests.e2e.rows import chat, check_nothing_happened
from tests.support.bench import MESSAGES, Bench, Caller, Stage

PLAIN: Final = "demo-chat:prompt=10,tokens=16"
BUDGET: Final = 300_000
CROWD: Final = 40
_TEST_SECONDS: Final = 60
OF: Final = {"user": "this user", "user_group": "this user group"}
PERIODS: Final = {"daily": day_of, "monthly": month_of}


@pytest.fixture(autouse=True)
def _one_day() -> None:
    """Begin no test that would end on another day than it began."""
    _, ends_at = bounds_of(day_of(datetime.now(UTC)))
    left = (ends_at - datetime.now(UTC)).total_seconds()
    if left < _TEST_SECONDS:
        time.sleep(left + 0.1)


def message_of(level: str, name: str) -> str:
    """Return what is said where a budget does not cover a call."""
    _, ends_at = bounds_of(PERIODS[name](datetime.now(UTC)))
    return (
        f"The {name} budget of {OF[level]} does not cover this request. "
        f"It begins anew at {ends_at:%Y-%m-%dT%H:%MZ}."
    )


def check_e21(answer: HttpAnswer, level: str, name: str) -> None:
    """Check the whole answer to a call that a budget does not cover."""
    check_error(
        answer, status=429, type="insufficient_quota", code="organization_spend_limit_exceeded"
    )
    assert answer.error["message"] == message_of(level, name)


def make_callers(bench: Bench, level: str, **values: Any) -> tuple[int, list[Caller]]:
    """Return the id of a user or group, and two callers: his two keys, or its two users."""
    if level == "user":
        first = bench.make_caller(user_values=values)
        return first.user.pk, [first, bench.make_caller(user=first.user)]
    group = UserGroup.objects.create(name=f"group {values}", **values)
    return group.pk, [bench.make_caller(user_values={"user_group": group}) for _ in range(2)]


def counted(level: str, scope_id: int) -> dict[str, tuple[int, int]]:
    """Return what each period has spent and holds."""
    rows = SpendCounter.objects.filter(scope__startswith=f"{level}:", scope_id=scope_id)
    return {
        scope.partition(":")[2]: (spent, held)
        for scope, spent, held in rows.values_list("scope", "spent_nanos", "held_nanos")
    }


@pytest.mark.parametrize("name", PERIODS)
@pytest.mark.parametrize("level", OF)
def test_e21_callers_share_the_budget_of_their_user_and_of_their_group(
    bench: Bench, level: str, name: str
) -> None:
    stage = bench.stage(PLAIN)
    scope_id, callers = make_callers(bench, level, **{f"{name}_budget_nanos": BUDGET})

    answers = [chat(stage, callers[n % 2], max_tokens=16) for n in range(6)]

    rows = {row.pk: row for caller in callers for row in bench.settled(caller, 1).rows}
    charged = sum(row.charge_nanos for row in rows.values())
    check_e21(answers[-1], level, name)
    assert (
        [answer.status for answer in answers].count(200) == len(rows) == len(stage.upstream_calls)
    )
    assert 0 < charged <= BUDGET
    assert counted(level, scope_id) == {PERIODS[name](datetime.now(UTC)): (charged, 0)}


@pytest.mark.parametrize("name", PERIODS)
@pytest.mark.parametrize("dialect", ["anthropic", "gemini", "openai", "openai-responses"])
def test_e21_in_each_dialect(bench: Bench, dialect: str, name: str) -> None:
    stage = bench.stage(PLAIN)
    poor = bench.make_caller(user_values={f"{name}_budget_nanos": 1})
    model = stage.model.name
    path, body = {
        "anthropic": ("messages", {"model": model, "messages": MESSAGES, "max_tokens": 9}),
        "gemini": (
            f"models/{model}:generateContent",
            {"contents": [{"parts": [{"text": "Say something."}]}]},
        ),
        "openai": ("chat/completions", {"model": model, "messages": MESSAGES}),
        "openai-responses": ("responses", {"model": model, "input": "Say something."}),
    }[dialect]

    answer = ask(
        bench.gateway, "POST", f"/v1/{path}", headers=poor.headers, body=orjson.dumps(body)
    )

    if dialect.startswith("openai"):
        check_e21(answer, "user", name)
    else:
        kind = {"anthropic": ("type", "billing_error"), "gemini": ("status", "RESOURCE_EXHAUSTED")}
        member, expected = kind[dialect]
        assert (answer.status, answer.error[member]) == (402, expected)
        assert answer.error["message"] == message_of("user", name)
        assert answer.headers["x-should-retry"] == "false"
        assert "retry-after" not in answer.headers
        check_nothing_leaks(answer)
    check_nothing_happened(stage, poor)


def test_a_call_is_lowered_to_what_a_budget_leaves(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10,tokens=100000", max_output_tokens=10_000)
    values = {"daily_budget_nanos": 2_000_000, "monthly_budget_nanos": 3_000_000}
    capped = bench.make_caller(user_values=values)

    answer = chat(stage, capped)

    (row,) = bench.settled(capped, 1).rows
    assert answer.status == 200
    assert 256 <= int(answer.headers["x-gateway-output-cap"]) < 500
    assert row.charge_nanos <= row.hold_nanos <= 2_000_000


def test_what_was_spent_in_other_periods_does_not_count(bench: Bench) -> None:
    stage = bench.stage(PLAIN)
    values = {"daily_budget_nanos": BUDGET, "monthly_budget_nanos": BUDGET}
    caller = bench.make_caller(user_values=values)
    now = datetime.now(UTC)
    periods = [
        *(day_of(now + timedelta(days=days)) for days in (-1, 1)),
        *(month_of(now + timedelta(days=days)) for days in (-31, 31)),
    ]
    for period in periods:
        SpendCounter.objects.create(
            scope=f"user:{period}", scope_id=caller.user.pk, spent_nanos=10 * BUDGET
        )

    answer = chat(stage, caller, max_tokens=16)

    (charge,) = bench.settled(caller, 1).charges
    assert answer.status == 200
    assert counted("user", caller.user.pk) == {
        **dict.fromkeys(periods, (10 * BUDGET, 0)),
        day_of(now): (charge, 0),
        month_of(now): (charge, 0),
    }
    # No call has spent that: the next verification would say so.
    SpendCounter.objects.filter(scope__in=[f"user:{period}" for period in periods]).delete()


def test_a_crowd_does_not_pass_a_budget(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10,tokens=16,latency=0.2")
    scope_id, callers = make_callers(
        bench, "user_group", daily_budget_nanos=20 * BUDGET, monthly_budget_nanos=BUDGET
    )

    with ThreadPoolExecutor(CROWD) as crowd:
        answers = list(
            crowd.map(lambda n: chat(stage, callers[n % 2], max_tokens=16), range(CROWD))
        )

    rows = {row.pk: row for caller in callers for row in bench.settled(caller, 0).rows}
    charged = sum(row.charge_nanos for row in rows.values())
    statuses = Counter(answer.status for answer in answers)
    assert statuses == {200: len(rows), 429: CROWD - len(rows)}
    assert 0 < charged <= BUDGET
    for answer in answers:
        if answer.status == 429:
            check_e21(answer, "user_group", "monthly")
    now = datetime.now(UTC)
    assert counted("user_group", scope_id) == {
        day_of(now): (charged, 0),
        month_of(now): (charged, 0),
    }


def test_one_sees_what_is_left(bench: Bench) -> None:
    stage = bench.stage(PLAIN)
    caller = bench.make_caller(user_values={"daily_budget_nanos": 1_000_000_000})
    chat(stage, caller, max_tokens=16)
    (charge,) = bench.settled(caller, 1).charges
    begins_at, resets_at = bounds_of(day_of(datetime.now(UTC)))

    shown = httpx.get(f"{bench.gateway.url}/v1/usage", headers=caller.headers).json()["budgets"]

    assert charge == 74_000
    assert shown == {
        "day": {
            "budget": "1",
            "spent": "0.000074",
            "held": "0",
            "left": "0.999926",
            "begins_at": begins_at.isoformat(),
            "resets_at": resets_at.isoformat(),
        },
        "month": None,
    }


def _raise_openai(stage: Stage) -> tuple[int | None, object]:
    with pytest.raises(openai.RateLimitError) as raised:
        stage.client().chat.completions.create(**stage.body())
    return raised.value.status_code, raised.value.code


def _raise_anthropic(stage: Stage) -> tuple[int | None, object]:
    base_url = stage.bench.gateway.url
    asked: Any = {"model": stage.model.name, "messages": MESSAGES, "max_tokens": 9}
    with (
        anthropic.Anthropic(api_key=stage.caller.raw, base_url=base_url, timeout=20) as client,
        pytest.raises(anthropic.APIStatusError) as raised,
    ):
        client.messages.create(**asked)
    return raised.value.status_code, raised.value.type


def _raise_google(stage: Stage) -> tuple[int | None, object]:
    options = types.HttpOptions(
        base_url=stage.bench.gateway.url, retry_options=types.HttpRetryOptions(attempts=3)
    )
    with (
        genai.Client(api_key=stage.caller.raw, http_options=options) as client,
        pytest.raises(errors.ClientError) as raised,
    ):
        client.models.generate_content(model=stage.model.name, contents="Say something.")
    return raised.value.code, raised.value.status


@pytest.mark.parametrize(
    ("act", "told"),
    [
        (_raise_openai, (429, "organization_spend_limit_exceeded")),
        (_raise_anthropic, (402, "billing_error")),
        (_raise_google, (402, "RESOURCE_EXHAUSTED")),
    ],
)
def test_e21_the_sdks_raise_and_do_not_try_again(
    bench: Bench, act: Callable[[Stage], tuple[int | None, object]], told: tuple[int, str]
) -> None:
    poor = bench.make_caller(user_values={"monthly_budget_nanos": 1})
    stage = replace(bench.stage(PLAIN), caller=poor)
    before = refusals(bench)

    raised = act(stage)

    assert raised == told
    assert subtract(refusals(bench), before) == {("E21", "organization_spend_limit_exceeded"): 1}
    check_nothing_happened(stage)
