"""How far the ledger's writer goes by itself, and what stops it: Python or the database.

A process holds and settles calls without HTTP or a provider. Where it keeps one core busy, its
interpreter is the limit; where it does not, it waits for the database.
"""

from __future__ import annotations

import json
import statistics
from typing import Any, Final

from bench.options import Options
from bench.report import Result, Table, number
from bench.sites import POSTGRES, SQLITE, Bed, database_cpu_seconds

CUSTOMERS: Final = 16
CALLS_AT_ONCE: Final = (1, 32, 128, 1_000)


def run(bed: Bed, options: Options) -> Result:
    """Measure both engines in turns with more and more calls at once."""
    result = Result("writer")
    readings: dict[str, list[dict[str, Any]]] = {}
    for turn in range(options.rounds):
        for at_once in CALLS_AT_ONCE:
            for engine in (SQLITE, POSTGRES):
                database = bed.make_database(engine, f"writer-{engine}-{at_once}-{turn}")
                wishes = {
                    "customers": CUSTOMERS,
                    "calls_at_once": at_once,
                    "seconds": options.seconds,
                }
                before = database_cpu_seconds(database)
                printed = bed.run_with(database, ["-m", "bench.writer_load", json.dumps(wishes)])
                after = database_cpu_seconds(database)
                reading = json.loads(printed.splitlines()[-1])
                if before is not None and after is not None:
                    # With its warm-up and the rows that were made for it: a little too much.
                    reading["database_cores"] = (after - before) / (options.seconds + 1)
                readings.setdefault(f"{engine}, {at_once} at once", []).append(reading)
                print(f"{engine} {at_once}: {reading['per_second']:.0f} calls/s", flush=True)
    rows = [
        [name, *(number(_median(taken, key), digits) for key, digits in _COLUMNS)]
        for name, taken in readings.items()
    ]
    result.tables = [
        Table(
            "The ledger's writer alone",
            ("", "calls/s", "commands a batch", "CPU ms a call", "cores", "cores of PostgreSQL"),
            rows,
        )
    ]
    result.data = {"readings": readings}
    return result


_COLUMNS: Final = (
    ("per_second", 0),
    ("commands_a_batch", 0),
    ("cpu_ms", 3),
    ("cores", 2),
    ("database_cores", 2),
)


def _median(taken: list[dict[str, Any]], key: str) -> float | None:
    values = [reading[key] for reading in taken if key in reading]
    return statistics.median(values) if values else None
