"""Calls with an `Idempotency-Key` on gateways that die, freeze or share them (I-33, I-37)."""

from __future__ import annotations

import signal
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from apps.ai_models.models import AIModel
from apps.audit.models import APIRequest, CallKey
from apps.billing.models import Hold
from tests.e2e.answers import HttpAnswer
from tests.faults.keyed import charges, post
from tests.faults.site import (
    INPUT_NANOS,
    OUTPUT_NANOS,
    PROMPT_TOKENS,
    RECOVERY_SECONDS_MAX,
    Payer,
    Site,
)
from tests.support.gateway import GatewayProcess
from tests.support.processes import wait_until

CHARGE = PROMPT_TOKENS * INPUT_NANOS + 16 * OUTPUT_NANOS
# Between two tries, and twice that for what must not come.
PAUSE_SECONDS = 0.5


def begin(
    threads: ThreadPoolExecutor, gateway: GatewayProcess, payer: Payer, model: AIModel
) -> Future[HttpAnswer]:
    """Begin a call and return when its key is taken."""
    future = threads.submit(post, gateway, payer, model)
    wait_until(
        lambda: CallKey.objects.filter(user_id=payer.user_id).exists(),
        timeout_seconds=20,
        what="the claim",
    )
    return future


def ask_until_made(gateway: GatewayProcess, payer: Payer, model: AIModel) -> list[HttpAnswer]:
    """Repeat a call until it is answered, and return all answers."""
    answers = [post(gateway, payer, model)]
    deadline = time.monotonic() + RECOVERY_SECONDS_MAX
    while answers[-1].status == 409 and time.monotonic() < deadline:
        time.sleep(PAUSE_SECONDS)
        answers.append(post(gateway, payer, model))
    return answers


def states(payer: Payer) -> list[str]:
    rows = APIRequest.objects.filter(user_id=payer.user_id)
    return list(rows.order_by("id").values_list("state", flat=True))


def test_a_call_whose_gateway_is_killed_is_made_once_by_whoever_asks_again(site: Site) -> None:
    model, payer = site.make_model("latency=4"), site.make_payer()
    is_shared = site.database.server is not None
    killed, *others = site.start_gateways(*(("killed", "living") if is_shared else ("killed",)))

    with ThreadPoolExecutor(1) as threads:
        first = begin(threads, killed, payer, model)
        killed.kill()
        killed_at = time.monotonic()
        with pytest.raises(ConnectionError):
            first.result()
    (asked,) = others or site.start_gateways("killed")
    answers = ask_until_made(asked, payer, model)
    took = time.monotonic() - killed_at
    replay = post(asked, payer, model)

    codes = {answer.error["code"] for answer in answers[:-1]}
    assert codes <= {"idempotency_in_progress"}
    assert (answers[-1].status, replay.status, replay.body) == (200, 200, answers[-1].body)
    assert replay.headers["idempotent-replayed"] == "true"
    assert took < RECOVERY_SECONDS_MAX
    assert states(payer) == ["interrupted", "completed"]
    assert charges(payer) == [-CHARGE]
    site.check_books(
        f"kill -9 under a key, made again after {took:.1f} s", [], healed_at=time.monotonic()
    )


@pytest.mark.postgres
def test_who_was_frozen_until_another_gateway_made_its_call_charges_nothing(site: Site) -> None:
    model, payer = site.make_model("latency=3"), site.make_payer()
    frozen, living = site.start_gateways("frozen", "living")

    with ThreadPoolExecutor(1) as threads:
        first = begin(threads, frozen, payer, model)
        frozen.process.send_signal(signal.SIGSTOP)
        try:
            answers = ask_until_made(living, payer, model)
        finally:
            frozen.process.send_signal(signal.SIGCONT)
        first.exception()  # Its client may have given up by now.

    assert answers[-1].status == 200
    wait_until(
        lambda: not Hold.objects.exists(), timeout_seconds=RECOVERY_SECONDS_MAX, what="all holds"
    )
    time.sleep(2 * PAUSE_SECONDS)  # for a late settlement that must not come
    assert states(payer) == ["interrupted", "completed"]
    assert charges(payer) == [-CHARGE]
    site.verify()


@pytest.mark.postgres
def test_64_at_once_over_two_gateways_are_one_call(site: Site) -> None:
    model, payer = site.make_model("latency=0.5"), site.make_payer()
    gateways = site.start_gateways("a", "b")
    barrier = threading.Barrier(64, timeout=30)

    def act(number: int) -> HttpAnswer:
        barrier.wait()
        return post(gateways[number % 2], payer, model)

    with ThreadPoolExecutor(64) as threads:
        answers = [future.result() for future in [threads.submit(act, n) for n in range(64)]]

    made = [answer for answer in answers if answer.status == 200]
    running = [answer for answer in answers if answer.status == 409]
    assert len(made) + len(running) == 64
    assert {answer.body for answer in made} == {made[0].body}
    assert sum("idempotent-replayed" not in answer.headers for answer in made) == 1
    assert {answer.error["code"] for answer in running} <= {"idempotency_in_progress"}
    assert states(payer) == ["completed"]
    assert charges(payer) == [-CHARGE]
    wait_until(lambda: len(site.upstream_calls()) == 1, timeout_seconds=5, what="the call's log")
    replays = [post(gateway, payer, model) for gateway in gateways]
    assert [answer.body for answer in replays] == [made[0].body] * 2
    assert len(site.upstream_calls()) == 1
