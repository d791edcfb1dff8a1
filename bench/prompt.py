"""Prompts of 100,000 tokens: what the gateway adds to them, and to the small calls beside them.

Added is the median of one connection above that of direct calls. Beside: small calls from sixteen
connections, alone and while another connection sends such a prompt ten times a second.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from typing import Any, Final

from bench import targets
from bench.load import PROMPT_TOKENS, Load, LoadFailed, Outcome, Wrk, probe
from bench.measure import check_records, wait_until_quiet
from bench.options import Options
from bench.report import Result, Table, number
from bench.sites import POSTGRES, SQLITE, Bed, Site
from bench.targets import Verdict, at_most

ONE: Final = Load("prompt", 1)
PACED: Final = Load("prompt", 1, pause_ms=100)
SMALL: Final = Load("json", 16)
_CELLS: Final = (("large", (ONE,)), ("alone", (SMALL,)), ("beside", (SMALL, PACED)))


def run(bed: Bed, options: Options) -> Result:
    """Measure large prompts, small calls, and small calls beside large prompts in turns."""
    upstream = bed.start_upstream()
    gateways = [
        bed.start_gateway(f"gateway-{engine}", bed.make_database(engine, f"prompt-{engine}"))
        for engine in (SQLITE, POSTGRES)
    ]
    result = Result("prompt")
    taken: dict[tuple[str, str], list[list[Outcome] | None]] = {}
    for site in (upstream, *gateways):
        _take(site, (SMALL,), 1, result.failures)  # warms up
    for _ in range(options.rounds):
        for name, loads in _CELLS:
            for site in (upstream, *gateways):
                outcomes = _take(site, loads, options.seconds, result.failures)
                taken.setdefault((site.name, name), []).append(outcomes)
                _say(site, name, outcomes)
    rows = []
    for site in (upstream, *gateways):
        large, small, beside = (taken[site.name, name] for name, _ in _CELLS)
        rows.append(
            [
                site.name,
                number(_median(large, _p50)),
                number(_median(large, _p99)),
                number(_median(small, _p99)),
                number(_median(beside, _p99)),
                number(_ratio(small, beside)),
            ]
        )
        if site is not upstream:
            result.verdicts += _judge(
                site.name, _added(taken["direct", "large"], large), small, beside
            )
    columns = ("", "large p50 ms", "large p99 ms", "small p99 ms", "… beside large", "ratio")
    title = f"Prompts of {PROMPT_TOKENS:,} tokens; small calls from 16 connections"
    result.tables = [Table(title, columns, rows)]
    result.data = {
        f"{site} {name}": [_as_json(outcomes) for outcomes in found]
        for (site, name), found in taken.items()
    }
    return result


def _judge(name: str, added: float | None, small: Any, beside: Any) -> list[Verdict]:
    return [
        at_most(f"{name}: added to a large prompt, p50", targets.PROMPT_ADDED_MS_MAX, added, "ms"),
        at_most(
            f"{name}: p99 of small calls beside large prompts, of alone",
            targets.BESIDE_PROMPT_P99_RATIO_MAX,
            _ratio(small, beside),
        ),
    ]


def _take(
    site: Site, loads: Sequence[Load], seconds: int, failures: list[str]
) -> list[Outcome] | None:
    try:
        return _read(site, loads, seconds)
    except LoadFailed as error:
        failures.append(f"{site.name} {' and '.join(load.name for load in loads)}: {error}")
        print(f"FAILED  {failures[-1]}\n{site.server.log_tail()}", flush=True)
        return None


def _read(site: Site, loads: Sequence[Load], seconds: int) -> list[Outcome]:
    """Return what each of the loads, all at once, counted. Raises LoadFailed."""
    try:
        probe(site.port, loads[-1], site.keys[0])
    except OSError as error:
        raise LoadFailed(f"no answer: {error}") from error
    wait_until_quiet(site.database)
    since_ms = int(time.time() * 1_000) + 1
    time.sleep(0.002)
    running: list[Wrk] = []
    try:
        for load in loads:
            running.append(Wrk(site.port, load, keys=site.keys[:1], seconds=seconds))
        outcomes = [wrk.finish() for wrk in running]
    finally:
        for wrk in running:
            wrk.stop()
    wait_until_quiet(site.database)
    check_records(
        site.database,
        since_ms,
        answered=sum(outcome.requests for outcome in outcomes),
        open_at_end=sum(load.connections for load in loads),
    )
    return outcomes


def _p50(outcome: Outcome) -> float:
    return outcome.p50_ms


def _p99(outcome: Outcome) -> float:
    return outcome.p99_ms


def _median(found: Sequence[list[Outcome] | None], read: Any) -> float | None:
    """Return the median over the rounds of the first load, None where a round failed."""
    whole = [outcomes[0] for outcomes in found if outcomes is not None]
    if len(whole) < len(found):
        return None
    return float(statistics.median(read(outcome) for outcome in whole))


def _added(
    direct: Sequence[list[Outcome] | None], through: Sequence[list[Outcome] | None]
) -> float | None:
    """Return the median over the rounds of what the p50 lies above that of direct calls."""
    pairs = list(zip(direct, through, strict=True))
    if not all(before and after for before, after in pairs):
        return None
    return statistics.median(
        after[0].p50_ms - before[0].p50_ms for before, after in pairs if before and after
    )


def _ratio(
    alone: Sequence[list[Outcome] | None], beside: Sequence[list[Outcome] | None]
) -> float | None:
    """Return the median over the rounds of the p99 beside large prompts, of that alone."""
    pairs = list(zip(alone, beside, strict=True))
    if not all(before and after for before, after in pairs):
        return None
    return statistics.median(
        after[0].p99_ms / before[0].p99_ms for before, after in pairs if before and after
    )


def _say(site: Site, name: str, outcomes: list[Outcome] | None) -> None:
    if outcomes is not None:
        found = outcomes[0]
        print(
            f"{site.name:<18} {name:<8} {found.per_second:>8.0f} /s  "
            f"p50 {found.p50_ms:.2f} ms  p99 {found.p99_ms:.2f} ms",
            flush=True,
        )


def _as_json(outcomes: list[Outcome] | None) -> list[dict[str, float]] | None:
    if outcomes is None:
        return None
    return [
        {
            "requests": outcome.requests,
            "p50_ms": round(outcome.p50_ms, 3),
            "p99_ms": round(outcome.p99_ms, 3),
            "max_ms": round(outcome.max_ms, 3),
        }
        for outcome in outcomes
    ]
