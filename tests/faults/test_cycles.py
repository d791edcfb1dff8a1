"""A database and a Redis that go and come back a hundred times: nothing of it stays."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from apps.ai_models.models import AIModel
from tests.faults.load import check_refusals, first_success_after, steady_calls
from tests.faults.site import Payer, Site, chat
from tests.soak.gauges import GROWTH_MAX, is_back, read, wait_until_back
from tests.support.chaos_proxy import ChaosProxy
from tests.support.gateway import GatewayProcess
from tests.support.redis import RedisServer, is_installed

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.redis,
    pytest.mark.skipif(not is_installed(), reason="redis-server is not installed"),
]
# Until then pools are filled, and the allocator has what it keeps.
WARM_UP_CYCLES = 30
CYCLES = 100
CUT_SECONDS = 0.2
WELL_SECONDS = 0.4
# Longer than the gateway keeps connections to providers.
QUIET_SECONDS = 40.0
BACK_SECONDS_MAX = 10.0
DESCRIPTORS_MORE_MAX = 5


@pytest.fixture
def ways(own_site: Site, tmp_path: Path) -> Iterator[dict[str, ChaosProxy]]:
    """The ways of a gateway to its database and to its Redis."""
    folder = tmp_path / "redis"
    folder.mkdir()
    assert own_site.database.server is not None
    with ExitStack() as stack:
        redis = RedisServer.start(folder)
        stack.callback(redis.stop)
        ways = {
            "database": ChaosProxy(own_site.database.server.port),
            "redis": ChaosProxy(redis.port),
        }
        for way in ways.values():
            way.start()
            stack.callback(way.stop)
        yield ways


def test_nothing_stays_of_a_hundred_faults_of_database_and_redis(
    own_site: Site, ways: dict[str, ChaosProxy]
) -> None:
    site, payer = own_site, own_site.make_payer(rpm=1_000_000, concurrency=1_000)
    models = site.make_model("tokens=5"), site.make_model("tokens=20,pace=0.05")
    (gateway,) = site.start_gateways(
        "a",
        database_url=site.database_url_through(ways["database"].port),
        environment={"REDIS_URL": f"redis://127.0.0.1:{ways['redis'].port}/0"},
    )
    try:
        cut_and_heal(site, gateway, payer, models, ways, WARM_UP_CYCLES)
        time.sleep(QUIET_SECONDS)
        before = read(gateway, site.database)
        cut_and_heal(site, gateway, payer, models, ways, CYCLES)
        time.sleep(QUIET_SECONDS)
        (after,) = wait_until_back([gateway], site.database, [before])
        growth = after.resident_bytes / before.resident_bytes

        site.report(f"{CYCLES} cycles of faults, memory {growth:.3f}: {before} and then {after}")
        assert is_back(before, after)
        assert after.descriptors <= before.descriptors + DESCRIPTORS_MORE_MAX
        assert growth <= GROWTH_MAX
        site.verify()
    finally:
        gateway.kill()


def cut_and_heal(
    site: Site,
    gateway: GatewayProcess,
    payer: Payer,
    models: tuple[AIModel, AIModel],
    ways: dict[str, ChaosProxy],
    cycles: int,
) -> None:
    """Cut both ways in turn, so many times each, while there are calls; then check the books."""
    quick, streaming = models
    with steady_calls(site, [gateway], payer, quick, 4) as outcomes:
        for _ in range(cycles):
            site.crowd.call(gateway.url, payer.key, chat(streaming, stream=True))
            for way in ways.values():
                way.cut()
                time.sleep(CUT_SECONDS)
                way.heal()
                time.sleep(WELL_SECONDS)
        healed_at = time.monotonic()
        time.sleep(BACK_SECONDS_MAX / 2)
    streams = site.crowd.wait(60)

    check_refusals(outcomes)
    assert first_success_after(outcomes, healed_at) < BACK_SECONDS_MAX / 2
    assert {one.status for one in streams} <= {200, 503}
    site.check_books(
        f"{cycles} cycles of cuts from database and Redis",
        [*streams, *outcomes],
        healed_at=healed_at,
        faults=2 * cycles,
    )
