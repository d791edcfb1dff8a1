"""Keeps one gateway running, as a process manager would, and harms it when told.

Its wall clock is its own: libfaketime reads it from a file, and leaves the monotonic clock alone.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import psutil

from tests.support.databases import Database
from tests.support.gateway import GatewayProcess
from tests.support.processes import NotReady, free_port, wait_until

_FAKETIME: Final = Path("/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1")
_LOOK_SECONDS: Final = 0.1
_AGAIN_SECONDS: Final = 1.0
_START_SECONDS: Final = 120.0  # the machine may have other work; one that died is noticed
# DRAIN_SECONDS is 2; then five seconds for what is being settled, and five for the ledger.
STOP_SECONDS_MAX: Final = 20.0


def can_fake_time() -> bool:
    """Return whether the library is there that shifts a process's wall clock."""
    return _FAKETIME.exists()


class Keeper:
    """One gateway on one port."""

    def __init__(
        self,
        name: str,
        directory: Path,
        database: Database,
        *,
        environment: Mapping[str, str],
        plant: Sequence[str],
    ) -> None:
        self.name = name
        self.port = free_port()
        self.problems: list[str] = []
        self.starts = 0
        self._directory = directory
        self._database = database
        self._plant = list(plant)
        self._clock = directory / "clock"
        self._gateway: GatewayProcess | None = None
        self._was_ready = False
        self._is_wanted = threading.Event()
        self._is_over = threading.Event()
        self._guard = threading.Lock()
        directory.mkdir(parents=True, exist_ok=True)
        self.shift_clock(0)
        self._environment = dict(environment)
        if can_fake_time():
            self._plant.append("tests.faults.planted:sleep_by_waiting")
            self._environment |= {
                "LD_PRELOAD": str(_FAKETIME),
                "FAKETIME_TIMESTAMP_FILE": str(self._clock),
                "FAKETIME_DONT_FAKE_MONOTONIC": "1",
                "FAKETIME_CACHE_DURATION": "1",
                # Else each wait for the interpreter lock is a detour through the library.
                "FAKETIME_FORCE_MONOTONIC_FIX": "0",
                "NO_FAKE_STAT": "1",
            }
        self._thread = threading.Thread(target=self._keep, name=f"keeper-{name}", daemon=True)

    @property
    def url(self) -> str:
        """Where the gateway is reached."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def gateway(self) -> GatewayProcess | None:
        """The gateway's process as it is now, None where it was ended."""
        return self._gateway

    @property
    def log(self) -> str:
        """All that the gateway has logged, in all its lives."""
        return (self._directory / "stderr.log").read_text("utf-8", "replace")

    def start(self) -> None:
        """Start the gateway and keep it; return when it takes calls."""
        self._is_wanted.set()
        self._thread.start()
        self.wait()

    def wait(self) -> None:
        """Return when the gateway takes calls. Raises NotReady."""
        wait_until(self.is_ready, timeout_seconds=_START_SECONDS, what=f"gateway {self.name}")

    def is_ready(self) -> bool:
        """Return whether it takes calls."""
        gateway = self._gateway
        if gateway is None or gateway.process.poll() is not None:
            return False
        try:
            return gateway.get("/readyz") == 200
        except OSError:
            return False

    # ---- harm

    def kill(self) -> None:
        """End it at once, and leave it so."""
        with self._guard:
            self._is_wanted.clear()
            self._end_at_once()

    def stop_in_order(self) -> None:
        """End it as an operator would, and leave it so."""
        with self._guard:
            self._is_wanted.clear()
            gateway = self._gateway
            if gateway is None or gateway.process.poll() is not None:
                return
            gateway.process.send_signal(signal.SIGTERM)
            begun = time.monotonic()
            try:
                wait_until(
                    lambda: gateway.process.poll() is not None,
                    timeout_seconds=STOP_SECONDS_MAX,
                    what="the end",
                )
            except NotReady:
                took = time.monotonic() - begun
                self.problems.append(f"{self.name} had not ended {took:.0f} s after SIGTERM")
            else:
                if gateway.process.returncode not in (0, -signal.SIGTERM):
                    self.problems.append(f"{self.name} ended with {gateway.process.returncode}")
            self._end_at_once()

    def want(self) -> None:
        """Have it run again."""
        self._is_wanted.set()

    def freeze(self) -> None:
        """Stop it where it stands."""
        self._signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        self._signal(signal.SIGCONT)

    def shift_clock(self, seconds: int) -> None:
        """Set its wall clock that far from the right time; it notices within a second."""
        draft = self._clock.with_suffix(".new")
        draft.write_text(f"{seconds:+d}\n")
        draft.replace(self._clock)

    def close(self) -> None:
        """End it for good, at once."""
        self._is_over.set()
        self._is_wanted.set()
        if self._thread.is_alive():
            self._thread.join(10)
        self._end_at_once()
        _tidy_shared_memory()

    # ---- keeping

    def _keep(self) -> None:
        while not self._is_over.wait(_LOOK_SECONDS):
            self._is_wanted.wait()
            with self._guard:
                self._look()

    def _look(self) -> None:
        """Start what is wanted and not there. A life that ends by itself is a finding."""
        if self._is_over.is_set() or not self._is_wanted.is_set():
            return
        gateway = self._gateway
        if gateway is not None and gateway.process.poll() is None:
            self._was_ready = self._was_ready or self.is_ready()
            return
        if gateway is not None and self._was_ready:
            self.problems.append(f"{self.name} ended by itself: {gateway.process.returncode}")
        elif gateway is not None:
            time.sleep(_AGAIN_SECONDS)  # It could not start, where its disk is full for example.
        self._was_ready = False
        self.starts += 1
        self._gateway = GatewayProcess.spawn(
            self._directory,
            self._database,
            environment=self._environment,
            constants={},
            plant=self._plant,
            port=self.port,
        )

    def _signal(self, number: signal.Signals) -> None:
        gateway = self._gateway
        if gateway is not None and gateway.process.poll() is None:
            gateway.process.send_signal(number)

    def _end_at_once(self) -> None:
        gateway, self._gateway = self._gateway, None
        if gateway is not None:
            gateway.kill()


def _tidy_shared_memory() -> None:
    """Remove what libfaketime leaves of processes that are gone."""
    for path in Path("/dev/shm").glob("*faketime_s?m_*"):  # noqa: S108 (where it is)
        if not psutil.pid_exists(int(path.name.rpartition("_")[2])):
            path.unlink(missing_ok=True)
