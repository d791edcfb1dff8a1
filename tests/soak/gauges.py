"""What a gateway takes from its machine, read from outside, and whether that grew."""

from __future__ import annotations

import http.client
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

import psutil

from tests.support.databases import Database
from tests.support.gateway import GatewayProcess
from tests.support.prometheus import Samples, parse

GROWTH_MAX: Final = 1.10
# What may be more than before although nothing leaks: a thread of a pool that was not needed until
# then with its connection, a poll that is under way at the moment of the reading.
SLACK: Final = {"descriptors": 6, "threads": 4, "tasks": 2, "connections": 2}
_BACK_SECONDS_MAX: Final = 90.0
_MEBIBYTE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Reading:
    """One gateway at one moment."""

    resident_bytes: int
    descriptors: int
    threads: int
    tasks: int
    connections: int  # to the database
    in_flight: int  # calls
    holds: int
    bytes_in_flight: int

    def values(self) -> dict[str, int]:
        """Return what has to come back to what it was."""
        return {name: getattr(self, name) for name in SLACK}


def read(gateway: GatewayProcess, database: Database) -> Reading:
    """Return how a gateway is now."""
    process = psutil.Process(gateway.process.pid)
    told = _metrics(gateway)
    return Reading(
        resident_bytes=process.memory_info().rss,
        descriptors=process.num_fds(),
        threads=process.num_threads(),
        tasks=int(told["gateway_asyncio_tasks"]),
        connections=_count_connections(process.pid, database),
        in_flight=int(told["gateway_calls_in_flight"]),
        holds=int(told["gateway_holds_open"]),
        bytes_in_flight=int(told["gateway_bytes_in_flight"]),
    )


def is_idle(reading: Reading) -> bool:
    """Return whether a gateway works on nothing."""
    return (reading.in_flight, reading.holds, reading.bytes_in_flight) == (0, 0, 0)


def is_back(before: Reading, after: Reading) -> bool:
    """Return whether a gateway is as it was, but for the slack."""
    values = after.values()
    return is_idle(after) and all(
        values[name] <= value + SLACK[name] for name, value in before.values().items()
    )


def wait_until_back(
    gateways: Sequence[GatewayProcess], database: Database, before: Sequence[Reading]
) -> list[Reading]:
    """Return how gateways are when they are as they were, or when the time is up."""
    until = time.monotonic() + _BACK_SECONDS_MAX
    while True:
        after = [read(gateway, database) for gateway in gateways]
        if all(map(is_back, before, after)) or time.monotonic() > until:
            return after
        time.sleep(1.0)


def by_fifths(resident_bytes: Sequence[int]) -> list[float]:
    """Return the mebibytes of each fifth of the time."""
    size = len(resident_bytes) // 5
    parts = [resident_bytes[start : start + size] for start in range(0, 4 * size, size)]
    return [median(part) / _MEBIBYTE for part in (*parts, resident_bytes[-size:])]


def growth(resident_bytes: Sequence[int]) -> float:
    """Return what the last fifth takes for each byte of the second one; the first is warm-up."""
    fifths = by_fifths(resident_bytes)
    return fifths[4] / fifths[1]


def row(name: str, reading: Callable[[str], object]) -> str:
    """Return a line of the table, with one value for each thing that is counted."""
    return f"  {name:22}" + "".join(f"{reading(key)!s:>13}" for key in SLACK)


def _metrics(gateway: GatewayProcess) -> Samples:
    caller = http.client.HTTPConnection("127.0.0.1", gateway.port, timeout=30)
    try:
        caller.request("GET", "/metrics")
        with caller.getresponse() as answer:
            assert answer.status == 200
            return parse(answer.read().decode())[1]
    finally:
        caller.close()


def _count_connections(pid: int, database: Database) -> int:
    """Count the sockets to PostgreSQL's port, or the open files of the SQLite database."""
    if database.server is not None:
        port = database.server.port
        found = psutil.Process(pid).net_connections(kind="tcp")
        return sum(bool(one.raddr) and one.raddr.port == port for one in found)
    folder = Path(f"/proc/{pid}/fd")
    return sum(_target(link) == database.name for link in folder.iterdir())


def _target(link: Path) -> str:
    try:
        return os.readlink(link)
    except FileNotFoundError:
        return ""  # It was closed meanwhile.
