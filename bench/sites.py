"""What is measured, and all that it needs: upstreams, databases, yardsticks, gateways.

Everything listens on the loopback interface, keeps its files in one temporary directory, and is
gone when the bed is closed.
"""

from __future__ import annotations

import http.client
import json
import os
import secrets
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import psutil

from bench.answers import SCRIPTS
from bench.load import MODEL, model_of
from bench.nginx import make_command
from bench.servers import ROOT, Server, ServerDied, cpu_seconds_of, running
from bench.upstream import EVENTS
from tests.support.databases import Database
from tests.support.postgres import PostgresServer
from tests.support.processes import free_port

SQLITE: Final = "sqlite"
POSTGRES: Final = "postgres"
CUSTOMERS: Final = 16
_READY_SECONDS: Final = 120.0
# What a developer's shell or .env may hold and what would change what is measured.
_EMPTY: Final = (
    "ADJUSTMENT_USD_ALONE",
    "ADMIN_PASSWORD",
    "ADMIN_USERNAME",
    "ADMIN_EMAIL",
    "ALLOWED_HOSTS",
    "CORS_ALLOWED_ORIGINS",
    "DEMO_API_KEY",
    "DRAIN_SECONDS",
    "PAYLOAD_DAYS",
    "PORT",
    "REDIS_URL",
    "TRUSTED_PROXIES",
    "WORKERS",
)


@dataclass(frozen=True, slots=True)
class Site:
    """Something that answers calls."""

    name: str
    server: Server
    keys: tuple[str, ...]
    database: Database | None = None
    keeps_records: bool = True  # its database has the product's tables
    ready_seconds: float = 0.0  # from its start until it took calls

    @property
    def port(self) -> int:
        """Where it is reached."""
        return self.server.port


class Bed:
    """Starts things when they are asked for, and stops all of them at the end."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._secrets = {
            "SECRET_KEY": secrets.token_urlsafe(48),
            "ENCRYPTION_KEY": secrets.token_hex(32),
        }
        self._models: dict[str, tuple[str, str]] = {}  # their dialects and base URLs
        self._templates: dict[str, tuple[Database, tuple[str, ...]]] = {}
        self._postgres: PostgresServer | None = None
        self.directory: Path

    def __enter__(self) -> Self:
        name = self._stack.enter_context(
            tempfile.TemporaryDirectory(prefix="bench-", ignore_cleanup_errors=True)
        )
        self.directory = Path(name)
        # PostgreSQL runs as somebody else where we are root.
        self.directory.chmod(0o755)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # A second Ctrl-C must not leave servers behind.
        before = signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self._stack.close()
        finally:
            signal.signal(signal.SIGINT, before)

    # ---- upstreams and yardsticks

    def start_upstream(
        self, *, model: str = MODEL, events: int = EVENTS, per_second: float = 0.0
    ) -> Site:
        """Start an upstream; gateways that are started later offer it as `model`.

        In every dialect: see `model_of`.
        """
        command = [sys.executable, "-m", "bench.upstream", "--port", str(port := free_port())]
        command += ["--events", str(events), "--per-second", str(per_second)]
        server = self._run(f"upstream-{model}", command, port)
        for dialect in SCRIPTS:
            version = "v1beta" if dialect == "gemini" else "v1"
            base_url = f"http://127.0.0.1:{port}/{version}"
            self._models[model_of(dialect, model)] = dialect, base_url
        return Site("direct", server, ("sk-none",))

    def start_nginx(self, upstream: Site) -> Site:
        """Start nginx in front of an upstream."""
        directory = self.directory / "nginx"
        directory.mkdir()
        port = free_port()
        command = make_command(directory, port=port, upstream_port=upstream.port)
        return Site("nginx", self._run("nginx", command, port), ("sk-none",))

    def start_passthrough(self, upstream: Site) -> Site:
        """Start the pass-through in front of an upstream."""
        server = self._run_asgi("pass-through", "bench.passthrough", upstream, {})
        return Site("pass-through", server, ("sk-none",))

    def start_bare_ledger(self, upstream: Site, *, beside: Site | None = None) -> Site:
        """Start the pass-through that holds and settles, on a database of its own or on that of
        another one.
        """
        name = "bare-ledger"
        if beside is not None and beside.database is not None:
            name, database = "bare-ledger-2", beside.database
        else:
            self.start_postgres().execute(f'CREATE DATABASE "{name}"')
            database = Database(POSTGRES, name, self.start_postgres())
        server = self._run_asgi(name, "bench.bare_ledger", upstream, {"LEDGER_DSN": database.url})
        return Site(name, server, ("sk-none",), database, keeps_records=False)

    def _run_asgi(
        self, name: str, module: str, upstream: Site, environment: dict[str, str]
    ) -> Server:
        port = free_port()
        command = [sys.executable, "-m", "uvicorn", f"{module}:app", "--port", str(port)]
        command += ["--loop", "uvloop", "--http", "httptools", "--no-access-log"]
        command += ["--log-level", "warning", "--backlog", "4096"]
        environment = {"UPSTREAM": f"http://127.0.0.1:{upstream.port}", **environment}
        return self._run(name, command, port, environment)

    # ---- gateways

    def start_gateway(self, name: str, database: Database, *, payloads: str = "off") -> Site:
        """Start a gateway on a database of this bed."""
        port = free_port()
        environment = self._environment(database, name) | {"PAYLOADS": payloads}
        command = [sys.executable, "manage.py", "serve", "--port", str(port)]
        begun = time.perf_counter()
        server = self._run(name, command, port, environment)
        _wait_until_ready(server)
        keys = self._templates[database.engine][1]
        ready_seconds = time.perf_counter() - begun
        return Site(name, server, keys, database, ready_seconds=ready_seconds)

    def make_database(self, engine: str, name: str) -> Database:
        """Return a new database with all that calls need in it."""
        template, _ = self._template(engine)
        if template.server is None:
            path = self.directory / f"{name}.sqlite3"
            shutil.copyfile(template.name, path)
            return Database(engine, str(path))
        template.server.execute(f'CREATE DATABASE "{name}" TEMPLATE "{template.name}"')
        return Database(engine, name, template.server)

    def start_postgres(self) -> PostgresServer:
        """Return the server of this bed, started once; fsync is on."""
        if self._postgres is None:
            directory = self.directory / "postgres"
            # Before it is started: it runs on by itself where we are interrupted in between.
            self._stack.callback(_stop_postgres, directory)
            self._postgres = PostgresServer.start(directory)
        return self._postgres

    def run_with(self, database: Database, command: Sequence[str]) -> str:
        """Run a Python command on a database to its end and return what it printed."""
        ended = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=self._environment(database, "commands"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            raise ServerDied(f"{' '.join(command[:3])} failed:\n{ended.stderr[-2_000:]}")
        return ended.stdout

    def _template(self, engine: str) -> tuple[Database, tuple[str, ...]]:
        if engine not in self._templates:
            if engine == SQLITE:
                database = Database(engine, str(self.directory / "template.sqlite3"))
            else:
                database = Database(engine, "template", self.start_postgres())
                self.start_postgres().execute('CREATE DATABASE "template"')
            self.run_with(database, ["manage.py", "migrate", "--verbosity", "0"])
            wishes = json.dumps({"customers": CUSTOMERS, "models": self._models})
            printed = self.run_with(database, ["-m", "bench.world", wishes])
            if engine == SQLITE:
                _fold_journal(database.name)
            keys = tuple(json.loads(printed.splitlines()[-1]))
            self._templates[engine] = database, keys
        return self._templates[engine]

    def _environment(self, database: Database, name: str) -> dict[str, str]:
        data_dir = self.directory / f"data-{name}"
        data_dir.mkdir(mode=0o700, exist_ok=True)
        return {
            **os.environ,
            **dict.fromkeys(_EMPTY, ""),
            **self._secrets,
            "DATA_DIR": str(data_dir),
            "DATABASE_URL": database.url,
            "PRIVATE_UPSTREAMS": "127.0.0.0/8",
            "DJANGO_SETTINGS_MODULE": "auditing.settings",
        }

    def _run(
        self, name: str, command: Sequence[str], port: int, more: dict[str, str] | None = None
    ) -> Server:
        return self._stack.enter_context(
            running(
                name,
                command,
                port=port,
                directory=self.directory,
                environment={**os.environ, **(more or {})},
            )
        )


def _stop_postgres(directory: Path) -> None:
    if (directory / "data" / "postmaster.pid").exists():
        # Its data goes next: nothing is worth a clean shutdown.
        PostgresServer(directory, 0).stop("immediate")


def database_cpu_seconds(database: Database) -> float | None:
    """Return the processor time of a database's server, None for one inside the gateway."""
    if database.server is None:
        return None
    return cpu_seconds_of(psutil.Process(database.server.pid()))


def _wait_until_ready(server: Server) -> None:
    until = time.monotonic() + _READY_SECONDS
    while not _is_ready(server.port):
        if time.monotonic() > until or server.process.poll() is not None:
            raise ServerDied(f"{server.name} takes no calls:\n{server.log_tail()}")
        time.sleep(0.01)


def _is_ready(port: int) -> bool:
    caller = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        caller.request("GET", "/readyz")
        return caller.getresponse().status == 200
    except OSError:
        return False
    finally:
        caller.close()


def _fold_journal(path: str) -> None:
    """Bring all pages into the one file that is copied."""
    connection = sqlite3.connect(path)
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
