"""200 clients at once against too little money: nobody spends what is not there."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import orjson
import pytest

from apps.ai_models.models import AIModel, Route
from apps.audit.models import APIRequest
from apps.billing.models import Account, SpendCounter
from apps.users.models import User
from tests.faults.crowd import Outcome
from tests.faults.site import DOLLAR, INPUT_NANOS, OUTPUT_NANOS, Payer, Site, chat
from tests.support.gateway import GatewayProcess

pytestmark = pytest.mark.slice
CLIENTS = 200
AFFORDABLE = 20
TOKENS = 50
WAIT_SECONDS = 90.0


def start(site: Site) -> list[GatewayProcess]:
    """Start two gateways where the database takes two."""
    return site.start_gateways(*(("a",) if site.database.server is None else ("a", "b")))


def rush(
    site: Site, gateways: list[GatewayProcess], payer: Payer, body: dict[str, object]
) -> list[Outcome]:
    """Have all clients call at once, spread over the gateways."""
    for gateway in gateways:
        site.crowd.line_up(gateway.url, payer.key, body, count=CLIENTS // len(gateways))
    site.crowd.release()
    return site.crowd.wait(WAIT_SECONDS)


@contextmanager
def wallet_watched(site: Site, payer: Payer) -> Iterator[list[tuple[int, int]]]:
    """Read the wallet (posted, held) every 100 ms, on a connection of its own."""
    seen: list[tuple[int, int]] = []
    is_over = threading.Event()
    connection = site.database.connect()

    def watch() -> None:
        while not is_over.wait(0.1):
            rows = connection.execute(
                "SELECT posted_nanos, held_nanos FROM billing_account "  # noqa: S608 (a number)
                f"WHERE customer_id = {payer.customer_id} AND kind = 'wallet'"
            )
            seen.append(rows.fetchone())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield seen
    finally:
        is_over.set()
        thread.join()
        connection.close()


def worst_case_of(site: Site, gateway: GatewayProcess, body: dict[str, object]) -> int:
    """Return what a call like this holds, from one that somebody else makes."""
    probe = site.make_payer()
    # The gateway learns of the key within a second.
    time.sleep(1.5)
    site.crowd.call(gateway.url, probe.key, body)
    (outcome,) = site.crowd.wait(WAIT_SECONDS)
    assert outcome.is_whole, outcome
    return APIRequest.objects.get(pk=outcome.request_id).hold_nanos


def make_answers_cost(model: AIModel, nanos: int) -> None:
    """Have the provider report a prompt that brings the price of an answer to `nanos`."""
    prompt = (nanos - TOKENS * OUTPUT_NANOS) // INPUT_NANOS
    Route.objects.filter(model=model).update(
        upstream_name=f"demo-chat:prompt={prompt},tokens={TOKENS},latency=2"
    )


def test_200_clients_against_a_wallet_for_20_calls(site: Site) -> None:
    model = site.make_model(f"tokens={TOKENS}")
    gateways = start(site)
    body = chat(model, max_tokens=TOKENS)
    hold = worst_case_of(site, gateways[0], body)
    make_answers_cost(model, hold)
    payer = site.make_payer(AFFORDABLE * hold)
    time.sleep(1.5)  # The gateways learn of key and route within a second.

    with wallet_watched(site, payer) as seen:
        outcomes = rush(site, gateways, payer, body)
        healed_at = time.monotonic()

    answers = Counter((one.status, one.kind) for one in outcomes)
    assert answers == {(200, ""): AFFORDABLE, (429, "insufficient_quota"): CLIENTS - AFFORDABLE}
    assert (payer.wallet.posted_nanos, payer.owed_nanos) == (0, 0)
    assert all(posted >= held >= 0 for posted, held in seen)
    assert max(held for _, held in seen) == AFFORDABLE * hold
    site.check_books("overspend, fixed maximum", outcomes, healed_at=healed_at, faults=0)


def test_200_clients_against_a_budget_of_a_month_for_20_calls(site: Site) -> None:
    model = site.make_model(f"tokens={TOKENS}")
    gateways = start(site)
    body = chat(model, max_tokens=TOKENS)
    hold = worst_case_of(site, gateways[0], body)
    make_answers_cost(model, hold)
    payer = site.make_payer()
    budget = AFFORDABLE * hold
    User.objects.filter(pk=payer.user_id).update(monthly_budget_nanos=budget)
    time.sleep(1.5)  # The gateways learn of key and budget within a second.

    with wallet_watched(site, payer) as seen:
        outcomes = rush(site, gateways, payer, body)
        healed_at = time.monotonic()

    answers = Counter((one.status, one.kind) for one in outcomes)
    (counter,) = SpendCounter.objects.filter(scope_id=payer.user_id)
    assert answers == {(200, ""): AFFORDABLE, (429, "insufficient_quota"): CLIENTS - AFFORDABLE}
    assert (counter.spent_nanos, counter.held_nanos) == (budget, 0)
    assert 100 * DOLLAR - payer.wallet.posted_nanos == budget
    assert max(held for _, held in seen) == budget
    site.check_books("overspend, budget of a month", outcomes, healed_at=healed_at, faults=0)


def test_200_clients_without_a_maximum_share_what_is_there(site: Site) -> None:
    model = site.make_model("tokens=1000,latency=2", max_output_tokens=1_000)
    gateways = start(site)
    body = chat(model)
    hold = worst_case_of(site, gateways[0], body)
    # Four whole answers and six tenths of one.
    payer = site.make_payer(4 * hold + hold * 6 // 10)
    time.sleep(1.5)

    with wallet_watched(site, payer) as seen:
        outcomes = rush(site, gateways, payer, body)
        healed_at = time.monotonic()

    answers = Counter((one.status, one.kind) for one in outcomes)
    lowered = [one.cap for one in outcomes if one.cap is not None]
    rows = APIRequest.objects.filter(customer_id=payer.customer_id)
    assert answers == {(200, ""): 5, (429, "insufficient_quota"): CLIENTS - 5}
    assert len(lowered) == 1
    assert 256 <= lowered[0] < 1_000
    assert sorted(row.output_tokens for row in rows) == [lowered[0], *[1_000] * 4]
    assert payer.owed_nanos == 0
    assert all(posted >= held >= 0 for posted, held in seen)
    site.check_books("overspend, lowered maximum", outcomes, healed_at=healed_at, faults=0)


def test_a_dollar_runs_four_calls_without_a_maximum_at_once(site: Site) -> None:
    million = 1_000_000_000
    model = site.make_model(
        "tokens=20,latency=3",
        prices={"input": 2_500 * million // 1_000, "output": 10 * million},
        max_output_tokens=16_384,
    )
    payer = site.make_payer(DOLLAR)
    (gateway,) = site.start_gateways("a")

    site.crowd.line_up(gateway.url, payer.key, chat(model), count=4)
    site.crowd.release()
    outcomes = site.crowd.wait(WAIT_SECONDS)

    assert [(one.status, one.cap) for one in outcomes] == [(200, None)] * 4
    calls = [orjson.loads(line) for line in site.log.read_bytes().splitlines()]
    assert max(call["started_at"] for call in calls) < min(call["ended_at"] for call in calls)


@pytest.mark.postgres
def test_control_without_the_guard_the_wallet_is_overspent(site: Site) -> None:
    model = site.make_model(f"tokens={TOKENS},latency=2")
    gateways = site.start_gateways("a", "b", plant=["tests.faults.planted:no_guard"])
    body = chat(model, max_tokens=TOKENS)
    hold = worst_case_of(site, gateways[0], body)
    payer = site.make_payer(AFFORDABLE * hold)
    time.sleep(1.5)

    with wallet_watched(site, payer):
        outcomes = rush(site, gateways, payer, body)

    granted = sum(one.status == 200 for one in outcomes)
    wallet = Account.objects.get(customer_id=payer.customer_id, kind="wallet")
    assert granted > AFFORDABLE
    site.report(f"control: {granted} calls granted on {AFFORDABLE}, wallet {wallet.posted_nanos}")
