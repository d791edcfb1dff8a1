"""Keeps several programs alive and ends them together.

All of them stay in the supervisor's process group. Whoever dies is started again; when the
supervisor ends, so do they, and if it is killed, the kernel tells them.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None)

BACKOFF_SECONDS_MAX: Final = 30.0
# A program that lived this long starts again without delay: its next death is a new story.
STEADY_SECONDS: Final = 60.0
# Granted beyond a program's own time to stop, before it is killed.
KILL_GRACE_SECONDS: Final = 5.0
# Django's command line ends so when a setting has to be changed; starting again cannot help.
STATUS_MISCONFIGURED: Final = 2


@dataclass(frozen=True, slots=True)
class Program:
    """What to start, and how it ends."""

    name: str
    command: tuple[str, ...]
    environment: Mapping[str, str]
    directory: Path
    file_descriptors: tuple[int, ...] = ()
    # Sent by the kernel when the supervisor is killed.
    death_signal: signal.Signals = signal.SIGKILL
    # How long it may take to stop; programs of a lower rank are stopped first.
    stop_seconds: float = 5.0
    stop_rank: int = 0
    # Whether what it prints is of no use to the operator; errors are always shown.
    is_silent: bool = False
    # Whether its ending as misconfigured ends everything.
    is_essential: bool = False


class Supervisor:
    """Runs programs until it is told to stop. `say` takes one line for the operator."""

    def __init__(self, programs: Sequence[Program], *, say: Callable[[str], None]) -> None:
        self._programs = programs
        self._tell = say
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._killing = asyncio.Event()
        self._status = 0

    @property
    def is_stopping(self) -> bool:
        """Whether a signal came or an essential program cannot run."""
        return self._stopping.is_set()

    async def run(self, on_start: Callable[[], Awaitable[None]]) -> int:
        """Run everything until SIGINT or SIGTERM and return the exit status.

        A second signal kills what is still there. `on_start` runs beside the programs.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._take_signal)
        keepers = [asyncio.create_task(self._keep(program)) for program in self._programs]
        beside = asyncio.ensure_future(on_start())
        try:
            await self._stopping.wait()
            await self._stop_all()
        finally:
            self._kill_all()
            beside.cancel()
            await asyncio.gather(*keepers, beside, return_exceptions=True)
        return self._status

    def _take_signal(self) -> None:
        if self._stopping.is_set():
            self._killing.set()
        else:
            self._stopping.set()
            self._say("Stopping; once more to stop at once.")

    def _say(self, line: str) -> None:
        """Tell the operator, if there is still somebody who listens."""
        with contextlib.suppress(OSError, ValueError):
            self._tell(line)

    async def _keep(self, program: Program) -> None:
        """Start the program again whenever it ends, until everything stops."""
        delay = 1.0
        while not self._stopping.is_set():
            started = time.monotonic()
            status = await self._run_once(program)
            if self._stopping.is_set():
                return
            if status == STATUS_MISCONFIGURED and program.is_essential:
                self._status = STATUS_MISCONFIGURED
                self._stopping.set()
                return
            if time.monotonic() - started >= STEADY_SECONDS:
                delay = 1.0
            self._say(
                f"{program.name} ended with status {status}; starting it again in {delay:.0f} s."
            )
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay)
            delay = min(delay * 2, BACKOFF_SECONDS_MAX)

    async def _run_once(self, program: Program) -> int:
        try:
            process = await _start(program)
        except OSError as error:
            self._say(f"{program.name} cannot be started: {error.strerror}.")
            return 1
        self._processes[program.name] = process
        if self._stopping.is_set():
            # The signal came while it was starting, so nobody has told it.
            _send(process, signal.SIGTERM)
        return await process.wait()

    async def _stop_all(self) -> None:
        """Ask the programs to stop, rank by rank, and kill what does not in time."""
        for rank in sorted({program.stop_rank for program in self._programs}):
            chosen = [program for program in self._programs if program.stop_rank == rank]
            processes = [
                self._processes[item.name] for item in chosen if item.name in self._processes
            ]
            for process in processes:
                _send(process, signal.SIGTERM)
            ended = asyncio.create_task(_wait_for_all(processes))
            killing = asyncio.create_task(self._killing.wait())
            seconds = max(program.stop_seconds for program in chosen) + KILL_GRACE_SECONDS
            await asyncio.wait((ended, killing), timeout=seconds, return_when="FIRST_COMPLETED")
            killing.cancel()
            for process in processes:
                _send(process, signal.SIGKILL)
            await ended

    def _kill_all(self) -> None:
        for process in self._processes.values():
            _send(process, signal.SIGKILL)


async def _start(program: Program) -> asyncio.subprocess.Process:
    parent = os.getpid()

    def prepare_child() -> None:
        # A terminal sends Ctrl-C and its end to the whole group, but who is told first is decided
        # here.
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGHUP})
        _LIBC.prctl(_PR_SET_PDEATHSIG, program.death_signal)
        if os.getppid() != parent:
            # The supervisor died before the kernel was told to watch it.
            os._exit(1)

    return await asyncio.create_subprocess_exec(
        *program.command,
        env=program.environment,
        pass_fds=program.file_descriptors,
        cwd=program.directory,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.DEVNULL if program.is_silent else None,
        preexec_fn=prepare_child,
    )


async def _wait_for_all(processes: Sequence[asyncio.subprocess.Process]) -> None:
    for process in processes:
        await process.wait()


def _send(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    # It may have ended a moment ago.
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(number)
