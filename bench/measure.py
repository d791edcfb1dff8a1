"""Readings: one site under one load for some seconds, with its costs and a look at its records.

Rounds are interleaved: every site takes its turn under a load before any has its second, each
round begins with another site, and ratios are of readings of the same round.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final

import psycopg

from apps.core.ids import uuid7
from bench.load import Load, LoadFailed, Outcome, check_size, probe, run_wrk
from bench.sites import Site, database_cpu_seconds
from tests.support.databases import Database
from tests.support.postgres import PostgresServer

_QUIET_SECONDS: Final = 15.0
_WARM_UP: Final = Load("json", 8)


@dataclass(frozen=True, slots=True)
class Reading:
    """One site under one load, once."""

    outcome: Outcome
    cpu_ms: float  # of the site, for each call
    database_cpu_ms: float | None  # of its database server, for each call
    resident_mb: float

    def as_json(self) -> dict[str, float | None]:
        """Return what reports keep."""
        return {
            "requests": self.outcome.requests,
            "per_second": round(self.outcome.per_second, 1),
            "p50_ms": round(self.outcome.p50_ms, 3),
            "p99_ms": round(self.outcome.p99_ms, 3),
            "max_ms": round(self.outcome.max_ms, 3),
            "cpu_seconds_per_1000": round(self.cpu_ms, 4),
            "database_cpu_seconds_per_1000": _rounded(self.database_cpu_ms),
            "resident_mb": round(self.resident_mb, 1),
        }


@dataclass(slots=True)
class Series:
    """The readings of one site under one load, a None for each round that failed."""

    site: str
    load: Load
    readings: list[Reading | None] = field(default_factory=list)

    @property
    def has_failed(self) -> bool:
        """Whether any round failed: then its figures count for nothing."""
        return not self.readings or None in self.readings

    def median(self, value: Callable[[Reading], float]) -> float | None:
        """Return the median of a value over the rounds, None where one failed."""
        if self.has_failed:
            return None
        return statistics.median(value(reading) for reading in self.readings if reading)

    def per_second(self) -> float | None:
        """Return the median of requests per second."""
        return self.median(lambda reading: reading.outcome.per_second)

    def ratio_to(
        self,
        other: Series | None,
        value: Callable[[Reading], float] = lambda reading: reading.outcome.per_second,
    ) -> float | None:
        """Return the median of the ratios of rounds, None where one failed."""
        if other is None or self.has_failed or other.has_failed:
            return None
        pairs = zip(self.readings, other.readings, strict=True)
        return statistics.median(
            value(mine) / value(theirs) for mine, theirs in pairs if mine and theirs
        )


def measure(
    cells: Sequence[tuple[Load, Sequence[Site]]], *, rounds: int, seconds: int
) -> tuple[list[Series], list[str]]:
    """Return the readings of all sites under all loads, and what failed."""
    failures: list[str] = []
    sites = {id(site): site for _, chosen in cells for site in chosen}
    _warm_up(sites.values(), failures)
    series = [[Series(site.name, load) for site in chosen] for load, chosen in cells]
    for number in range(rounds):
        for (load, chosen), found in zip(cells, series, strict=True):
            for turn in range(len(chosen)):
                at = (turn + number) % len(chosen)
                reading = take_reading(chosen[at], load, seconds=seconds, failures=failures)
                found[at].readings.append(reading)
                _say(number, chosen[at], load, reading)
    return [one for found in series for one in found], failures


def take_reading(site: Site, load: Load, *, seconds: int, failures: list[str]) -> Reading | None:
    """Return one reading; None, and a line in `failures`, where calls went wrong."""
    try:
        return read_site(site, load, seconds=seconds)
    except LoadFailed as error:
        failures.append(f"{site.name} {load.name}: {error}")
        print(f"FAILED  {failures[-1]}\n{site.server.log_tail()}", flush=True)
        return None


def read_site(site: Site, load: Load, *, seconds: int) -> Reading:
    """Return one reading of a site. Raises LoadFailed."""
    try:
        size = probe(site.port, load, site.keys[0])
    except OSError as error:
        raise LoadFailed(f"no answer: {error}") from error
    records = site.database if site.keeps_records else None
    wait_until_quiet(records)
    since_ms = int(time.time() * 1_000) + 1
    time.sleep(0.002)
    before = _spent(site)
    outcome = run_wrk(site.port, load, keys=site.keys[:1], seconds=seconds)
    wait_until_quiet(records)
    after = _spent(site)
    check_size(outcome, size, open_at_end=load.connections)
    check_records(records, since_ms, answered=outcome.requests, open_at_end=load.connections)
    database_cpu = None
    if before[1] is not None and after[1] is not None:
        database_cpu = (after[1] - before[1]) * 1e3 / outcome.requests
    return Reading(
        outcome=outcome,
        cpu_ms=(after[0] - before[0]) * 1e3 / outcome.requests,
        database_cpu_ms=database_cpu,
        resident_mb=site.server.resident_mb(),
    )


def wait_until_quiet(database: Database | None) -> None:
    """Return when no call is held any more. Raises LoadFailed."""
    if database is None:
        return
    until = time.monotonic() + _QUIET_SECONDS
    connection = database.connect()
    try:
        while connection.execute("SELECT count(*) FROM billing_hold").fetchone()[0]:
            if time.monotonic() > until:
                raise LoadFailed("holds were still open after the load had ended")
            time.sleep(0.02)
    finally:
        connection.close()


def check_records(
    database: Database | None, since_ms: int, *, answered: int, open_at_end: int
) -> None:
    """Compare the calls on record with those that were answered. Raises LoadFailed.

    Every answer is on record as completed; beyond them are only the calls that were open when the
    load ended, however these went.
    """
    if database is None:
        return
    first = uuid7(since_ms, bytes(10))
    statement = "SELECT state, count(*) FROM audit_apirequest WHERE id >= {} GROUP BY state"
    connection = database.connect()
    try:
        if database.server is None:
            rows = connection.execute(statement.format("?"), (first.hex,)).fetchall()
        else:
            rows = connection.execute(statement.format("%s"), (first,)).fetchall()
    finally:
        connection.close()
    states = dict(rows)
    total = sum(states.values())
    if states.get("completed", 0) < answered or total > answered + open_at_end:
        raise LoadFailed(f"{answered} answers, but on record are {states}")


def commit_times_ms(server: PostgresServer, count: int) -> list[float]:
    """Return how long that many commits of one row each took, one after the other."""
    with psycopg.connect(**server.parameters("postgres"), autocommit=True) as connection:
        connection.execute(
            "CREATE TABLE IF NOT EXISTS commits (id bigserial PRIMARY KEY, value bigint NOT NULL)"
        )
        times = []
        for number in range(count):
            begun = time.perf_counter()
            connection.execute("INSERT INTO commits (value) VALUES (%s)", (number,), prepare=True)
            times.append((time.perf_counter() - begun) * 1e3)
    return times


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value below which that share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))]


def _warm_up(sites: Iterable[Site], failures: list[str]) -> None:
    for site in sites:
        try:
            run_wrk(site.port, _WARM_UP, keys=site.keys[:1], seconds=1)
        except LoadFailed as error:
            failures.append(f"{site.name} warm-up: {error}")
            print(f"FAILED  {failures[-1]}\n{site.server.log_tail()}", flush=True)


def _spent(site: Site) -> tuple[float, float | None]:
    database = None if site.database is None else database_cpu_seconds(site.database)
    return site.server.cpu_seconds(), database


def _say(number: int, site: Site, load: Load, reading: Reading | None) -> None:
    if reading is not None:
        found = reading.outcome
        print(
            f"round {number + 1}  {load.name:<12} {site.name:<20} {found.per_second:>10.0f} /s  "
            f"p50 {found.p50_ms:.2f} ms  p99 {found.p99_ms:.2f} ms",
            flush=True,
        )


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)
