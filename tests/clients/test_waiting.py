"""What clients wait for by themselves: a limit per minute, a database, a provider that recovers."""

from __future__ import annotations

import threading
import time

import pytest

from tests.clients.client import Client, Outcome
from tests.clients.jobs import do, job_of
from tests.clients.refusals import refusals, subtract
from tests.e2e.faults import LockedAccounts
from tests.e2e.rows import chat
from tests.support.bench import INPUT_NANOS, OUTPUT_NANOS, Bench, Stage
from tests.support.processes import wait_until

pytestmark = pytest.mark.long

NAMES = ["python", "node", "langchain"]
CHARGE = 10 * INPUT_NANOS + 16 * OUTPUT_NANOS


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("limits", "type"), [({"rpm": 20}, "requests"), ({"tpm": 600}, "tokens")], ids=["E22", "E23"]
)
def test_a_client_waits_as_long_as_a_limit_asks_and_then_succeeds(
    bench: Bench, clients: dict[str, Client], name: str, limits: dict[str, int], type: str
) -> None:
    stage = bench.stage("demo-chat:prompt=100")
    caller = bench.make_caller(**limits)  # type: ignore[arg-type]  # rpm or tpm
    limited = Stage(bench, caller, stage.model, stage.upstream_name)
    made = 0
    while (refused := chat(limited)).status == 200 and made < 60:
        made += 1
    asked = int(refused.headers["retry-after"])
    begun = time.monotonic()

    outcome = do(clients[name], limited, "plain")

    assert (refused.status, refused.error["type"]) == (429, type)
    assert outcome.usages == ((100, 0, 16, 0),)
    # The limit goes on filling while the client starts.
    assert time.monotonic() - begun >= asked - 1.5
    statement = limited.settled(made + 1)
    assert statement.charges == (100 * INPUT_NANOS + 16 * OUTPUT_NANOS,) * (made + 1)


@pytest.mark.parametrize("name", NAMES)
def test_e34_a_client_waits_for_the_database(
    bench: Bench, clients: dict[str, Client], name: str
) -> None:
    stage = bench.stage("demo-chat:prompt=10")
    outcomes: list[Outcome] = []
    before = refusals(bench)
    job = job_of(stage, "plain")
    caller = threading.Thread(target=lambda: outcomes.extend(clients[name].do([job])))

    with LockedAccounts(bench.database):
        caller.start()
        wait_until(
            lambda: subtract(refusals(bench), before) != {},
            timeout_seconds=30,
            what="the end of the first try's patience",
        )
    caller.join(60)

    assert [outcome.error for outcome in outcomes] == [None]
    statement = stage.settled()
    assert [charge for charge in statement.charges if charge] == [CHARGE]
    assert statement.entries == (("charge", -CHARGE),)
    assert len(stage.upstream_calls) == 1
    # The first, and perhaps the second, which may have come before the database was back.
    assert subtract(refusals(bench), before)["E34", "service_unavailable"] in (1, 2)


@pytest.mark.parametrize("name", NAMES)
def test_a_provider_that_recovers_is_paid_once(
    bench: Bench, clients: dict[str, Client], name: str
) -> None:
    stage = bench.stage("demo-chat:prompt=10,fault=flaky(2)")

    outcome = do(clients[name], stage, "plain")

    assert outcome.usages == ((10, 0, 16, 0),)
    statement = stage.settled(3)
    assert statement.states == ("failed", "failed", "completed")
    assert statement.charges == (0, 0, CHARGE)
    assert statement.entries == (("charge", -CHARGE),)


@pytest.mark.parametrize("name", NAMES)
def test_a_client_that_is_told_not_to_try_again_does_not(
    bench: Bench, clients: dict[str, Client], name: str
) -> None:
    stage = bench.stage("demo-chat:prompt=10,fault=flaky(2)")

    (outcome,) = clients[name].do([job_of(stage, "plain", retries=0)])

    assert outcome.error is not None
    assert (outcome.error["status"], outcome.error["code"]) == (502, "upstream_error")
    statement = stage.settled()
    assert (statement.states, statement.charges) == (("failed",), (0,))
