"""The table: gateways beside all yardsticks, JSON and streams, few and many connections."""

from __future__ import annotations

import re
from typing import Final

from bench import targets
from bench.load import KINDS, Load
from bench.measure import Series, commit_times_ms, measure, percentile
from bench.options import Options
from bench.report import Result, Table, number
from bench.sites import POSTGRES, SQLITE, Bed, Site
from bench.targets import Verdict, at_least

CONNECTIONS: Final = (1, 32, 128)
ADDED_AT: Final = (1, 32)
COMMITS: Final = 200
GATEWAYS: Final = {
    "gateway-sqlite": (SQLITE, "off"),
    "gateway-postgres": (POSTGRES, "off"),
    "gateway-sqlite-payloads": (SQLITE, "full"),
    "gateway-postgres-payloads": (POSTGRES, "full"),
}
_COLUMNS: Final = (
    "site",
    "requests/s",
    "of nginx",
    "of pass-through",
    "of bare ledger",
    "p50 ms",
    "p99 ms",
    "added p50",
    "added p99",
    "CPU s/1000",
    "database CPU s/1000",
    "MB",
    "upstream is faster",
)

Found = dict[tuple[str, str], Series]  # by load and site


def run(bed: Bed, options: Options) -> Result:
    """Measure all cells that were asked for."""
    wanted = _choose_cells(options.only)
    upstream = bed.start_upstream()
    yardsticks = [
        upstream,
        bed.start_nginx(upstream),
        bed.start_passthrough(upstream),
        bed.start_bare_ledger(upstream),
    ]
    gateways = _start_gateways(bed, sorted({name for names in wanted.values() for name in names}))
    cells = [
        (load, [*yardsticks, *(gateways[name] for name in names)]) for load, names in wanted.items()
    ]
    commits = commit_times_ms(bed.start_postgres(), COMMITS)
    series, failures = measure(cells, rounds=options.rounds, seconds=options.seconds)
    found = {(one.load.name, one.site): one for one in series}
    result = Result("table", failures=failures)
    result.tables = [_table(load, found) for load in wanted]
    result.verdicts = _judge(found)
    result.notes = [
        f"One commit of one row in this PostgreSQL: p50 {percentile(commits, 50):.2f} ms, "
        f"p99 {percentile(commits, 99):.2f} ms."
    ]
    result.data = {
        "commit_ms": {"p50": percentile(commits, 50), "p99": percentile(commits, 99)},
        "cells": [
            {
                "load": one.load.name,
                "site": one.site,
                "readings": [reading.as_json() if reading else None for reading in one.readings],
            }
            for one in series
        ],
    }
    return result


def _choose_cells(only: str) -> dict[Load, list[str]]:
    """Return the gateways that are measured under each load; yardsticks come with them."""
    chosen: dict[Load, list[str]] = {}
    for connections in CONNECTIONS:
        for kind in KINDS:
            load = Load(kind, connections)
            names = [name for name in GATEWAYS if re.search(only, f"{load.name}-{name}")]
            if names:
                chosen[load] = names
    if not chosen:
        raise SystemExit(
            f"--only {only}: no cell has such a name, for example json-c32-{'|'.join(GATEWAYS)}"
        )
    return chosen


def _start_gateways(bed: Bed, names: list[str]) -> dict[str, Site]:
    sites = {}
    for name in names:
        engine, payloads = GATEWAYS[name]
        sites[name] = bed.start_gateway(name, bed.make_database(engine, name), payloads=payloads)
    return sites


def _table(load: Load, found: Found) -> Table:
    rows = [
        _row(load, series, found)
        for (load_name, _), series in found.items()
        if load_name == load.name
    ]
    return Table(load.name, _COLUMNS, rows)


def _row(load: Load, series: Series, found: Found) -> list[str]:
    if series.has_failed:
        return [series.site, "FAILED", *["–"] * (len(_COLUMNS) - 2)]
    direct = found[load.name, "direct"]
    return [
        series.site,
        number(series.per_second(), 0),
        number(series.ratio_to(found.get((load.name, "nginx")))),
        number(series.ratio_to(found.get((load.name, "pass-through")))),
        number(series.ratio_to(found.get((load.name, "bare-ledger")))),
        number(series.median(lambda reading: reading.outcome.p50_ms)),
        number(series.median(lambda reading: reading.outcome.p99_ms)),
        *_added(load, series, direct),
        number(series.median(lambda reading: reading.cpu_ms), 3),
        number(_database_cpu(series), 3),
        number(series.median(lambda reading: reading.resident_mb), 0),
        f"{number(direct.ratio_to(series), 1)} ×",
    ]


def _added(load: Load, series: Series, direct: Series) -> list[str]:
    """Return what lies between the latency and that of the direct call, where it means something.

    With 128 connections the latency is only how long the queue is.
    """
    if load.connections not in ADDED_AT or series is direct or direct.has_failed:
        return ["–", "–"]
    p50 = series.median(lambda reading: reading.outcome.p50_ms)
    p99 = series.median(lambda reading: reading.outcome.p99_ms)
    direct_p50 = direct.median(lambda reading: reading.outcome.p50_ms)
    direct_p99 = direct.median(lambda reading: reading.outcome.p99_ms)
    if p50 is None or p99 is None or direct_p50 is None or direct_p99 is None:
        return ["–", "–"]
    return [number(p50 - direct_p50), number(p99 - direct_p99)]


def _database_cpu(series: Series) -> float | None:
    values = [reading.database_cpu_ms for reading in series.readings if reading]
    if None in values:
        return None
    return series.median(lambda reading: reading.database_cpu_ms or 0.0)


def _judge(found: Found) -> list[Verdict]:
    verdicts = []
    for load, site, share in targets.TABLE:
        series = found.get((load, site))
        ratio = series.ratio_to(found.get((load, "pass-through"))) if series else None
        verdicts.append(at_least(f"{load} {site}, of the pass-through", share, ratio))
    for engine in (SQLITE, POSTGRES):
        with_payloads = f"gateway-{engine}-payloads"
        ratios = [
            (series.ratio_to(found.get((load, f"gateway-{engine}"))), load)
            for (load, site), series in found.items()
            if site == with_payloads
        ]
        known = [(ratio, load) for ratio, load in ratios if ratio is not None]
        worst, load = min(known, default=(None, "no load"))
        name = f"payloads on, of off, {engine} (worst: {load})"
        verdicts.append(at_least(name, targets.PAYLOADS_RATIO_MIN, worst))
    headroom = [
        found[load, "direct"].ratio_to(series)
        for (load, site), series in found.items()
        if site not in ("direct", "nginx")
    ]
    lowest = min((ratio for ratio in headroom if ratio is not None), default=None)
    name = "upstream, times what is measured (nginx aside)"
    verdicts.append(at_least(name, targets.UPSTREAM_HEADROOM_MIN, lowest, "×"))
    return verdicts
