"""What operators rely on: readiness that tells the truth, and restarts that nobody notices (F04,
F100, F101).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Callable
from concurrent.futures import Future

import pytest
from django.db import connection

from tests.faults.crowd import Outcome
from tests.faults.front import needs_nginx, nginx
from tests.faults.site import ROUNDS, Payer, Site, chat
from tests.support.gateway import GatewayProcess
from tests.support.processes import wait_until

pytestmark = [
    pytest.mark.slice,
    pytest.mark.postgres,
    pytest.mark.parametrize("number", range(ROUNDS)),
]

LOST_SECONDS_MAX = 2.0
BACK_SECONDS_MAX = 8.0
AWAY_SECONDS = 6.0
# What docs/operations.md says about the next gateway: nginx has to know that this one is back.
BETWEEN_SECONDS = 3.0
CLIENTS = 12
TOKEN = "0123456789abcdef"


def freeze(site: Site) -> Callable[[], None]:
    """Stop the database where it stands, and return how it goes on."""
    server = site.database.server
    assert server is not None
    server.signal_all(signal.SIGSTOP)
    return lambda: server.signal_all(signal.SIGCONT)


def kill(site: Site) -> Callable[[], None]:
    """Pull the database's plug, and return how it is started again."""
    server = site.database.server
    assert server is not None
    server.stop("immediate")
    return server.restart


@pytest.mark.parametrize("harm", [freeze, kill])
def test_readyz_follows_the_database(
    own_site: Site, number: int, harm: Callable[[Site], Callable[[], None]]
) -> None:
    (gateway,) = own_site.start_gateways("a", environment={"METRICS_TOKEN": TOKEN})
    connection.close()
    assert (gateway.get("/metrics"), gateway.get("/metrics", TOKEN)) == (404, 200)

    begun = time.monotonic()
    heal = harm(own_site)
    harmed_at = time.monotonic()
    try:
        _wait_for(gateway, 503, LOST_SECONDS_MAX + 1)
        lost_after = time.monotonic() - begun
        _stays(gateway, 503, AWAY_SECONDS)
        livez = gateway.get("/livez")
    finally:
        heal()
    healed_at = time.monotonic()
    _wait_for(gateway, 200, BACK_SECONDS_MAX)
    back_after = time.monotonic() - healed_at
    _stays(gateway, 200, 1.0)

    assert harmed_at - begun < 1.0
    assert lost_after <= LOST_SECONDS_MAX
    assert livez == 200
    own_site.report(
        f"F101 database lost ({harm.__name__}), round {number}: not ready after "
        f"{lost_after:.2f} s, ready {back_after:.2f} s after it was back"
    )


def _wait_for(gateway: GatewayProcess, status: int, seconds: float) -> None:
    wait_until(
        lambda: gateway.get("/readyz") == status,
        timeout_seconds=seconds,
        what=f"{status} from /readyz",
    )


def _stays(gateway: GatewayProcess, status: int, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        assert gateway.get("/readyz") == status
        time.sleep(0.05)


@needs_nginx
def test_a_rolling_restart_behind_nginx_refuses_no_call(site: Site, number: int) -> None:
    payer = site.make_payer()
    quick, slow = site.make_model("tokens=5"), site.make_model("tokens=30,pace=0.05")
    patient = {"DRAIN_SECONDS": "10"}
    gateways = site.start_gateways("a", "b", environment=patient)
    ports = {"a": gateways[0].port, "b": gateways[1].port}
    stops: list[float] = []

    with nginx(site.directory / "front", gateways) as port:
        is_over = False
        bodies = [chat(quick)] * CLIENTS + [chat(slow, stream=True)] * CLIENTS
        loops: list[Future[list[Outcome]]] = [
            site.crowd.repeat(f"http://127.0.0.1:{port}", payer.key, body, until=lambda: is_over)
            for body in bodies
        ]
        time.sleep(1.5)
        for name in ("a", "b"):
            stops.append(_restart(site, name, patient, ports[name]))
            time.sleep(BETWEEN_SECONDS)
        is_over = True
        outcomes = [outcome for loop in loops for outcome in loop.result(60)]
    healed_at = time.monotonic()

    _check_that_nobody_noticed(site, payer, outcomes)
    assert max(stops) < 10.0
    slowest = max(one.seconds for one in outcomes)
    site.check_books(
        f"F04 rolling restart behind nginx, slowest call {slowest:.2f} s, round {number}",
        outcomes,
        healed_at=healed_at,
        faults=2,
    )


def _restart(site: Site, name: str, environment: dict[str, str], port: int) -> float:
    """Restart a gateway as docs/operations.md says; return how long it took to end."""
    process = site.gateways[name].process
    process.send_signal(signal.SIGTERM)
    begun = time.monotonic()
    assert process.wait(20) in (0, -signal.SIGTERM)
    ended = time.monotonic() - begun
    site.start_gateways(name, environment=environment, port=port)
    return ended


def _check_that_nobody_noticed(site: Site, payer: Payer, outcomes: list[Outcome]) -> None:
    assert len(outcomes) > CLIENTS * 10
    assert [one for one in outcomes if one.status != 200] == []
    assert all(one.is_whole for one in outcomes)
    # None was sent to a provider twice.
    assert len(site.upstream_calls()) == len(outcomes)
    assert payer.owed_nanos == 0
