"""Processes that a benchmark starts: each answers before it is used, and is stopped by its id."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from tests.support.processes import accepts_connections

ROOT: Final = Path(__file__).resolve().parent.parent
_START_SECONDS: Final = 120.0
_STOP_SECONDS: Final = 20.0
_LOG_TAIL: Final = 2_000


class ServerDied(Exception):
    """A process ended although it was to serve."""


@dataclass(frozen=True, slots=True)
class Server:
    """A running process that listens on a port of the loopback interface."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    log_path: Path

    def cpu_seconds(self) -> float:
        """Return the processor time that the process and its children have used."""
        return cpu_seconds_of(psutil.Process(self.process.pid))

    def resident_mb(self) -> float:
        """Return the memory of the process that is in RAM, in millions of bytes."""
        return float(psutil.Process(self.process.pid).memory_info().rss) / 1e6

    def log_tail(self) -> str:
        """Return the end of what the process has logged."""
        return self.log_path.read_text("utf-8", "replace")[-_LOG_TAIL:]


def cpu_seconds_of(parent: psutil.Process) -> float:
    """Return the processor time of a process, its living children and those that have ended."""
    total = 0.0
    for process in (parent, *parent.children(recursive=True)):
        try:
            times = process.cpu_times()
        except psutil.NoSuchProcess:
            continue  # Its time is its parent's now.
        total += times.user + times.system + times.children_user + times.children_system
    return total


@contextmanager
def running(
    name: str,
    command: Sequence[str],
    *,
    port: int,
    directory: Path,
    environment: Mapping[str, str],
) -> Iterator[Server]:
    """Run a command until the context ends. Returns when it listens; raises ServerDied."""
    log_path = directory / f"{name}.log"
    with log_path.open("ab") as log:
        # In a group of its own: Ctrl-C ends the benchmark, and the benchmark ends its servers.
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            process_group=0,
        )
    server = Server(name, process, port, log_path)
    try:
        _wait(server)
        yield server
    finally:
        stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a process in order, or by force where it takes too long."""
    if process.poll() is None:
        process.terminate()
        try:
            process.wait(_STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(_STOP_SECONDS)


def _wait(server: Server) -> None:
    until = time.monotonic() + _START_SECONDS
    while not accepts_connections(server.port):
        if server.process.poll() is not None:
            raise ServerDied(f"{server.name} did not start:\n{server.log_tail()}")
        if time.monotonic() > until:
            raise ServerDied(f"{server.name} did not listen within {_START_SECONDS:.0f} s.")
        time.sleep(0.01)
