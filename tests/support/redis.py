"""A real Redis on a free port of the loopback interface, without persistence."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tests.support.processes import accepts_connections, free_port, wait_until

_START_SECONDS = 10


def is_installed() -> bool:
    """Return whether there is a Redis server to start."""
    return shutil.which("redis-server") is not None


@dataclass(frozen=True, slots=True)
class RedisServer:
    """A running Redis. Whoever started it stops it."""

    process: subprocess.Popen[bytes]
    port: int
    directory: Path

    @classmethod
    def start(
        cls, directory: Path, port: int | None = None, *, options: Sequence[str] = ()
    ) -> Self:
        """Start a server that keeps nothing on disk."""
        port = port or free_port()
        command = ["redis-server", "--bind", "127.0.0.1", "--port", str(port), "--save", ""]
        command += ["--appendonly", "no", "--dir", str(directory), *options]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        wait_until(
            lambda: accepts_connections(port), timeout_seconds=_START_SECONDS, what="redis-server"
        )
        return cls(process, port, directory)

    @property
    def url(self) -> str:
        """The server's REDIS_URL."""
        return f"redis://127.0.0.1:{self.port}/0"

    def empty(self) -> None:
        """Forget everything that is stored."""
        command = ["redis-cli", "-p", str(self.port), "FLUSHALL"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=_START_SECONDS)

    def stop(self) -> None:
        """End the server at once; it has nothing to save."""
        self.process.kill()
        self.process.wait(_START_SECONDS)
