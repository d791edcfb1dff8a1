"""Tests of scripts/at_once.py: nothing that fails or is printed beside others gets lost."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "scripts" / "at_once.py"


def at_once(*commands: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(SCRIPT), *commands],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_all_run_at_the_same_time_and_are_printed_one_after_the_other(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    # Each ends only when the other one has begun.
    wait = "sh -c 'echo {0}; touch {1}; while [ ! -e {2} ]; do sleep 0.01; done; echo {0}'"

    done = at_once(wait.format("one", first, second), command := wait.format("two", second, first))

    assert (done.returncode, done.stdout) == (0, f"one\none\n\n{command}\ntwo\ntwo\n")


@pytest.mark.parametrize(
    ("commands", "status"),
    [
        (("true", "true"), 0),
        (("true", "sh -c 'exit 3'"), 3),
        (("sh -c 'exit 5'", "true"), 5),
        (("true", "true", "sh -c 'kill -9 $$'"), int(signal.SIGKILL)),
        (("sh -c 'exit 4'", "sh -c 'exit 5'"), 4),
    ],
)
def test_one_that_fails_makes_the_whole_fail(commands: tuple[str, ...], status: int) -> None:
    assert at_once(*commands).returncode == status


def test_what_a_failed_one_said_is_seen(tmp_path: Path) -> None:
    done = at_once("true", "sh -c 'echo broken >&2; exit 1'")

    assert "broken\n" in done.stdout
    assert done.returncode == 1
