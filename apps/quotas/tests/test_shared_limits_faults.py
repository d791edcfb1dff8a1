"""The shared limits on a Redis that is frozen, gone, emptied or full (F40-F43), and its secrets."""

import asyncio
import logging
import signal
from pathlib import Path

import pytest

from apps.core.breaker import Breaker
from apps.quotas import shared_limits
from apps.quotas.limits import Headroom, LimitMet, LocalLimiter
from apps.quotas.shared_limits import SharedLimiter
from apps.quotas.tests.redis_kit import (
    PASSWORD,
    Server,
    admit,
    finish,
    gateway,
    needs_redis,
    running_redis,
    scope,
)
from tests.support.clocks import Clock

pytestmark = needs_redis


async def test_a_frozen_redis_opens_the_breaker_and_local_limits_hold(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    clock = Clock()
    breaker = Breaker(clock=clock)
    limited = scope(rpm=5)

    async with gateway(server.url, deadline_seconds=0.05, breaker=breaker) as limiter:
        server.process.send_signal(signal.SIGSTOP)
        async with asyncio.timeout(5):
            answers = [await admit(limiter, str(n), limited) for n in range(7)]
        was_open = breaker.is_open
        server.process.send_signal(signal.SIGCONT)
        for n in range(50):
            clock.now += 5
            await admit(limiter, f"probe {n}", scope("key:2", rpm=1000))
            if not breaker.is_open:
                break
            await asyncio.sleep(0.05)

    assert [isinstance(answer, Headroom) for answer in answers] == [True] * 5 + [False] * 2
    assert was_open
    assert not breaker.is_open
    messages = [record.getMessage() for record in caplog.records]
    assert messages[0] == "Redis does not answer (TimeoutError): limits hold per gateway"
    assert messages[-1] == "Redis answers again: limits are shared"


async def test_while_the_breaker_is_open_nothing_waits_for_redis(server: Server) -> None:
    breaker = Breaker(clock=Clock())
    async with gateway(server.url, breaker=breaker) as limiter:
        for _ in range(3):
            breaker.record_failure()
        server.process.send_signal(signal.SIGSTOP)

        # With a deadline of ten seconds, one call to Redis would not return in time.
        async with asyncio.timeout(2):
            answers = [await admit(limiter, str(n), scope(rpm=50)) for n in range(100)]
            limiter.finish(request_id="0", scopes=(), tokens_reserved=0, tokens_used=0)
            await limiter.renew()
        server.process.send_signal(signal.SIGCONT)

    assert sum(isinstance(answer, Headroom) for answer in answers) == 50


async def test_a_redis_that_shuts_down_never_raises_and_its_return_shares_again(
    server: Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    clock = Clock()
    breaker = Breaker(clock=clock)
    limited = scope(rpm=4, concurrency=10)

    async with gateway(server.url, breaker=breaker) as limiter:
        before = await admit(limiter, "before", limited)
        server.client.shutdown(nosave=True)
        server.process.wait()
        during = [await admit(limiter, str(n), limited) for n in range(5)]
        was_open = breaker.is_open
        limiter.finish(request_id="before", scopes=(), tokens_reserved=0, tokens_used=0)
        await limiter.renew()
        with running_redis(server.port, tmp_path) as restarted:
            clock.now += 5
            await admit(limiter, "probe", scope("key:2", rpm=5))
            await limiter.renew()
            slots = restarted.client.zrange("limits:key:1:slots", 0, -1)

    assert isinstance(before, Headroom)
    assert [isinstance(answer, Headroom) for answer in during] == [True] * 3 + [False] * 2
    assert was_open
    assert not breaker.is_open
    assert sorted(map(str, slots)) == ["0", "1", "2"]
    assert PASSWORD not in caplog.text


async def test_an_emptied_redis_restarts_the_shared_count_but_not_the_local_one(
    server: Server,
) -> None:
    limited = scope(rpm=2, concurrency=5)

    async with gateway(server.url) as first, gateway(server.url) as second:
        before = [await admit(first, f"first {n}", limited) for n in range(2)]
        elsewhere = await admit(second, "a", limited)
        server.client.flushall()
        server.client.script_flush()
        first_after = await admit(first, "b", limited)
        second_after = [await admit(second, str(n), limited) for n in range(3)]
        await first.renew()

    assert [isinstance(answer, Headroom) for answer in before] == [True, True]
    assert isinstance(elsewhere, LimitMet)
    assert isinstance(first_after, LimitMet)
    assert [isinstance(answer, Headroom) for answer in second_after] == [True, True, False]
    assert server.client.zcard("limits:key:1:slots") == 4


async def test_a_full_redis_leaves_local_limits_and_takes_nothing(server: Server) -> None:
    clock = Clock()
    breaker = Breaker(clock=clock)
    limited = scope(rpm=4, tpm=100, concurrency=10)
    server.client.config_set("maxmemory-policy", "noeviction")
    server.client.config_set("maxmemory", "1mb")

    async with gateway(server.url, breaker=breaker) as limiter:
        full = [await admit(limiter, str(n), limited) for n in range(5)]
        clock.now += 5
        await limiter.renew()
        was_open = breaker.is_open
        keys_while_full = server.client.keys("limits:*")
        server.client.config_set("maxmemory", "0")
        clock.now += 5
        await admit(limiter, "probe", scope("key:2", rpm=5))
        keys_after = server.client.keys("limits:*")

    assert [isinstance(answer, Headroom) for answer in full] == [True] * 4 + [False]
    assert was_open
    assert not breaker.is_open
    assert keys_while_full == []
    assert keys_after == ["limits:key:2:window"]


async def test_requests_let_through_without_redis_take_their_slots_when_it_is_back(
    server: Server,
) -> None:
    clock = Clock()
    breaker = Breaker(clock=clock)
    limited = scope(concurrency=1)

    async with gateway(server.url, breaker=breaker) as first, gateway(server.url) as second:
        for _ in range(3):
            breaker.record_failure()
        await admit(first, "running", limited)
        clock.now += 5
        await admit(first, "probe", scope("key:2", rpm=5))
        await first.renew()
        refused = await admit(second, "other", limited)
        await finish(first, "running")
        admitted = await admit(second, "other", limited)

    assert isinstance(refused, LimitMet)
    assert isinstance(admitted, Headroom)


async def test_a_renewal_asks_again_where_no_request_comes(server: Server) -> None:
    clock = Clock()
    breaker = Breaker(clock=clock)
    limited = scope(concurrency=1)

    async with gateway(server.url, breaker=breaker) as first, gateway(server.url) as second:
        for _ in range(3):
            breaker.record_failure()
        await admit(first, "running", limited)
        clock.now += 5
        await first.renew()
        is_degraded = first.is_degraded
        refused = await admit(second, "other", limited)

    assert not is_degraded
    assert isinstance(refused, LimitMet)


async def test_a_request_that_ends_while_a_renewal_asks_takes_no_slot(server: Server) -> None:
    clock = Clock()
    breaker = Breaker(clock=clock)

    async with gateway(server.url, breaker=breaker) as limiter:
        for _ in range(3):
            breaker.record_failure()
        await admit(limiter, "running", scope(concurrency=1))
        clock.now += 5
        renewal = asyncio.create_task(limiter.renew())
        await asyncio.sleep(0)
        limiter.finish(request_id="running", scopes=(), tokens_reserved=0, tokens_used=0)
        await renewal

    assert not breaker.is_open
    assert server.client.exists("limits:key:1:slots") == 0


async def test_a_gateway_without_requests_notices_that_redis_went_and_came_back(
    server: Server, tmp_path: Path
) -> None:
    clock = Clock()
    breaker = Breaker(clock=clock)

    async with gateway(server.url, breaker=breaker) as limiter:
        await limiter.renew()
        server.client.shutdown(nosave=True)
        server.process.wait()
        for _ in range(3):
            await limiter.renew()
        was_degraded = limiter.is_degraded
        with running_redis(server.port, tmp_path):
            clock.now += 5
            await limiter.renew()
            is_degraded = limiter.is_degraded

    assert (was_degraded, is_degraded) == (True, False)


async def test_a_full_queue_decides_locally_and_drops_ends(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    limited = scope(concurrency=1)

    async with gateway(server.url) as limiter:
        await admit(limiter, "a", limited)
        monkeypatch.setattr(shared_limits, "QUEUE_MAX", 0)
        limiter.finish(request_id="a", scopes=(), tokens_reserved=0, tokens_used=0)
        answer = await admit(limiter, "b", limited)
        await limiter.renew()

    assert isinstance(answer, Headroom)
    assert server.client.zrange("limits:key:1:slots", 0, -1) == ["a"]


async def test_an_end_just_before_the_stop_still_reaches_redis(server: Server) -> None:
    async with gateway(server.url) as limiter:
        await admit(limiter, "a", scope(concurrency=1))
        limiter.finish(request_id="a", scopes=(), tokens_reserved=0, tokens_used=0)

    assert server.client.exists("limits:key:1:slots") == 0


async def test_after_close_the_local_limits_still_hold(server: Server) -> None:
    async with gateway(server.url) as limiter:
        await limiter.close()
        answers = [await admit(limiter, str(n), scope(rpm=1)) for n in range(2)]
        await limiter.renew()

    assert [isinstance(answer, Headroom) for answer in answers] == [True, False]


async def test_a_wrong_password_appears_nowhere(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    url = f"redis://:wrong-canary@127.0.0.1:{server.port}/0"

    async with gateway(url) as limiter:
        answers = [await admit(limiter, str(n), scope(rpm=5)) for n in range(5)]
        shown = repr(limiter) + repr(vars(limiter))

    assert [isinstance(answer, Headroom) for answer in answers] == [True] * 5
    assert "limits hold per gateway" in caplog.text
    assert "wrong-canary" not in caplog.text
    assert "wrong-canary" not in shown


@pytest.mark.parametrize(
    "url", ["redis://:canary/half@127.0.0.1:6379", "http://:canary@127.0.0.1", "canary"]
)
def test_a_malformed_url_is_refused_without_showing_it(url: str) -> None:
    with pytest.raises(ValueError, match=r"^REDIS_URL is not a valid Redis URL$") as caught:
        SharedLimiter(url, LocalLimiter())

    assert caught.value.__suppress_context__
