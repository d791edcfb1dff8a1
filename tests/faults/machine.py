"""What goes wrong with a machine: small disks, failing fsyncs, clocks that jump, a busy processor.

Each needs a program of the system or the right to mount; where that is missing the test says so.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Final

import pytest

from tests.support.processes import wait_until

_FAKETIME: Final = next(
    Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), Path("/usr/lib/faketime/none")
)
_STRACE_SECONDS: Final = 20.0
needs_strace = pytest.mark.skipif(
    shutil.which("strace") is None, reason="strace is not installed (package strace)"
)
needs_faketime = pytest.mark.skipif(
    not _FAKETIME.exists(), reason="libfaketime is not installed (package libfaketime)"
)


@contextmanager
def small_disk(folder: Path, mebibytes: int) -> Iterator[Path]:
    """Mount a file system of that size. Skips where this process may not mount."""
    folder.mkdir(mode=0o755, parents=True)
    options = f"size={mebibytes}m,mode=0755"
    mounting = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if mounting.returncode:
        pytest.skip(f"this process may not mount a tmpfs: {mounting.stderr.strip()}")
    try:
        yield folder
    finally:
        # Lazily: a process that a failed test has left must not keep the mount.
        subprocess.run(["umount", "-l", str(folder)], check=True)


class Ballast:
    """A file that takes what is free on its disk."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "ballast"

    def fill(self) -> None:
        """Leave not one byte."""
        with self._path.open("ab", buffering=0) as file, suppress(OSError):
            for size in (1 << 20, 4096, 1):
                with suppress(OSError):
                    while True:  # bounded by the disk
                        file.write(bytes(size))

    def remove(self) -> None:
        """Make room again."""
        self._path.unlink()


@contextmanager
def failing_fsyncs(pid: int, log: Path) -> Iterator[None]:
    """Have every fsync of a running process fail with EIO, though the data may be written."""
    command = ["strace", "-f", "-q", "-e", "trace=fsync,fdatasync", "-o", str(log)]
    command += ["-e", "inject=fsync,fdatasync:error=EIO", "-p", str(pid)]
    tracer = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        wait_until(
            lambda: _is_traced(pid), timeout_seconds=_STRACE_SECONDS, what="strace on all threads"
        )
        yield
    finally:
        tracer.send_signal(signal.SIGINT)
        tracer.wait(_STRACE_SECONDS)


def _is_traced(pid: int) -> bool:
    threads = list(Path(f"/proc/{pid}/task").iterdir())
    return all("TracerPid:\t0\n" not in (one / "status").read_text() for one in threads)


class FakeClock:
    """The wall clock of processes that have its `environment`; their other clocks are real."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self.set_offset(0)
        self.environment = {
            "LD_PRELOAD": str(_FAKETIME),
            "FAKETIME_TIMESTAMP_FILE": str(path),
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            # Without it each wait of a thread ends at once, and the processor is busy with waiting.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
            "FAKETIME_CACHE_DURATION": "1",
        }

    def set_offset(self, seconds: float) -> None:
        """Jump to that many seconds from the true time."""
        self._write(f"{seconds:+f}")

    def set_time(self, moment: datetime) -> None:
        """Jump to a moment, and go on from there."""
        self.set_offset(moment.timestamp() - time.time())

    def _write(self, text: str) -> None:
        # Renamed, so that nobody reads half of it.
        new = self._path.with_suffix(".new")
        new.write_text(text + "\n")
        new.rename(self._path)


@contextmanager
def busy_core(core: int, count: int) -> Iterator[None]:
    """Keep one core busy with that many processes."""
    loop = f"import os, time\nos.sched_setaffinity(0, [{core}])\nuntil = time.monotonic() + 60\n"
    loop += "while time.monotonic() < until: pass"
    burners = [subprocess.Popen([sys.executable, "-c", loop]) for _ in range(count)]
    try:
        yield
    finally:
        for burner in burners:
            burner.kill()
            burner.wait()


def pin(pid: int, core: int) -> None:
    """Give a process and all its threads one core."""
    for thread in Path(f"/proc/{pid}/task").iterdir():
        os.sched_setaffinity(int(thread.name), [core])
