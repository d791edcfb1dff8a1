"""A worker to which nothing comes ends; one that works, however long, does not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from auditing.idleness import Idleness
from tests.support.environment import ENCRYPTION_KEY, SECRET_KEY
from tests.support.processes import wait_until

pytestmark = pytest.mark.sqlite  # No database is asked.

WORKER = """
from auditing import idleness
from auditing.celery import app

idleness.IDLE_SECONDS_MAX = 2.0

@app.task(name="work")
def work(name, seconds):
    import time
    time.sleep(seconds)
    print(name, flush=True)
"""


def test_what_comes_ends_idleness() -> None:
    idleness = Idleness(100.0)

    seen = [
        idleness.seconds_at(110.0, taken=0, is_busy=False),
        idleness.seconds_at(120.0, taken=1, is_busy=False),
        idleness.seconds_at(130.0, taken=1, is_busy=False),
        idleness.seconds_at(140.0, taken=2, is_busy=True),
        idleness.seconds_at(900.0, taken=2, is_busy=True),
        idleness.seconds_at(905.0, taken=2, is_busy=False),
    ]

    assert seen == [10.0, 0.0, 10.0, 0.0, 0.0, 5.0]


@pytest.mark.long
def test_a_worker_ends_when_no_task_comes_and_not_while_one_runs(tmp_path: Path) -> None:
    (tmp_path / "working.py").write_text(WORKER)
    environment = {
        "PATH": "/usr/bin:/bin",
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "DATA_DIR": str(tmp_path),
        "SECRET_KEY": SECRET_KEY,
        "ENCRYPTION_KEY": ENCRYPTION_KEY,
    }
    celery = [sys.executable, "-m", "celery", "--quiet", "-A", "working"]
    call = [*celery, "call", "work", "--args", '["longer than idleness may", 5.0]']
    subprocess.run(call, cwd=tmp_path, env=environment, check=True, capture_output=True)
    log = tmp_path / "log"

    with log.open("wb") as out:
        worker = subprocess.Popen(
            [*celery, "worker", "--pool=threads"],
            cwd=tmp_path,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
        )
    try:
        wait_until(lambda: worker.poll() is not None, timeout_seconds=60, what="the end")
    finally:
        worker.kill()
        worker.wait()

    lines = log.read_text()
    assert worker.returncode == 1
    assert "longer than idleness may" in lines
    assert lines.count("the worker ends, so that it is started again") == 1
