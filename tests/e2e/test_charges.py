"""What a call costs, computed by hand, where a mistake would not show in a call like any other."""

from __future__ import annotations

import openai
import psutil
import pytest

from apps.users.models import User, UserGroup
from tests.support.bench import INPUT_NANOS, OUTPUT_NANOS, Bench

CHARGE = 10 * INPUT_NANOS + 16 * OUTPUT_NANOS
REQUEST_NANOS = 7_000


def test_a_call_costs_the_price_of_a_request_once(bench: Bench) -> None:
    stage = bench.stage(request_nanos=REQUEST_NANOS)

    stage.client(max_retries=0).chat.completions.create(**stage.body())

    assert stage.settled().charges == (CHARGE + REQUEST_NANOS,)


def test_a_call_that_failed_does_not_cost_the_price_of_a_request(bench: Bench) -> None:
    stage = bench.stage("demo-chat:fault=status(500)", request_nanos=REQUEST_NANOS)

    with pytest.raises(openai.InternalServerError):
        stage.client(max_retries=0).chat.completions.create(**stage.body())

    statement = stage.settled()
    assert statement.states == ("failed",)
    assert (statement.charges, statement.entries) == ((0,), ())


def test_the_multiplier_counts_once(bench: Bench) -> None:
    group = UserGroup.objects.create(name="half", multiplier_millionths=500_000)
    stage = bench.stage()
    User.objects.filter(pk=stage.caller.user.pk).update(user_group=group)
    # Changes are seen in their order.
    bench.make_caller()

    stage.client(max_retries=0).chat.completions.create(**stage.body())

    assert stage.settled().charges == (CHARGE // 2,)


def _tokenizers(bench: Bench) -> int:
    children = psutil.Process(bench.gateway.process.pid).children()
    return sum("apps.proxy.tokenizer" in child.cmdline() for child in children)


def test_tokens_are_counted_only_for_a_call_without_usage(bench: Bench) -> None:
    reported, unreported = bench.stages("demo-chat:prompt=10", "demo-chat:tokens=3,fault=no_usage")

    reported.client(max_retries=0).chat.completions.create(**reported.body())
    before = _tokenizers(bench)
    unreported.client(max_retries=0).chat.completions.create(**unreported.body())

    assert (before, _tokenizers(bench)) == (0, 1)
    assert reported.settled().charges == (CHARGE,)
    statement = unreported.settled()
    assert statement.rows[0].usage_source == "estimated"
