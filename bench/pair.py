"""Two gateway processes on one PostgreSQL against one of them, with sixteen customers.

Cold: calls are spread evenly over the customers. Hot: three of four calls are one customer's, so
that both processes want the same account all the time. The load is the same in all cases: two
times wrk, each to a process of its own or both to the same one. Bare: two of the bare ledger, which
also want one account; what they cost the database beyond one of them is what two writers cost.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import Final

from bench import targets
from bench.load import Load, LoadFailed, Wrk
from bench.measure import check_records, wait_until_quiet
from bench.options import Options
from bench.report import Result, Table, number
from bench.sites import POSTGRES, Bed, Site, database_cpu_seconds
from bench.targets import at_least, at_most
from tests.support.databases import Database

CONNECTIONS: Final = 16  # of each wrk
MIXES: Final = ("cold", "hot")
BARE: Final = "bare"
_HOT_OF: Final = 4  # all but one of so many calls are the hot customer's
_LOAD: Final = Load("json", CONNECTIONS)
_EXTRA_ROUNDS_MAX: Final = 100


@dataclass(frozen=True, slots=True)
class Turn:
    """One reading of one or two processes."""

    per_second: float
    requests: int
    cpu_ms: float  # of the gateways, for each call
    database_cpu_ms: float  # for each call
    p99_ms: float  # of the slower wrk


def run(bed: Bed, options: Options) -> Result:
    """Measure one and two processes in turns, until there were enough calls through two."""
    upstream = bed.start_upstream()
    bare = bed.start_bare_ledger(upstream)
    bares = [bare, bed.start_bare_ledger(upstream, beside=bare)]
    database = bed.make_database(POSTGRES, "pair")
    gateways = [bed.start_gateway(f"gateway-{number_}", database) for number_ in (1, 2)]
    result = Result("processes")
    turns: dict[tuple[str, int], list[Turn]] = {
        (mix, count): [] for mix in (*MIXES, BARE) for count in (1, 2)
    }
    deadlocks = _count_deadlocks(database)
    for sites in (gateways, bares):
        _take(sites, MIXES[0], 1, result.failures)  # warms up
    for round_ in range(options.rounds + _EXTRA_ROUNDS_MAX):
        calls = sum(turn.requests for mix in MIXES for turn in turns[mix, 2])
        is_enough = calls >= options.calls or bool(result.failures)
        if round_ >= options.rounds and is_enough:
            break
        for mix in (*MIXES, BARE):
            for count in (1, 2) if round_ % 2 == 0 else (2, 1):
                sites = (bares if mix == BARE else gateways)[:count]
                turn = _take(sites, mix, options.seconds, result.failures)
                if turn is not None:
                    turns[mix, count].append(turn)
                    print(f"{mix}, {count}: {turn.per_second:.0f} /s", flush=True)
    # The statistics of a session are written when it is idle.
    time.sleep(1.5)
    _report(result, turns, deadlocks=_count_deadlocks(database) - deadlocks)
    return result


def _take(sites: list[Site], mix: str, seconds: int, failures: list[str]) -> Turn | None:
    try:
        return _read(sites, mix, seconds)
    except LoadFailed as error:
        failures.append(f"{mix}, {len(sites)} processes: {error}")
        logs = "\n".join(site.server.log_tail() for site in sites)
        print(f"FAILED  {failures[-1]}\n{logs}", flush=True)
        return None


def _read(sites: list[Site], mix: str, seconds: int) -> Turn:
    records = sites[0].database if sites[0].keeps_records else None
    wait_until_quiet(records)
    since_ms = int(time.time() * 1_000) + 1
    time.sleep(0.002)
    before = _spent(sites)
    keys = _choose_keys(sites[0].keys, mix)
    running: list[Wrk] = []
    try:
        for number_ in range(2):
            site = sites[number_ % len(sites)]
            running.append(Wrk(site.port, _LOAD, keys=keys, seconds=seconds))
        outcomes = [wrk.finish() for wrk in running]
    finally:
        for wrk in running:
            wrk.stop()
    wait_until_quiet(records)
    after = _spent(sites)
    requests = sum(outcome.requests for outcome in outcomes)
    check_records(records, since_ms, answered=requests, open_at_end=2 * CONNECTIONS)
    return Turn(
        per_second=sum(outcome.per_second for outcome in outcomes),
        requests=requests,
        cpu_ms=(after[0] - before[0]) * 1e3 / requests,
        database_cpu_ms=(after[1] - before[1]) * 1e3 / requests,
        p99_ms=max(outcome.p99_ms for outcome in outcomes),
    )


def _choose_keys(keys: tuple[str, ...], mix: str) -> tuple[str, ...]:
    """Return whose calls follow each other."""
    if mix != "hot":
        return keys
    hot, *others = keys
    return tuple(key for other in others for key in (*[hot] * (_HOT_OF - 1), other))


def _spent(sites: list[Site]) -> tuple[float, float]:
    gateways = sum(site.server.cpu_seconds() for site in sites)
    database = sites[0].database
    return gateways, 0.0 if database is None else database_cpu_seconds(database) or 0.0


def _count_deadlocks(database: Database) -> int:
    with database.connect() as connection:
        (count,) = connection.execute(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = %s", (database.name,)
        ).fetchone()
    return int(count)


def _report(result: Result, turns: dict[tuple[str, int], list[Turn]], *, deadlocks: int) -> None:
    rows = []
    for (mix, count), taken in turns.items():
        if taken:
            rows.append(
                [
                    f"{mix}, {count} process{'es' if count > 1 else ''}",
                    number(statistics.median(turn.per_second for turn in taken), 0),
                    number(statistics.median(turn.p99_ms for turn in taken)),
                    number(statistics.median(turn.cpu_ms for turn in taken), 3),
                    number(statistics.median(turn.database_cpu_ms for turn in taken), 3),
                    f"{sum(turn.requests for turn in taken):,}",
                ]
            )
    for mix in (*MIXES, BARE):
        pairs = list(zip(turns[mix, 1], turns[mix, 2], strict=False))
        is_whole = bool(pairs) and not result.failures
        speed = (
            statistics.median(two.per_second / one.per_second for one, two in pairs)
            if is_whole
            else None
        )
        cost = (
            statistics.median(two.database_cpu_ms / one.database_cpu_ms for one, two in pairs)
            if is_whole
            else None
        )
        if mix == BARE:
            result.notes.append(
                f"Two bare ledgers, of one: {number(speed)} of the requests, "
                f"{number(cost)} of the database's time for a call."
            )
            continue
        result.verdicts += [
            at_least(f"{mix}: two processes, of one", targets.TWO_PROCESSES_RATIO_MIN, speed),
            at_most(f"{mix}: database CPU of a call, of one process", 1.0, cost),
        ]
    calls = sum(turn.requests for mix in MIXES for turn in turns[mix, 2])
    result.verdicts += [
        at_least("calls through two processes", targets.TWO_PROCESSES_CALLS_MIN, calls),
        at_most("deadlocks", 0, deadlocks),
    ]
    result.tables = [
        Table(
            "Two times 16 connections, JSON, 16 customers",
            ("", "requests/s", "p99 ms", "CPU s/1000", "database CPU s/1000", "calls"),
            rows,
        )
    ]
    result.data = {
        "deadlocks": deadlocks,
        "turns": {
            f"{mix} {count}": [
                {
                    "per_second": round(turn.per_second, 1),
                    "requests": turn.requests,
                    "cpu_seconds_per_1000": round(turn.cpu_ms, 4),
                    "database_cpu_seconds_per_1000": round(turn.database_cpu_ms, 4),
                    "p99_ms": round(turn.p99_ms, 3),
                }
                for turn in taken
            ]
            for (mix, count), taken in turns.items()
        },
    }
