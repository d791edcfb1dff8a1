"""Periodic work under a wall clock that is set back, and beside a full disk."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis
from celery import Celery

from auditing.celery import app as ours
from auditing.steady import SteadyScheduler

pytestmark = pytest.mark.sqlite  # No database is asked.

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)


class Clocked(Celery):
    """An application whose wall clock a test sets."""

    wall = NOON

    def now(self) -> datetime:
        """Return the time as set."""
        return self.wall


@pytest.fixture
def app() -> Iterator[Clocked]:
    """Return an application with one task a minute and a queue in memory."""
    app = Clocked("clocked", broker="memory://")
    app.conf.beat_schedule = {"minutely": {"task": "minutely", "schedule": 60.0}}
    yield app
    app.close()
    ours.set_current()


def start(app: Clocked) -> SteadyScheduler:
    """Return a scheduler as beat makes one when it starts."""
    return SteadyScheduler(app=app)


def runs(scheduler: SteadyScheduler, task: str = "minutely") -> int:
    """Return how often a task was sent."""
    return scheduler.schedule[task].total_run_count


def tick(scheduler: SteadyScheduler) -> float:
    """Do what is due and return the seconds until more is."""
    while not (seconds := scheduler.tick()):
        pass
    return seconds


def test_beat_uses_it() -> None:
    assert ours.conf.beat_scheduler == "auditing.steady:SteadyScheduler"


def test_a_clock_set_back_does_not_lengthen_a_wait(
    app: Clocked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monotonic = [1000.0]
    monkeypatch.setattr("auditing.steady.time.monotonic", lambda: monotonic[0])
    scheduler = start(app)
    before = tick(scheduler)

    app.wall = NOON - timedelta(days=400)
    after = tick(scheduler)
    early = runs(scheduler)
    monotonic[0] += 60
    tick(scheduler)

    assert 59 < before <= 60
    assert after == before
    assert early == 0
    assert runs(scheduler) == 1
    scheduler.close()


def test_the_first_run_comes_within_a_minute_however_long_the_period(
    app: Clocked, monkeypatch: pytest.MonkeyPatch
) -> None:
    monotonic = [1000.0]
    monkeypatch.setattr("auditing.steady.time.monotonic", lambda: monotonic[0])
    app.conf.beat_schedule["daily"] = {"task": "daily", "schedule": 86_400.0}
    scheduler = start(app)

    before = tick(scheduler)
    app.wall += timedelta(seconds=60)
    monotonic[0] += 60
    tick(scheduler)
    app.wall += timedelta(seconds=3600)
    monotonic[0] += 3600
    tick(scheduler)

    assert 59 < before <= 60
    assert (runs(scheduler), runs(scheduler, "daily")) == (2, 1)
    scheduler.close()


@pytest.mark.redis
def test_no_more_is_sent_while_nobody_takes_from_the_queue(
    app: Clocked, redis_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monotonic = [1000.0]
    monkeypatch.setattr("auditing.steady.time.monotonic", lambda: monotonic[0])
    monkeypatch.setattr("auditing.steady.QUEUE_MAX", 3)
    app.conf.update(broker_url=redis_url)
    scheduler = start(app)

    def pass_time() -> int:
        for _ in range(5):
            app.wall += timedelta(seconds=60)
            monotonic[0] += 60
            tick(scheduler)
        return int(client.llen("celery"))

    with redis.Redis.from_url(redis_url) as client:
        waiting = [pass_time(), pass_time()]
        client.ltrim("celery", 0, 0)
        waiting.append(pass_time())
    scheduler.close()

    assert waiting == [3, 3, 3]
    told = [record.getMessage() for record in caplog.records if record.name == "auditing.steady"]
    assert told == [
        "3 tasks wait in the queue: no more are sent until a worker takes them",
        "tasks are sent again",
        "3 tasks wait in the queue: no more are sent until a worker takes them",
    ]


def test_nothing_is_kept_on_a_disk_that_may_be_full(app: Clocked, tmp_path: Path) -> None:
    scheduler = SteadyScheduler(app=app, schedule_filename=str(tmp_path / "beat"))
    app.wall += timedelta(seconds=60)
    tick(scheduler)
    scheduler.close()

    assert runs(scheduler) == 1
    assert list(tmp_path.iterdir()) == []
