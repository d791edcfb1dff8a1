"""Periodic work under a wall clock that is set back."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
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
    # What is read back from the file asks the current application for the time.
    app = Clocked("clocked", broker="memory://")
    app.conf.beat_schedule = {"minutely": {"task": "minutely", "schedule": 60.0}}
    yield app
    app.close()
    ours.set_current()


def start(app: Clocked, folder: Path) -> SteadyScheduler:
    """Return a scheduler as beat makes one when it starts."""
    return SteadyScheduler(app=app, schedule_filename=str(folder / "beat"))


def runs(scheduler: SteadyScheduler) -> int:
    """Return how often the task was sent."""
    return scheduler.schedule["minutely"].total_run_count


def tick(scheduler: SteadyScheduler) -> float:
    """Do what is due and return the seconds until more is."""
    while not (seconds := scheduler.tick()):
        pass
    return seconds


def test_beat_uses_it() -> None:
    assert ours.conf.beat_scheduler == "auditing.steady:SteadyScheduler"


def test_a_last_run_in_the_future_is_due_at_once(app: Clocked, tmp_path: Path) -> None:
    first = start(app, tmp_path)
    first.close()
    app.wall = NOON - timedelta(days=400)

    second = start(app, tmp_path)
    seconds = tick(second)

    assert runs(second) == 1
    assert 59 < seconds <= 60
    second.close()


def test_a_clock_set_back_does_not_lengthen_a_wait(
    app: Clocked, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monotonic = [1000.0]
    monkeypatch.setattr("auditing.steady.time.monotonic", lambda: monotonic[0])
    scheduler = start(app, tmp_path)
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


def test_who_restarts_in_time_waits_for_the_rest_of_the_period(
    app: Clocked, tmp_path: Path
) -> None:
    first = start(app, tmp_path)
    first.close()
    app.wall = NOON + timedelta(seconds=20)

    second = start(app, tmp_path)
    seconds = tick(second)

    assert runs(second) == 0
    assert 39 < seconds <= 40
    second.close()
