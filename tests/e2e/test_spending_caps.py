"""Spending caps of users, user groups and providers, and calls that go to another provider."""

from __future__ import annotations

import pytest

from apps.billing.models import SpendCounter
from apps.users.models import UserGroup
from tests.e2e.answers import HttpAnswer, check_error
from tests.e2e.rows import chat, check_nothing_happened
from tests.support.bench import DOLLAR, Bench, Caller, Stage

PLAIN = "demo-chat:prompt=10,tokens=16"
CAP = 300_000
AMPLE = 100 * DOLLAR


def check_e20(answer: HttpAnswer, of: str) -> None:
    check_error(answer, status=429, type="insufficient_quota", code="project_spend_limit_exceeded")
    assert answer.error["message"] == f"The spending limit of {of} is reached."


def spent(scope: str, scope_id: int) -> tuple[int, int]:
    counter = SpendCounter.objects.get(scope=scope, scope_id=scope_id)
    return counter.spent_nanos, counter.held_nanos


def make_capped(bench: Bench, level: str) -> tuple[int, list[Caller]]:
    """Return the id of a capped user or group, and two callers: his two keys, or its two users."""
    if level == "user":
        first = bench.make_caller(user_values={"cap_nanos": CAP})
        return first.user.pk, [first, bench.make_caller(user=first.user)]
    group = UserGroup.objects.create(name="capped", cap_nanos=CAP)
    return group.pk, [bench.make_caller(user_values={"user_group": group}) for _ in range(2)]


@pytest.mark.parametrize(
    ("level", "of"), [("user", "this user"), ("user_group", "this user group")]
)
def test_callers_share_the_cap_of_their_user_and_of_their_group(
    bench: Bench, level: str, of: str
) -> None:
    stage = bench.stage(PLAIN)
    scope_id, callers = make_capped(bench, level)

    answers = [chat(stage, callers[n % 2], max_tokens=16) for n in range(6)]

    rows = {row.pk: row for caller in callers for row in bench.settled(caller, 1).rows}
    charged = sum(row.charge_nanos for row in rows.values())
    check_e20(answers[-1], of)
    assert (
        [answer.status for answer in answers].count(200) == len(rows) == len(stage.upstream_calls)
    )
    assert charged <= CAP
    assert spent(level, scope_id) == (charged, 0)


def test_a_call_is_lowered_to_what_the_user_s_cap_leaves(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10,tokens=100000", max_output_tokens=10_000)
    capped = bench.make_caller(user_values={"cap_nanos": 2_000_000})

    answer = chat(stage, capped)

    (row,) = bench.settled(capped, 1).rows
    assert answer.status == 200
    assert 256 <= int(answer.headers["x-gateway-output-cap"]) < 500
    assert row.charge_nanos <= row.hold_nanos <= 2_000_000


def test_a_provider_whose_budget_is_spent_is_passed_over(bench: Bench) -> None:
    poor = bench.make_provider(cap_nanos=1)
    stage = bench.stage(PLAIN, provider=poor, fallbacks=[(PLAIN, None)])

    answers = [chat(stage, max_tokens=16) for _ in range(2)]

    statement = stage.settled(2)
    assert [answer.status for answer in answers] == [200, 200]
    assert {row.provider_id for row in statement.rows} == {bench.provider.pk}
    assert {attempt.provider_id for attempt in statement.attempts} == {bench.provider.pk}
    assert len(statement.attempts) == 2
    assert spent("provider", poor.pk) == (0, 0)


def test_an_answer_is_not_lowered_where_another_provider_gives_it_whole(bench: Bench) -> None:
    nearly = bench.make_provider(cap_nanos=2_000_000)
    stage = bench.stage(PLAIN, provider=nearly, fallbacks=[(PLAIN, None)], max_output_tokens=10_000)

    answer = chat(stage)

    (row,) = stage.settled().rows
    assert (answer.status, row.provider_id) == (200, bench.provider.pk)
    assert "x-gateway-output-cap" not in answer.headers


@pytest.mark.parametrize("other", [1, 1_500_000])
def test_an_answer_is_lowered_where_no_provider_gives_it_whole(bench: Bench, other: int) -> None:
    poor, nearly = (bench.make_provider(cap_nanos=cap) for cap in (other, 2_000_000))
    stage = bench.stage(PLAIN, provider=poor, fallbacks=[(PLAIN, nearly)], max_output_tokens=10_000)

    answer = chat(stage)

    (row,) = stage.settled().rows
    assert (answer.status, row.provider_id) == (200, nearly.pk if other == 1 else poor.pk)
    assert 256 <= int(answer.headers["x-gateway-output-cap"]) < 500


def test_a_large_call_does_not_take_a_provider_away_from_small_ones(bench: Bench) -> None:
    nearly = bench.make_provider(cap_nanos=2_000_000)
    stage = bench.stage(PLAIN, provider=nearly, fallbacks=[(PLAIN, None)], max_output_tokens=10_000)

    answers = [chat(stage, max_tokens=tokens) for tokens in (10_000, 16)]

    providers = {row.provider_id for row in stage.settled(2).rows if row.hold_nanos < 2_000_000}
    assert [answer.status for answer in answers] == [200, 200]
    assert providers == {nearly.pk}


def test_when_all_providers_have_spent_their_budgets_the_call_is_refused(bench: Bench) -> None:
    poor, poorer = (bench.make_provider(cap_nanos=cap) for cap in (1, 0))
    stage = bench.stage(PLAIN, provider=poor, fallbacks=[(PLAIN, poorer)])

    answer = chat(stage, max_tokens=16)

    check_e20(answer, "this model's providers")
    check_nothing_happened(stage)


@pytest.mark.parametrize("budget", [AMPLE, 1])
def test_a_call_fails_over_only_to_a_provider_whose_budget_covers_it(
    bench: Bench, budget: int
) -> None:
    broken, other = (bench.make_provider(cap_nanos=cap) for cap in (AMPLE, budget))
    stage: Stage = bench.stage(
        "demo-chat:fault=status(500)", provider=broken, fallbacks=[(PLAIN, other)]
    )

    answer = chat(stage, max_tokens=16)

    statement = stage.settled()
    tried = [attempt.provider_id for attempt in statement.attempts]
    charged = statement.charges[0]
    assert spent("provider", broken.pk) == (0, 0)
    assert spent("provider", other.pk) == (charged, 0)
    if budget == AMPLE:
        assert (answer.status, tried) == (200, [broken.pk, other.pk])
        assert charged == 74_000
    else:
        assert (answer.status, tried, charged) == (502, [broken.pk], 0)
