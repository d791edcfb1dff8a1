"""A gateway that dies exactly between two steps of a call (F02)."""

from __future__ import annotations

import time

import pytest

from apps.ai_models.models import AIModel
from tests.faults.crowd import Outcome
from tests.faults.planted import EXIT_CODE
from tests.faults.site import ROUNDS, SHORT_LEASE, Payer, Site, chat
from tests.support.gateway import GatewayProcess

pytestmark = pytest.mark.slice
POINTS = (
    "after_hold",
    "after_upstream_headers",
    "before_settle",
    "after_settle_before_commit",
    "after_commit_before_response",
)
CALLS = 8


def planted(point: str) -> str:
    return f"tests.faults.planted:crash_{point}"


def call_until_it_dies(
    site: Site, gateway: GatewayProcess, payer: Payer, model: AIModel
) -> list[Outcome]:
    """Make streams and whole answers, more than the gateway survives."""
    for is_stream in (True, False):
        site.crowd.call(gateway.url, payer.key, chat(model, stream=is_stream), count=CALLS // 2)
    outcomes = site.crowd.wait(30)
    assert gateway.process.wait(10) == EXIT_CODE
    return outcomes


@pytest.mark.sqlite
@pytest.mark.parametrize("number", range(ROUNDS))
def test_each_crash_point_with_a_restart(site: Site, number: int) -> None:
    model, payer = site.make_model("tokens=20,pace=0.02"), site.make_payer()
    outcomes: list[Outcome] = []

    for point in POINTS:
        (gateway,) = site.start_gateways("a", plant=[planted(point)])
        outcomes += call_until_it_dies(site, gateway, payer, model)
    died_at = time.monotonic()
    site.start_gateways("a")

    site.check_books(
        f"crash points, restart, round {number}", outcomes, healed_at=died_at, faults=len(POINTS)
    )


@pytest.mark.postgres
@pytest.mark.parametrize("number", range(ROUNDS))
def test_each_crash_point_beside_a_living_gateway(site: Site, number: int) -> None:
    model = site.make_model("tokens=20,pace=0.02")
    payers = {point: site.make_payer() for point in POINTS}
    (living,) = site.start_gateways("living", plant=[SHORT_LEASE])
    outcomes: list[Outcome] = []

    for point in POINTS:
        (gateway,) = site.start_gateways(point, plant=[SHORT_LEASE, planted(point)])
        outcomes += call_until_it_dies(site, gateway, payers[point], model)
        # The client tries again elsewhere: another call, charged once itself.
        site.crowd.call(living.url, payers[point].key, chat(model), count=CALLS)
        again = site.crowd.wait(30)
        assert [one.is_whole for one in again] == [True] * CALLS
        outcomes += again
    died_at = time.monotonic()

    site.check_books(
        f"crash points, take-over, round {number}", outcomes, healed_at=died_at, faults=len(POINTS)
    )
