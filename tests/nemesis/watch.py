"""Looks at the site while it is harmed: how old holds get, and what the processes use."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import psycopg

from tests.nemesis.keeper import Keeper
from tests.soak.gauges import SLACK, Reading, is_idle, read
from tests.support.databases import Database

_LOOK_SECONDS: Final = 0.5
# From the first answer of a life on: what it takes most then is what it may take.
_EARLY_SECONDS: Final = 20.0
# A life that was not read for as long after that is too short to be compared.
_LATER_SECONDS: Final = 10.0
_REST_SECONDS_MAX: Final = 60.0
# What a life may grow by between its beginning, under load, and a quiet moment after the run. Its
# allocator keeps what answers of 32 MiB have needed, of which several may come at once, and pools
# have threads that nobody needed yet. Whether memory grows without end is the soak's question.
RSS_GROWTH_BYTES_MAX: Final = 192 << 20
FDS_GROWTH_MAX: Final = 6
THREADS_GROWTH_MAX: Final = 8
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
class Life:
    """The beginning of a life of a gateway. Monotonic seconds."""

    began_at: float  # answered for the first time
    seen_at: float  # answered last
    early: Reading  # the most of each in its first seconds

    @property
    def is_comparable(self) -> bool:
        """Whether it was seen for long enough."""
        return self.seen_at - self.began_at >= _EARLY_SECONDS + _LATER_SECONDS


class GatewayWatch:
    """Reads what each life of each gateway takes."""

    def __init__(self, keepers: Sequence[Keeper], database: Database) -> None:
        self._keepers = keepers
        self._database = database
        self._lives: dict[int, Life] = {}  # by process
        self._is_over = threading.Event()
        self._threads = [
            threading.Thread(target=self._watch, args=(keeper,), daemon=True) for keeper in keepers
        ]
        # Before anybody calls: what has to come back, whatever life it is.
        self._tasks = {keeper.name: self._read(keeper).tasks for keeper in keepers}

    def start(self) -> None:
        """Begin to look."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Look no longer."""
        self._is_over.set()
        for thread in self._threads:
            thread.join(60)

    def check(self, keeper: Keeper, report: list[str]) -> list[str]:
        """Return what a gateway that nobody calls any more has kept, or has too much of."""
        tasks_max = self._tasks[keeper.name] + SLACK["tasks"]
        late = self._wait_for_rest(keeper, tasks_max)
        life = self._lives.get(_process_id(keeper))
        early = life.early if life is not None and life.is_comparable else None
        told = "too short to compare" if early is None else f"early {_tell(early)}"
        report.append(
            f"gateway {keeper.name}: {keeper.starts} lives; the last {told}; late {_tell(late)}; "
            f"tasks at first {self._tasks[keeper.name]}"
        )
        problems = [] if early is None else compare(keeper.name, early, late)
        if late.tasks > tasks_max or not is_idle(late):
            problems.append(f"{keeper.name}: still at work when nobody calls: {late}")
        return problems

    def _watch(self, keeper: Keeper) -> None:
        while not self._is_over.wait(_LOOK_SECONDS):
            with contextlib.suppress(Exception):  # one that is away, frozen or ending says nothing
                self._look(keeper)

    def _look(self, keeper: Keeper) -> None:
        process_id, reading, now = _process_id(keeper), self._read(keeper), time.monotonic()
        life = self._lives.get(process_id, Life(now, now, reading))
        if now - life.began_at < _EARLY_SECONDS:
            life = replace(life, early=_most(life.early, reading))
        self._lives[process_id] = replace(life, seen_at=now)

    def _read(self, keeper: Keeper) -> Reading:
        assert keeper.gateway is not None
        return read(keeper.gateway, self._database)

    def _wait_for_rest(self, keeper: Keeper, tasks_max: int) -> Reading:
        until = time.monotonic() + _REST_SECONDS_MAX
        while True:
            reading = self._read(keeper)
            if (is_idle(reading) and reading.tasks <= tasks_max) or time.monotonic() > until:
                return reading
            time.sleep(_LOOK_SECONDS)


def _process_id(keeper: Keeper) -> int:
    assert keeper.gateway is not None
    return keeper.gateway.process.pid


def _most(one: Reading, other: Reading) -> Reading:
    return replace(
        one,
        resident_bytes=max(one.resident_bytes, other.resident_bytes),
        descriptors=max(one.descriptors, other.descriptors),
        threads=max(one.threads, other.threads),
        tasks=max(one.tasks, other.tasks),
    )


def _tell(reading: Reading) -> str:
    return (
        f"{reading.resident_bytes >> 20} MiB, {reading.descriptors} fds, "
        f"{reading.threads} threads, {reading.tasks} tasks"
    )


def compare(name: str, early: Reading, late: Reading) -> list[str]:
    """Return what has grown beyond its bound within one life."""
    problems = []
    if late.resident_bytes > early.resident_bytes + RSS_GROWTH_BYTES_MAX:
        problems.append(f"{name}: memory grew from {early} to {late}")
    if late.descriptors > early.descriptors + FDS_GROWTH_MAX:
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
