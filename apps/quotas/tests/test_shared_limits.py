"""The shared limits on a real Redis that is well: what several gateways may let through."""

import asyncio

import pytest

from apps.quotas import shared_limits
from apps.quotas.limits import Headroom, LimitMet, Scope
from apps.quotas.shared_limits import SharedLimiter
from apps.quotas.tests.redis_kit import (
    Server,
    admit,
    finish,
    gateway,
    needs_redis,
    scope,
)
from tests.support.clocks import Clock
from tests.support.processes import free_port

pytestmark = needs_redis


async def test_two_gateways_share_one_limit_in_a_burst(server: Server) -> None:
    limited = scope(rpm=20)
    barrier = asyncio.Barrier(64)

    async def call(limiter: SharedLimiter, request_id: str) -> Headroom | LimitMet:
        await barrier.wait()
        return await admit(limiter, request_id, limited)

    async with gateway(server.url) as first, gateway(server.url) as second:
        answers = await asyncio.gather(
            *(call(limiter, f"{id(limiter)}-{n}") for limiter in (first, second) for n in range(32))
        )

    assert sum(isinstance(answer, Headroom) for answer in answers) == 20
    assert server.client.hget("limits:key:1:window", "requests") == "20"


async def test_without_redis_the_same_burst_passes_once_per_gateway() -> None:
    limited = scope(rpm=20)
    url = f"redis://127.0.0.1:{free_port()}/0"

    async with gateway(url) as first, gateway(url) as second:
        answers = await asyncio.gather(
            *(
                admit(limiter, f"{id(limiter)}-{n}", limited)
                for limiter in (first, second)
                for n in range(32)
            )
        )

    assert sum(isinstance(answer, Headroom) for answer in answers) == 40


@pytest.mark.parametrize(
    ("full", "kind"),
    [
        (scope("user:1", rpm=1), "requests"),
        (scope("user:1", tpm=50), "tokens"),
        (scope("user:1", concurrency=1), "concurrency"),
    ],
)
async def test_a_refusal_by_one_scope_takes_nothing_from_the_others(
    server: Server, full: Scope, kind: str
) -> None:
    open_scope = scope("key:1", rpm=1, tpm=50, concurrency=1)

    async with gateway(server.url) as first, gateway(server.url) as second:
        await admit(first, "a", full, tokens=50)
        refused = [await admit(second, str(n), open_scope, full, tokens=50) for n in range(3)]
        admitted = await admit(second, "b", open_scope, tokens=50)

    assert [(r.kind, r.scope) for r in refused if isinstance(r, LimitMet)] == [(kind, "user:1")] * 3
    assert isinstance(admitted, Headroom)
    assert (admitted.remaining_requests, admitted.remaining_tokens) == (0, 0)


async def test_the_headroom_counts_what_other_gateways_let_through(server: Server) -> None:
    limited = scope(rpm=10, tpm=1000)

    async with gateway(server.url) as first, gateway(server.url) as second:
        await admit(first, "a", limited, tokens=300)
        headroom = await admit(second, "b", limited, tokens=200)

    assert isinstance(headroom, Headroom)
    assert (headroom.limit_requests, headroom.remaining_requests) == (10, 8)
    assert (headroom.limit_tokens, headroom.remaining_tokens) == (1000, 500)
    assert headroom.reset_requests_seconds is not None
    assert 59 < headroom.reset_requests_seconds <= 61


async def test_the_end_of_a_request_corrects_tokens_for_every_gateway(server: Server) -> None:
    limited = scope(tpm=100)

    async with gateway(server.url) as first, gateway(server.url) as second:
        await admit(first, "less", limited, tokens=80)
        await finish(first, "less", reserved=80, used=10)
        after_less = await admit(second, "more", limited, tokens=20)
        await finish(second, "more", reserved=20, used=95)
        after_more = await admit(first, "next", limited, tokens=1)

    assert isinstance(after_less, Headroom)
    assert after_less.remaining_tokens == 70
    assert isinstance(after_more, LimitMet)
    assert (after_more.kind, after_more.remaining) == ("tokens", 0)


async def test_a_request_larger_than_the_token_limit_runs_alone(server: Server) -> None:
    limited = scope(tpm=100)

    async with gateway(server.url) as first, gateway(server.url) as second:
        alone = await admit(first, "large", limited, tokens=500)
        other = await admit(second, "large too", limited, tokens=500)

    assert isinstance(alone, Headroom)
    assert isinstance(other, LimitMet)


async def test_buckets_leave_the_window_after_sixty_seconds(server: Server) -> None:
    key, now = "limits:key:1:window", server.seconds()
    old, recent = now - 61, now - 30
    window: list[str | int] = ["requests", 7, "tokens", 70, "oldest", old, "newest", recent]
    buckets: list[str | int] = [f"r{old}", 5, f"t{old}", 50, f"r{recent}", 2, f"t{recent}", 20]
    server.client.hset(key, items=[*window, *buckets])

    async with gateway(server.url) as limiter:
        admitted = await admit(limiter, "a", scope(rpm=3, tpm=100), tokens=10)
        refused = await admit(limiter, "b", scope(rpm=3, tpm=100), tokens=10)

    assert isinstance(admitted, Headroom)
    assert (admitted.remaining_requests, admitted.remaining_tokens) == (0, 70)
    assert isinstance(refused, LimitMet)
    assert refused.retry_after_seconds in {29, 30, 31}
    assert server.client.hmget(key, f"r{old}", f"t{old}", "requests") == [None, None, "3"]
    assert server.client.ttl(key) in {60, 61, 62}


async def test_a_running_request_holds_its_slot_on_every_gateway_until_its_end(
    server: Server,
) -> None:
    limited = scope(concurrency=1)

    async with gateway(server.url) as first, gateway(server.url) as second:
        await admit(first, "a", limited)
        while_running = await admit(second, "b", limited)
        await finish(first, "a")
        after = await admit(second, "b", limited)

    assert while_running == LimitMet("concurrency", "key:1", 1, 1, 0, 1.0)
    assert isinstance(after, Headroom)


async def test_the_slots_of_a_dead_gateway_free_themselves(server: Server) -> None:
    limited = scope(concurrency=1)
    async with gateway(server.url, lease_seconds=0.5) as dead:
        await admit(dead, "a", limited)

    async with gateway(server.url) as alive:
        answers = [await admit(alive, "b", limited)]
        for _ in range(50):
            if isinstance(answers[-1], Headroom):
                break
            await asyncio.sleep(0.1)
            answers.append(await admit(alive, "b", limited))

    assert isinstance(answers[0], LimitMet)
    assert isinstance(answers[-1], Headroom)


async def test_renewal_extends_the_slots_of_running_requests_only(server: Server) -> None:
    slots = "limits:key:1:slots"

    async with gateway(server.url) as limiter:
        await admit(limiter, "running", scope(concurrency=5))
        await admit(limiter, "finished", scope(concurrency=5))
        await finish(limiter, "finished")
        server.client.zadd(slots, {"running": 1})
        await limiter.renew()

    expires_at_ms = server.client.zscore(slots, "running")
    assert isinstance(expires_at_ms, float)
    assert expires_at_ms > (server.seconds() + 20) * 1000
    assert server.client.zscore(slots, "finished") is None


async def test_renewal_of_many_requests_goes_in_bounded_calls(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_limits, "RENEWAL_KEYS_MAX", 4)
    monkeypatch.setattr(shared_limits, "BATCH_KEYS_MAX", 8)
    limited = (scope(concurrency=100), scope("user:1", concurrency=100))

    async with gateway(server.url) as limiter:
        await asyncio.gather(*(admit(limiter, str(n), *limited) for n in range(25)))
        server.client.flushall()
        await limiter.renew()

    assert server.client.zcard("limits:key:1:slots") == 25
    assert server.client.zcard("limits:user:1:slots") == 25


async def test_a_client_that_leaves_during_admission_holds_no_slot(server: Server) -> None:
    limited = scope(concurrency=1)

    async with gateway(server.url) as limiter:
        task = asyncio.create_task(admit(limiter, "left", limited))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        answer = await admit(limiter, "next", limited)

    assert task.cancelled()
    assert isinstance(answer, Headroom)
    assert server.client.zrange("limits:key:1:slots", 0, -1) == ["next"]


async def test_what_others_used_up_is_remembered_until_a_request_leaves_the_window(
    server: Server,
) -> None:
    clock, limited = Clock(), scope(rpm=1)

    async with gateway(server.url) as first, gateway(server.url, clock=clock) as second:
        await admit(first, "a", limited)
        before = second.find_limit_met(scopes=(limited,), tokens=0)
        told = await admit(second, "b", limited)
        clock.now += 20.0
        found = second.find_limit_met(scopes=(limited,), tokens=0)
        of_another = second.find_limit_met(scopes=(scope("key:2", rpm=1),), tokens=0)
        clock.now += 40.0
        after = second.find_limit_met(scopes=(limited,), tokens=0)

    assert isinstance(told, LimitMet)
    assert (told.kind, told.retry_after_seconds) == ("requests", 60)
    assert isinstance(found, LimitMet)
    assert (found.kind, found.scope, found.limit) == ("requests", "key:1", 1)
    assert found.retry_after_seconds == 40
    assert found.reset_seconds == pytest.approx(told.reset_seconds - 20.0)
    assert (before, of_another, after) == (None, None, None)


async def test_a_limit_that_is_raised_is_asked_for_again(server: Server) -> None:
    async with gateway(server.url) as first, gateway(server.url) as second:
        await admit(first, "a", scope(rpm=1))
        await admit(second, "b", scope(rpm=1))

        found = second.find_limit_met(scopes=(scope(rpm=2),), tokens=0)
        admitted = await admit(second, "c", scope(rpm=2))

    assert found is None
    assert isinstance(admitted, Headroom)


@pytest.mark.parametrize("limited", [scope(tpm=10), scope(concurrency=1)])
async def test_tokens_and_slots_of_others_are_not_remembered(
    server: Server, limited: Scope
) -> None:
    async with gateway(server.url) as first, gateway(server.url) as second:
        await admit(first, "a", limited, tokens=10)
        refused = await admit(second, "b", limited, tokens=10)

        found = second.find_limit_met(scopes=(limited,), tokens=0)

    assert isinstance(refused, LimitMet)
    assert found is None
