"""A Redis that is gone, frozen, emptied or full while gateways limit with it (F40 to F43, F104)."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import redis

from tests.faults.crowd import Outcome
from tests.faults.load import steady_calls
from tests.faults.rest import ask, sign_in
from tests.faults.site import Site, chat
from tests.support.people import PASSWORD, make_admin
from tests.support.redis import RedisServer, is_installed

pytestmark = [
    pytest.mark.redis,
    pytest.mark.skipif(not is_installed(), reason="redis-server is not installed"),
]
HARMED_SECONDS = 6.0
# Of a call that waits for Redis in vain, before it is given up for a while.
ADDED_SECONDS_MAX = 1.0


def shut_down(server: RedisServer, client: redis.Redis) -> None:
    with suppress(redis.ConnectionError):
        client.shutdown(nosave=True)


def freeze(server: RedisServer, client: redis.Redis) -> None:
    server.process.send_signal(signal.SIGSTOP)


def sleep(server: RedisServer, client: redis.Redis) -> None:
    waiter = redis.Redis.from_url(server.url, socket_timeout=None)
    command = ("DEBUG", "SLEEP", str(HARMED_SECONDS))
    threading.Thread(target=waiter.execute_command, args=command).start()


def empty(server: RedisServer, client: redis.Redis) -> None:
    client.flushall()
    client.script_flush()


def fill(server: RedisServer, client: redis.Redis) -> None:
    client.config_set("maxmemory-policy", "noeviction")
    client.config_set("maxmemory", "1mb")


Harm = Callable[[RedisServer, redis.Redis], None]
HARMS: dict[str, tuple[str, Harm]] = {
    "SHUTDOWN NOSAVE": ("F40", shut_down),
    "SIGSTOP": ("F41", freeze),
    "DEBUG SLEEP": ("F41", sleep),
    "FLUSHALL": ("F42", empty),
    "maxmemory": ("F43", fill),
}


@pytest.fixture
def redis_server(tmp_path: Path) -> Iterator[RedisServer]:
    """Run a Redis that the test may harm."""
    folder = tmp_path / "redis"
    folder.mkdir()
    server = RedisServer.start(folder, options=("--enable-debug-command", "local"))
    yield server
    server.stop()


@pytest.mark.parametrize("harm", HARMS)
def test_no_call_fails_whatever_becomes_of_redis(
    site: Site, redis_server: RedisServer, tmp_path: Path, harm: str
) -> None:
    number, inflict = HARMS[harm]
    quick = site.make_model("tokens=5")
    payer = site.make_payer(rpm=100_000, tpm=100_000_000, concurrency=1_000)
    names = ("a",) if site.database.server is None else ("a", "b")
    gateways = site.start_gateways(*names, environment={"REDIS_URL": redis_server.url})
    client = redis.Redis.from_url(redis_server.url)
    again: list[RedisServer] = []

    with steady_calls(site, gateways, payer, quick, 6) as outcomes:
        time.sleep(1.0)
        inflict(redis_server, client)
        harmed_at = time.monotonic()
        time.sleep(HARMED_SECONDS)
        healed_at = time.monotonic()
        if harm == "SHUTDOWN NOSAVE":
            again.append(RedisServer.start(tmp_path, redis_server.port))
        else:
            redis_server.process.send_signal(signal.SIGCONT)
        time.sleep(3.0)
    client.close()
    for server in again:
        server.stop()

    assert {one.status for one in outcomes} == {200}
    slowest = max(one.seconds for one in outcomes)
    began_early = [one for one in outcomes if one.ended_at < harmed_at]
    usual = max(one.seconds for one in began_early)
    assert slowest < usual + ADDED_SECONDS_MAX
    if harm != "FLUSHALL":
        assert all("limits hold per gateway" in gateway.log() for gateway in gateways)
    site.check_books(
        f"{number} Redis: {harm}, slowest call {slowest:.2f} s (before {usual:.2f} s)",
        outcomes,
        healed_at=healed_at,
    )


def test_who_signs_in_does_not_wait_for_a_frozen_redis(
    site: Site, redis_server: RedisServer
) -> None:
    make_admin(username="root", password=PASSWORD)
    (gateway,) = site.start_gateways("a", environment={"REDIS_URL": redis_server.url})
    sign_in(gateway)

    redis_server.process.send_signal(signal.SIGSTOP)
    try:
        # Every attempt counts several times; the bound is that of the client.
        token = sign_in(gateway)
        status, _ = ask(gateway, "GET", "/api/admin/requests/", token)
    finally:
        redis_server.process.send_signal(signal.SIGCONT)

    assert status == 200
    assert "attempts are counted per process" in gateway.log()
    site.check_books("F41 signed in beside a frozen Redis", [], healed_at=time.monotonic())


@pytest.mark.postgres
def test_a_limit_holds_over_two_gateways_and_no_gateway_forgets_what_it_let_through(
    site: Site, redis_server: RedisServer
) -> None:
    quick = site.make_model("tokens=5")
    payer = site.make_payer(rpm=12)
    gateways = site.start_gateways("a", "b", environment={"REDIS_URL": redis_server.url})
    client = redis.Redis.from_url(redis_server.url)

    def take_turns() -> list[Outcome]:
        outcomes = []
        for number in range(30):
            site.crowd.call(gateways[number % 2].url, payer.key, chat(quick))
            outcomes += site.crowd.wait(30)
        return outcomes

    first = take_turns()
    client.flushall()
    second = take_turns()
    client.close()

    assert [one.status for one in first] == [200] * 12 + [429] * 18
    # Six are left to each gateway of its own count.
    assert [one.status for one in second].count(200) == 12
    site.check_books(
        "F104 12 a minute over two gateways, then FLUSHALL",
        [*first, *second],
        healed_at=time.monotonic(),
    )
