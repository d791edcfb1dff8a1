"""A worker and its beat as processes: the worker does not go on without it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.faults.machine import Ballast, small_disk
from tests.support.environment import ENCRYPTION_KEY, SECRET_KEY
from tests.support.processes import children_of, wait_until

# Neither process asks the database before the first task is due.
pytestmark = [pytest.mark.long, pytest.mark.sqlite]

BEATING = """
from pathlib import Path
from celery.signals import beat_embedded_init
from auditing.celery import app

@beat_embedded_init.connect
def tell(**_):
    Path("beating").touch()
"""
TICKING = """
from beating import app

@app.task(name="tick")
def tick():
    print("tick", flush=True)

app.conf.beat_schedule = {"tick": {"task": "tick", "schedule": 0.2}}
"""
HANGING = """
import time
from beating import app

@app.task(name="hang")
def hang():
    print("hanging", flush=True)
    time.sleep(600)

app.conf.beat_schedule = {"hang": {"task": "hang", "schedule": 0.1}}
"""

Start = Callable[..., tuple[subprocess.Popen[bytes], int]]


@pytest.fixture
def start_worker(tmp_path: Path) -> Iterator[Start]:
    """Return what starts a worker in a group of its own and returns it with its beat's id."""
    started: list[subprocess.Popen[bytes]] = []
    root = Path(__file__).parent.parent.parent
    (tmp_path / "beating.py").write_text(BEATING)

    def start(
        application: str = "beating", data_dir: Path = tmp_path
    ) -> tuple[subprocess.Popen[bytes], int]:
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "celery", "--quiet", "-A", application),
                    *("worker", "-B", "--pool=threads"),
                ],
                cwd=tmp_path,
                env={
                    "PATH": os.environ["PATH"],
                    "PYTHONPATH": str(root),
                    "DATA_DIR": str(data_dir),
                    "SECRET_KEY": SECRET_KEY,
                    "ENCRYPTION_KEY": ENCRYPTION_KEY,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        started.append(process)
        # Beat makes this file when it is about to work.
        wait_until((tmp_path / "beating").exists, timeout_seconds=60, what="beat")
        (beat,) = children_of(process.pid)
        return process, beat

    yield start
    for process in started:
        process.kill()
        process.wait()


def test_a_worker_whose_beat_was_killed_says_so_and_ends(
    start_worker: Start, tmp_path: Path
) -> None:
    worker, beat = start_worker()

    os.kill(beat, signal.SIGKILL)

    assert worker.wait(30) == 1
    lines = (tmp_path / "log").read_text()
    assert lines.count("beat has died; the worker ends, so that both are started again") == 1


def test_a_task_that_does_not_end_does_not_keep_a_worker_without_its_beat(
    start_worker: Start, tmp_path: Path
) -> None:
    (tmp_path / "hanging.py").write_text(HANGING)
    worker, beat = start_worker("hanging")
    log = tmp_path / "log"
    wait_until(lambda: "hanging" in log.read_text(), timeout_seconds=30, what="the task")

    os.kill(beat, signal.SIGKILL)

    assert worker.wait(30) == 1


def test_a_full_disk_ends_neither_and_work_goes_on_when_there_is_room(
    start_worker: Start, tmp_path: Path
) -> None:
    (tmp_path / "ticking.py").write_text(TICKING)
    log = tmp_path / "log"

    def wait_for(text: str) -> None:
        seen = log.read_text().count(text)
        wait_until(lambda: log.read_text().count(text) > seen + 2, timeout_seconds=30, what=text)

    with small_disk(tmp_path / "disk", 2) as disk:
        worker, _ = start_worker("ticking", disk)
        wait_for("tick\n")
        ballast = Ballast(disk)
        ballast.fill()
        wait_for("Couldn't apply scheduled task tick")
        ballast.remove()
        wait_for("tick\n")
        is_running = worker.poll() is None

    assert is_running
    assert "Unrecoverable" not in log.read_text()


def test_a_signal_to_both_is_an_orderly_end(start_worker: Start, tmp_path: Path) -> None:
    worker, _ = start_worker()

    os.killpg(worker.pid, signal.SIGTERM)

    assert worker.wait(30) == 0
    assert "beat has died" not in (tmp_path / "log").read_text()
