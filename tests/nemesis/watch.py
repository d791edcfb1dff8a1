"""Looks at the site while it is harmed: how old holds get, and what the processes use."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import psutil
import psycopg

from tests.nemesis.keeper import Keeper
from tests.support.databases import Database

_LOOK_SECONDS: Final = 0.5
# What a gateway may grow by between a moment early in the run and a quiet one after it. Its
# allocator keeps what answers of 32 MiB have needed, and connections to the provider stay open for
# half a minute.
RSS_GROWTH_BYTES_MAX: Final = 192 << 20
FDS_GROWTH_MAX: Final = 40
THREADS_GROWTH_MAX: Final = 16
# One of the ledger, one of the configuration, READ_THREADS, and those of the control plane.
CONNECTIONS_MAX: Final = 24


class HoldWatch:
    """Notes when each hold was first and last seen, on this machine's monotonic clock."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._first: dict[Any, float] = {}
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="hold-watch", daemon=True)
        self.worst_seconds = 0.0

    def start(self) -> None:
        """Begin to look."""
        self._thread.start()

    def stop(self) -> None:
        """Look no longer."""
        self._is_over.set()
        self._thread.join(30)

    def _watch(self) -> None:
        while not self._is_over.wait(_LOOK_SECONDS):
            # While the database is away there is nothing to see; the holds go on growing old.
            with contextlib.suppress(Exception):  # both drivers raise what they like
                self._look()

    def _look(self) -> None:
        with contextlib.closing(_connect(self._database)) as connection:
            rows = connection.execute("SELECT request_id FROM billing_hold").fetchall()
        now = time.monotonic()
        self._first = {row[0]: self._first.get(row[0], now) for row in rows}
        oldest = min(self._first.values(), default=now)
        self.worst_seconds = max(self.worst_seconds, now - oldest)


def _connect(database: Database) -> Any:
    if database.server is None:
        return database.connect()
    parameters = database.server.parameters(database.name)
    return psycopg.connect(**parameters, autocommit=True, connect_timeout=2)


@dataclass(frozen=True, slots=True)
class Usage:
    """What a gateway's process uses."""

    rss_bytes: int
    fds: int
    threads: int

    def __str__(self) -> str:
        return f"{self.rss_bytes >> 20} MiB, {self.fds} fds, {self.threads} threads"


def measure(keeper: Keeper) -> Usage:
    """Return what a gateway uses now."""
    process = psutil.Process(keeper.process_id)
    return Usage(process.memory_info().rss, process.num_fds(), process.num_threads())


def compare(name: str, early: Usage, late: Usage) -> list[str]:
    """Return what has grown beyond its bound."""
    problems = []
    if late.rss_bytes > early.rss_bytes + RSS_GROWTH_BYTES_MAX:
        problems.append(f"{name}: memory grew from {early} to {late}")
    if late.fds > early.fds + FDS_GROWTH_MAX:
        problems.append(f"{name}: descriptors grew from {early} to {late}")
    if late.threads > early.threads + THREADS_GROWTH_MAX:
        problems.append(f"{name}: threads grew from {early} to {late}")
    return problems


def count_connections(database: Database, keepers: Sequence[Keeper]) -> list[str]:
    """Return a problem where the gateways have more connections than their pools allow."""
    if database.server is None:
        return []
    with contextlib.closing(_connect(database)) as connection:
        (count,) = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = %s", (database.name,)
        ).fetchone()
    most = CONNECTIONS_MAX * len(keepers)
    return [f"{count} connections to the database, at most {most}"] if count > most else []
