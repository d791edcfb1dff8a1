"""Tests of the counts that a process keeps."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import redis
from pytest_django import Settings

from apps.core import counters
from apps.core.breaker import Breaker
from apps.core.counters import ProcessCounts, count_down, count_up, forget, process_counts
from tests.support.clocks import Clock
from tests.support.processes import free_port
from tests.support.redis import RedisServer, is_installed


@pytest.fixture
def clock() -> Clock:
    """Return a clock."""
    return Clock(100.0)


def _up(counts: ProcessCounts, counter: str, times: int = 1, locks_at: int = 11) -> int:
    for _ in range(times):
        count = counts.count_up(counter, seconds=900, locks_at=locks_at)
    return count


def test_a_window_ends_when_its_first_count_is_old(clock: Clock) -> None:
    counts = ProcessCounts(clock=clock)
    assert _up(counts, "a", 3) == 3
    clock.now += 899

    assert _up(counts, "a") == 4
    clock.now += 1
    assert _up(counts, "a") == 1


def test_counts_are_taken_back_and_forgotten(clock: Clock) -> None:
    counts = ProcessCounts(clock=clock)
    _up(counts, "a", 3)

    counts.count_down("a")
    assert _up(counts, "a") == 3
    counts.forget("a")
    assert _up(counts, "a") == 1
    for _ in range(3):
        counts.count_down("a")
    assert _up(counts, "a") == 1


def test_a_flood_drops_small_counts_and_never_what_is_locked(clock: Clock) -> None:
    counts = ProcessCounts(1_000, clock)
    _up(counts, "locked", 11)
    _up(counts, "tenth", 10)
    _up(counts, "throttled", 600, locks_at=601)

    for number in range(5_000):
        _up(counts, f"name{number}")

    assert len(counts) <= 1_000
    assert _up(counts, "locked") == 12
    assert _up(counts, "tenth") == 11
    assert _up(counts, "throttled", locks_at=601) == 601


def test_what_has_ended_makes_room_first(clock: Clock) -> None:
    counts = ProcessCounts(1_000, clock)
    for number in range(999):
        _up(counts, f"old{number}", 11)
    clock.now += 900
    _up(counts, "small")

    for number in range(500):
        _up(counts, f"new{number}")

    assert _up(counts, "small") == 2
    assert len(counts) == 501


def test_where_all_are_locked_nothing_is_forgotten_for_a_new_one(clock: Clock) -> None:
    counts = ProcessCounts(100, clock)
    for number in range(100):
        _up(counts, f"locked{number}", 11)

    assert [_up(counts, "new") for _ in range(3)] == [1, 1, 1]
    assert {_up(counts, f"locked{number}") for number in range(100)} == {12}
    clock.now += 900
    assert [_up(counts, "new") for _ in range(3)] == [1, 2, 3]


def test_the_process_keeps_two_hundred_thousand_counters() -> None:
    counts = ProcessCounts()
    _up(counts, "locked", 11)

    for number in range(200_100):
        counts.count_up(f"{number}", seconds=900, locks_at=11)

    assert 150_000 < len(counts) <= 200_000
    assert _up(counts, "locked") == 12


def test_threads_count_every_attempt() -> None:
    counts = ProcessCounts()
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: _up(counts, "a", 500), range(4)))

    assert _up(counts, "a") == 2_001


def test_redis_counts_for_all_processes_and_every_count_ends(
    settings: Settings, redis_url: str
) -> None:
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": redis_url,
        }
    }
    assert [count_up("a", seconds=900, locks_at=3) for _ in range(3)] == [1, 2, 3]
    count_down("a")
    assert count_up("a", seconds=900, locks_at=3) == 3
    count_up("b", seconds=900, locks_at=3)
    forget("b")

    with redis.Redis.from_url(redis_url) as client:
        left = {key: client.ttl(key) for key in client.scan_iter()}

    assert [0 < seconds <= 900 for seconds in left.values()] == [True]
    assert len(process_counts) == 0


@pytest.mark.redis
@pytest.mark.skipif(not is_installed(), reason="redis-server is not installed")
def test_a_redis_that_does_not_answer_is_asked_once_in_five_seconds(
    settings: Settings,
    tmp_path: Path,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(counters, "redis_breaker", Breaker(clock=clock))
    port = free_port()
    settings.CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": f"redis://127.0.0.1:{port}/0",
        }
    }

    def count() -> int:
        return count_up("a", seconds=900, locks_at=9)

    without = [count() for _ in range(3)]
    server = RedisServer.start(tmp_path, port)
    try:
        not_asked = count()
        count_down("a")
        forget("b")
        clock.now += 5
        shared = [count() for _ in range(2)]
    finally:
        server.stop()

    assert (without, not_asked, shared) == ([1, 2, 3], 4, [1, 2])
    assert [record.getMessage() for record in caplog.records] == [
        "Redis does not answer (ConnectionError): attempts are counted per process",
        "Redis answers again: attempts are counted together",
    ]
