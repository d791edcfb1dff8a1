"""Every dialect beside OpenAI's path: as it passes through, and converted into another.

All are the same question and the same answer, in turns within each round; a ratio is of readings of
the same gateway in the same round.
"""

from __future__ import annotations

import re
from typing import Final

from bench import targets
from bench.answers import SCRIPTS
from bench.load import KINDS, OPENAI, Load
from bench.measure import Reading, Series, measure
from bench.options import Options
from bench.report import Result, Table, number
from bench.sites import POSTGRES, SQLITE, Bed
from bench.targets import Verdict, at_least

CONNECTIONS: Final = 32
GATEWAYS: Final = {"gateway-postgres": POSTGRES, "gateway-sqlite": SQLITE}
OTHERS: Final = tuple(dialect for dialect in sorted(SCRIPTS) if dialect != OPENAI)
# Of streams: the client's dialect, and the provider's. Next to each other is what is compared.
PAIRS: Final = (
    (OPENAI, OPENAI),
    *((dialect, dialect) for dialect in OTHERS),
    *((dialect, OPENAI) for dialect in OTHERS),
    *((OPENAI, dialect) for dialect in OTHERS),
)
_COLUMNS: Final = (
    "client → provider",
    "requests/s",
    "of OpenAI's path",
    "of pass-through",
    "p50 ms",
    "p99 ms",
    "CPU s/1000",
    "CPU of OpenAI's path",
)

Found = dict[tuple[str, str], Series]  # by load and site


def run(bed: Bed, options: Options) -> Result:
    """Measure all pairs that were asked for, on both databases."""
    loads = [
        Load(kind, CONNECTIONS, client=client, provider=provider)
        for kind in KINDS
        for client, provider in PAIRS
        # Whole answers are measured as they pass: what they cost beyond is one parsing.
        if kind == "stream" or client == provider
    ]
    wanted: dict[Load, list[str]] = {}
    for load in loads:
        chosen = [name for name in GATEWAYS if re.search(options.only, f"{load.name}-{name}")]
        if chosen:
            wanted[load] = chosen
    if not wanted:
        # The same pattern may be meant for the cells of the table.
        known = ", ".join(load.name for load in loads)
        return Result("dialects", notes=[f"--only {options.only} names none of {known}."])
    bed.start_upstream()
    started = {name for names in wanted.values() for name in names}
    sites = {
        name: bed.start_gateway(name, bed.make_database(engine, name))
        for name, engine in GATEWAYS.items()
        if name in started
    }
    series, failures = measure(
        [(load, [sites[name] for name in names]) for load, names in wanted.items()],
        rounds=options.rounds,
        seconds=options.seconds,
    )
    found = {(one.load.name, one.site): one for one in series}
    result = Result("dialects", failures=failures)
    result.tables = [
        Table(
            f"{kind}-c{CONNECTIONS}, {name}",
            _COLUMNS,
            [_row(one, found) for one in series if (one.load.kind, one.site) == (kind, name)],
        )
        for kind in KINDS
        for name in sites
    ]
    result.verdicts = [_judge(one, found) for one in series if _base(one, found) is not one]
    result.data = {
        "cells": [
            {
                "load": one.load.name,
                "site": one.site,
                "readings": [reading.as_json() if reading else None for reading in one.readings],
            }
            for one in series
        ]
    }
    return result


def _passing(one: Series, found: Found, client: str) -> Series | None:
    """Return what the same site did for a client whose calls pass as they are."""
    load = Load(one.load.kind, CONNECTIONS, client=client, provider=client)
    return found.get((load.name, one.site))


def _is_converted(one: Series) -> bool:
    return one.load.client != one.load.provider


def _base(one: Series, found: Found) -> Series | None:
    """Return what a series is held against."""
    return _passing(one, found, one.load.client if _is_converted(one) else OPENAI)


def _judge(one: Series, found: Found) -> Verdict:
    ratio = one.ratio_to(_base(one, found))
    name = f"{one.load.name} {one.site}"
    if _is_converted(one):
        return at_least(f"{name}, of pass-through", targets.CONVERTED_RATIO_MIN, ratio)
    return at_least(f"{name}, of OpenAI's path", targets.PASSED_RATIO_MIN, ratio)


def _cpu(reading: Reading) -> float:
    return reading.cpu_ms


def _row(one: Series, found: Found) -> list[str]:
    name = f"{one.load.client} → {one.load.provider}"
    if one.has_failed:
        return [name, "FAILED", *["–"] * (len(_COLUMNS) - 2)]
    usual = _passing(one, found, OPENAI)
    passing = _passing(one, found, one.load.client)
    return [
        name,
        number(one.per_second(), 0),
        number(one.ratio_to(usual)),
        number(one.ratio_to(passing)),
        number(one.median(lambda reading: reading.outcome.p50_ms)),
        number(one.median(lambda reading: reading.outcome.p99_ms)),
        number(one.median(_cpu), 3),
        number(one.ratio_to(usual, _cpu)),
    ]
