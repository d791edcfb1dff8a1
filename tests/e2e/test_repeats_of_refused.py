"""Repeats get their answer whatever has changed since that would refuse a first call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pytest

from apps.ai_models.models import AIModel
from apps.api_keys.models import APIKey
from apps.billing.adjustments import adjust_balance
from apps.providers.models import DisabledReason, ProviderKey
from tests.e2e.answers import check_error
from tests.e2e.keyed import post, stream
from tests.e2e.rows import CONSTANTS, INVALID, PLANT, chat, wait_until_refused
from tests.e2e.wire import events_of
from tests.support.bench import DOLLAR, INPUT_NANOS, OUTPUT_NANOS, Bench, Stage
from tests.support.processes import wait_until

__all__ = ["CONSTANTS", "PLANT"]

CHARGE: Final = 10 * INPUT_NANOS + 16 * OUTPUT_NANOS


def _withdraw(stage: Stage) -> None:
    stage.bench.group.models.remove(stage.model)


def _switch_off(stage: Stage) -> None:
    AIModel.objects.filter(pk=stage.model.pk).update(is_active=False)


def _shorten(stage: Stage) -> None:
    AIModel.objects.filter(pk=stage.model.pk).update(max_output_tokens=50)


def _unroute(stage: Stage) -> None:
    stage.model.routes.all().delete()


def _refuse_key(stage: Stage) -> None:
    ProviderKey.objects.filter(provider__routes__model=stage.model).update(
        disabled_at=stage.model.created_at, disabled_reason=DisabledReason.AUTH
    )


def _empty_wallet(stage: Stage) -> None:
    stage.settled(2)
    adjust_balance(
        customer_id=stage.caller.user.customer_id,
        amount_nanos=2 * CHARGE - 10 * DOLLAR,
        actor=None,
        reason="all that is left",
    )


# What changes, and what a first call is answered then.
CHANGES: Final[dict[str, tuple[Callable[[Stage], None], int, str]]] = {
    "E07 the model is not the caller's any more": (_withdraw, 404, "model_not_found"),
    "E07 the model is switched off": (_switch_off, 404, "model_not_found"),
    "E13 the model writes less": (_shorten, 400, "integer_above_max_value"),
    "E19 nothing is left": (_empty_wallet, 429, "credit_balance_exhausted"),
    "E32 no route": (_unroute, 503, "model_not_available"),
    "E41 the provider refuses its key": (_refuse_key, 502, "upstream_auth_error"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_repeat_gets_its_answer_where_a_first_call_is_refused(bench: Bench, change: str) -> None:
    act, status, code = CHANGES[change]
    stage = bench.stage("demo-chat:prompt=10", provider=bench.make_provider())
    watcher = bench.make_caller()
    asked: dict[str, Any] = {"max_tokens": 100}
    first, streamed = post(stage, **asked), stream(stage, "streamed", **asked)

    act(stage)
    if act is not _empty_wallet:  # The ledger knows it already.
        wait_until(
            lambda: chat(stage, watcher, **asked).status == status,
            timeout_seconds=20,
            what="the change in the gateway's configuration",
        )
    count = len(stage.upstream_calls)
    refused = post(stage, "another", **asked)
    again, streamed_again = post(stage, **asked), stream(stage, "streamed", **asked)
    other = post(stage, max_tokens=40)

    assert (refused.status, refused.error["code"]) == (status, code)
    assert (again.status, again.body) == (200, first.body)
    assert again.headers["idempotent-replayed"] == "true"
    assert events_of(streamed_again) == events_of(streamed)
    assert events_of(streamed)[-1] == "[DONE]"
    check_error(other, status=422, type="idempotency_error", code="idempotency_key_reused")
    assert stage.settled(2).charges == (CHARGE, CHARGE)
    assert len(stage.upstream_calls) == count


def test_a_key_that_is_not_valid_any_more_gets_nothing(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10")
    first = post(stage)
    APIKey.objects.filter(pk=stage.caller.key.pk).update(is_active=False)
    wait_until_refused(stage.caller, bench)

    again = post(stage)

    assert first.status == 200
    check_error(again, status=401, type=INVALID, code="api_key_disabled")


def test_what_was_refused_the_first_time_is_refused_as_before(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10")

    answers = [post(stage, model="none") for _ in range(2)]

    assert [answer.error["code"] for answer in answers] == ["model_not_found"] * 2
    assert "idempotent-replayed" not in answers[1].headers
    assert stage.settled(0).rows == ()


def test_repeats_that_nothing_hides_count_in_the_limits_of_their_key(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10")
    limited, watcher = bench.make_caller(rpm=3), bench.make_caller()
    first = post(stage, caller=limited)
    _switch_off(stage)
    wait_until(
        lambda: chat(stage, watcher).status == 404,
        timeout_seconds=20,
        what="the change in the gateway's configuration",
    )
    count = len(stage.upstream_calls)

    answers = [post(stage, caller=limited) for _ in range(3)]

    assert [answer.status for answer in answers] == [200, 200, 429]
    assert answers[1].body == first.body
    assert answers[2].error["code"] == "rate_limit_exceeded"
    assert len(stage.upstream_calls) == count
