"""A real gateway process, and a demo provider whose log of calls can be read.

The gateway is `manage.py serve` on a database of the test session; the demo provider runs on an
event loop in a thread of this process.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

from apps.providers.demo import DemoProvider
from apps.providers.demo.calls import Call
from tests.support.databases import Database
from tests.support.environment import ENCRYPTION_KEY, PRIVATE_UPSTREAMS, SECRET_KEY
from tests.support.processes import free_port, wait_until

# The configuration is polled this often instead of once a second, so that tests need not wait.
FAST: Final = {"apps.proxy.gateway:POLL_SECONDS": 0.05, "apps.proxy.gateway:TICK_SECONDS": 0.1}

_ROOT: Final = Path(__file__).resolve().parent.parent.parent
_START_SECONDS: Final = 120  # Two processors may have other work; one that has died is noticed.
_STOP_SECONDS: Final = 20
_ENDED_SECONDS: Final = 5


class DemoThread:
    """A demo provider on an event loop of its own."""

    def __init__(self, *, api_key: str | None = None) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._provider = DemoProvider(api_key=api_key)
        asyncio.run_coroutine_threadsafe(self._provider.start(), self._loop).result(5)

    @property
    def base_url(self) -> str:
        """What a provider's row holds."""
        return self._provider.base_url

    def calls(self, upstream_name: str) -> list[Call]:
        """Return the calls of one model, oldest first."""
        return [call for call in list(self._provider.calls) if call["model"] == upstream_name]

    def ended(self, upstream_name: str) -> list[Call]:
        """Return the calls of one model when all of them have ended."""
        wait_until(
            lambda: all(call["ended"] for call in self.calls(upstream_name)),
            timeout_seconds=_ENDED_SECONDS,
            what=f"the end of the calls of {upstream_name}",
        )
        return self.calls(upstream_name)

    def stop(self) -> None:
        """Stop listening and end the thread."""
        asyncio.run_coroutine_threadsafe(self._provider.stop(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()


@dataclass(frozen=True, slots=True)
class GatewayProcess:
    """A running `manage.py serve`. Whoever started it stops it."""

    process: subprocess.Popen[bytes]
    port: int
    data_dir: Path
    log_path: Path

    @classmethod
    def start(
        cls,
        directory: Path,
        database: Database,
        *,
        environment: Mapping[str, str] | None = None,
        constants: Mapping[str, float] = FAST,
        plant: Sequence[str] = (),
        port: int = 0,
        prefix: Sequence[str] = (),
        root: Path = _ROOT,
    ) -> Self:
        """Start a gateway and return when it takes calls; `constants` by `module:NAME`.

        `port` 0 is a free one; `prefix` are words before the command, which end in executing it.
        `root` is the tree whose code it is.
        """
        gateway = cls.spawn(
            directory,
            database,
            environment=environment,
            constants=constants,
            plant=plant,
            port=port,
            prefix=prefix,
            root=root,
        )
        try:
            wait_until(gateway.is_ready, timeout_seconds=_START_SECONDS, what="the gateway")
        except BaseException:
            gateway.kill()
            sys.stderr.write(gateway.log())
            raise
        return gateway

    @classmethod
    def spawn(
        cls,
        directory: Path,
        database: Database,
        *,
        environment: Mapping[str, str] | None = None,
        constants: Mapping[str, float] = FAST,
        plant: Sequence[str] = (),
        port: int = 0,
        prefix: Sequence[str] = (),
        root: Path = _ROOT,
    ) -> Self:
        """Start a gateway and return at once, as for `start`."""
        data_dir = directory / "data"
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        log_path = directory / "stderr.log"
        port = port or free_port()
        command = [sys.executable, "manage.py", "serve"]
        if constants or plant:
            wishes = json.dumps({"constants": dict(constants), "plant": list(plant)})
            command = [sys.executable, "-m", "tests.support.serve", wishes]
        variables = {
            **os.environ,
            "DATA_DIR": str(data_dir),
            "DATABASE_URL": database.url,
            "SECRET_KEY": SECRET_KEY,
            "ENCRYPTION_KEY": ENCRYPTION_KEY,
            "PRIVATE_UPSTREAMS": PRIVATE_UPSTREAMS,
            "DRAIN_SECONDS": "2",
            "PAYLOADS": "full",
            **(environment or {}),
        }
        with log_path.open("ab") as log:
            process = subprocess.Popen(
                [*prefix, *command, "--port", str(port)],
                cwd=root,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        return cls(process, port, data_dir, log_path)

    @property
    def url(self) -> str:
        """Where the gateway is reached."""
        return f"http://127.0.0.1:{self.port}"

    def is_ready(self) -> bool:
        """Return whether the gateway says that it takes calls. Raises when it has died."""
        if self.process.poll() is not None:
            raise ChildProcessError(self.log())
        try:
            return self.get("/readyz") == 200
        except OSError:
            return False

    def get(self, path: str, key: str = "") -> int:
        """Return the status of a GET."""
        with self.asking() as get:
            return get(path, key)

    @contextmanager
    def asking(self) -> Iterator[Callable[[str, str], int]]:
        """Return what returns the status of a GET: for many, on one connection where it stays."""
        caller = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)

        def get(path: str, key: str) -> int:
            headers = {"Authorization": f"Bearer {key}"} if key else {}
            caller.request("GET", path, headers=headers)
            with caller.getresponse() as response:
                response.read()
                return response.status

        with closing(caller):
            yield get

    def log(self) -> str:
        """Return all that the gateway has logged so far."""
        return self.log_path.read_text("utf-8", "replace")

    def stop(self) -> None:
        """End the gateway as an operator would, and see that it went in order."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                self.kill()
                raise

    def kill(self) -> None:
        """End the gateway at once."""
        self.process.kill()
        self.process.wait(_STOP_SECONDS)
