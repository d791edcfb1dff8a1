"""Added latency at one connection on PostgreSQL, beside the commit time of that same database.

A call waits for two commits: its hold and its settlement. Commits are timed between the readings,
while nothing else writes: how long one takes depends on what else the machine does just then. The
bare ledger waits for two as well, and does nothing beyond.
"""

from __future__ import annotations

import statistics
import time
from fractions import Fraction
from typing import Final

from bench import targets
from bench.load import KINDS, Load
from bench.measure import Series, commit_times_ms, percentile, take_reading
from bench.options import Options
from bench.report import Result, Table, number
from bench.sites import POSTGRES, Bed
from bench.targets import Verdict, at_most

COMMITS: Final = 300
# A batch of one call comes some milliseconds after the last one.
PAUSE_SECONDS: Final = 0.002
_TIMES: Final = 500
_PARTS: Final = 20


def run(bed: Bed, options: Options) -> Result:
    """Measure direct calls, calls of the gateway and commits in turns."""
    upstream = bed.start_upstream()
    bare = bed.start_bare_ledger(upstream)
    gateway = bed.start_gateway("gateway-postgres", bed.make_database(POSTGRES, "latency"))
    sites = (upstream, bare, gateway)
    result = Result("latency")
    series = {
        (kind, site.name): Series(site.name, Load(kind, 1)) for kind in KINDS for site in sites
    }
    commits: list[list[float]] = []
    for _ in range(options.rounds):
        for kind in KINDS:
            commits.append(commit_times_ms(bed.start_postgres(), COMMITS))
            for site in sites:
                one = series[kind, site.name]
                one.readings.append(
                    take_reading(site, one.load, seconds=options.seconds, failures=result.failures)
                )
    commit_p50 = statistics.median(percentile(times, 50) for times in commits)
    commit_p99 = statistics.median(percentile(times, 99) for times in commits)
    rows = [["one commit of one row", number(commit_p50, 3), number(commit_p99, 3)]]
    at_once, rested = time_work(0.0), time_work(PAUSE_SECONDS)
    rows += [
        ["the same Python, again and again", number(at_once[0], 3), number(at_once[1], 3)],
        ["… each time after 2 ms of nothing", number(rested[0], 3), number(rested[1], 3)],
    ]
    for kind in KINDS:
        direct, through = series[kind, upstream.name], series[kind, gateway.name]
        least_p50, least_p99 = _added(direct, series[kind, bare.name])
        p50, p99 = _added(direct, through)
        rows += [
            _row(f"{kind}, direct", direct),
            _row(f"{kind}, gateway", through),
            [f"{kind}, added by the bare ledger", number(least_p50, 3), number(least_p99, 3)],
            [f"{kind}, added by the gateway", number(p50, 3), number(p99, 3)],
        ]
        result.verdicts += _judge(kind, p50, p99, commit_p50)
    result.tables = [Table("One connection, PostgreSQL", ("", "p50 ms", "p99 ms"), rows)]
    result.data = {
        "commit_ms": [
            {"p50": percentile(times, 50), "p99": percentile(times, 99)} for times in commits
        ],
        "readings": {
            f"{kind} {site}": [reading.as_json() if reading else None for reading in one.readings]
            for (kind, site), one in series.items()
        },
    }
    return result


def time_work(pause_seconds: float) -> tuple[float, float]:
    """Return p50 and p99 of the milliseconds that a fixed piece of Python takes after a pause."""
    times = []
    for turn in range(_TIMES):
        if pause_seconds:
            time.sleep(pause_seconds)
        begun = time.perf_counter()
        # Written in Python, as a batch of the ledger is.
        sum(Fraction(turn + part, 7) for part in range(_PARTS))
        times.append((time.perf_counter() - begun) * 1e3)
    return percentile(times, 50), percentile(times, 99)


def _judge(kind: str, p50: float | None, p99: float | None, commit_ms: float) -> list[Verdict]:
    bound = targets.ADDED_P50_COMMITS_MAX * commit_ms + targets.ADDED_P50_MS_MAX
    bound_p99 = None if p50 is None else targets.ADDED_P99_OF_P50_MAX * p50
    return [
        at_most(f"{kind}: added p50, two commits and 1 ms", bound, p50, "ms"),
        at_most(f"{kind}: added p99, four times the p50", bound_p99, p99, "ms"),
    ]


def _added(direct: Series, through: Series) -> tuple[float | None, float | None]:
    """Return the medians over the rounds of what p50 and p99 lie above those of direct calls."""
    if direct.has_failed or through.has_failed:
        return None, None
    pairs = [
        (before.outcome, after.outcome)
        for before, after in zip(direct.readings, through.readings, strict=True)
        if before and after
    ]
    return (
        statistics.median(after.p50_ms - before.p50_ms for before, after in pairs),
        statistics.median(after.p99_ms - before.p99_ms for before, after in pairs),
    )


def _row(name: str, series: Series) -> list[str]:
    return [
        name,
        number(series.median(lambda reading: reading.outcome.p50_ms), 3),
        number(series.median(lambda reading: reading.outcome.p99_ms), 3),
    ]
