"""A worker and its beat as processes: the worker does not go on without it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.support.environment import ENCRYPTION_KEY, SECRET_KEY
from tests.support.processes import wait_until

# Neither process asks the database before the first task is due.
pytestmark = [pytest.mark.long, pytest.mark.sqlite]

HANGING = """
import time
from auditing.celery import app

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

    def start(application: str = "auditing") -> tuple[subprocess.Popen[bytes], int]:
        with (tmp_path / "log").open("wb") as log:
            process = subprocess.Popen(
                [
                    *(sys.executable, "-m", "celery", "--quiet", "-A", application),
                    *("worker", "-B", "-s", "beat", "--pool=threads"),
                ],
                cwd=tmp_path,
                env={
                    "PATH": os.environ["PATH"],
                    "PYTHONPATH": str(root),
                    "DATA_DIR": str(tmp_path),
                    "SECRET_KEY": SECRET_KEY,
                    "ENCRYPTION_KEY": ENCRYPTION_KEY,
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        started.append(process)
        # Beat writes this file when it is about to work.
        wait_until(
            lambda: any(tmp_path.glob("beat*")) and children(process.pid) != [],
            timeout_seconds=60,
            what="beat",
        )
        (beat,) = children(process.pid)
        return process, beat

    yield start
    for process in started:
        process.kill()
        process.wait()


def children(pid: int) -> list[int]:
    """Return the processes that a process has started."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


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


def test_a_signal_to_both_is_an_orderly_end(start_worker: Start, tmp_path: Path) -> None:
    worker, _ = start_worker()

    os.killpg(worker.pid, signal.SIGTERM)

    assert worker.wait(30) == 0
    assert "beat has died" not in (tmp_path / "log").read_text()
