"""A million recorded calls already there, against an empty table, in pairs of readings."""

from __future__ import annotations

from typing import Any, Final

import psycopg

from bench import targets
from bench.api import fill
from bench.load import KINDS, Load
from bench.measure import measure
from bench.options import Options
from bench.report import Result, Table, number
from bench.sites import POSTGRES, Bed
from bench.targets import at_least

USERS: Final = 10_000
KEYS: Final = 30_000
CONNECTIONS: Final = 32
# The filled rows belong to the first incarnation and to the first revenue account. Gateways come
# later than those, and (by their number) post to another account.
_FIRST_INCARNATION: Final = 1_001


def run(bed: Bed, options: Options) -> Result:
    """Fill one database, give another the same people and keys, and measure both in turns."""
    bed.start_upstream()
    empty = bed.make_database(POSTGRES, "empty")
    filled = bed.make_database(POSTGRES, "filled")
    for database, requests in ((empty, 1), (filled, options.filled)):
        with database.connect() as connection:
            fill(connection, users=USERS, keys=KEYS, requests=requests)
            _begin_later(connection)
    sites = [bed.start_gateway("empty", empty), bed.start_gateway("filled", filled)]
    cells = [(Load(kind, CONNECTIONS), sites) for kind in KINDS]
    series, failures = measure(cells, rounds=options.rounds, seconds=options.seconds)
    found = {(one.load.kind, one.site): one for one in series}
    result = Result("rows", failures=failures)
    rows = []
    for kind in KINDS:
        before, after = found[kind, "empty"], found[kind, "filled"]
        ratio = after.ratio_to(before)
        rows.append(
            [
                after.load.name,
                number(before.per_second(), 0),
                number(after.per_second(), 0),
                number(ratio),
                number(before.median(lambda reading: reading.database_cpu_ms or 0.0), 3),
                number(after.median(lambda reading: reading.database_cpu_ms or 0.0), 3),
            ]
        )
        name = f"{after.load.name} with {options.filled:,} rows, of an empty table"
        result.verdicts.append(at_least(name, targets.FILLED_RATIO_MIN, ratio))
    result.tables = [
        Table(
            f"{options.filled:,} calls already on record",
            ("", "empty /s", "filled /s", "ratio", "database CPU s/1000, empty", "filled"),
            rows,
        )
    ]
    result.data = {
        "readings": {
            f"{one.load.name} {one.site}": [
                reading.as_json() if reading else None for reading in one.readings
            ]
            for one in series
        }
    }
    return result


def _begin_later(connection: psycopg.Connection[Any]) -> None:
    connection.execute(
        "SELECT setval(pg_get_serial_sequence('billing_incarnation', 'id'), %s, false)",
        (_FIRST_INCARNATION,),
    )
