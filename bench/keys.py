"""Very many keys: how long the configuration takes to load, and what an edit every second costs."""

from __future__ import annotations

import contextlib
import http.client
import json
import statistics
import threading
import time
from collections.abc import Iterator
from typing import Any, Final

from bench import targets
from bench.api import fill
from bench.load import PATH, Load, make_body
from bench.measure import Reading, Series, take_reading
from bench.options import Options
from bench.report import Result, Table, number
from bench.sites import POSTGRES, Bed, Site
from bench.targets import at_most
from tests.support.databases import Database

USERS: Final = 10_000
_LOAD: Final = Load("json", 32)
_EDIT_SECONDS: Final = 1.0
_SEEN_SECONDS_MAX: Final = 15.0


def run(bed: Bed, options: Options) -> Result:
    """Load the configuration with few and with very many keys, then measure with and without
    edits.
    """
    bed.start_upstream()
    few = bed.make_database(POSTGRES, "few_keys")
    many = bed.make_database(POSTGRES, "many_keys")
    with many.connect() as connection:
        fill(connection, users=min(USERS, options.keys), keys=options.keys, requests=1)
    result = Result("keys")
    loads = {
        name: _load_times(bed, database, options.rounds)
        for name, database in (("few keys", few), ("many keys", many))
    }
    starts = {}
    for name, database in (("few keys", few), ("many keys", many)):
        site = bed.start_gateway(name.replace(" ", "-"), database)
        starts[name] = site
    still, edited = _measure_edits(starts["many keys"], many, options, result.failures)
    seen = _time_until_refused(starts["many keys"], many)
    ratio = edited.ratio_to(still, lambda reading: reading.outcome.p99_ms)
    seconds = {
        name: statistics.median(one["seconds"] for one in found) for name, found in loads.items()
    }
    result.tables = [
        Table(
            "Start",
            ("", "keys", "load s", "MB after the load", "ready after s"),
            [
                [
                    name,
                    str(found[0]["keys"]),
                    number(seconds[name]),
                    number(found[0]["resident_mb"], 0),
                    number(starts[name].ready_seconds),
                ]
                for name, found in loads.items()
            ],
        ),
        Table(
            f"{_LOAD.name} with {loads['many keys'][0]['keys']} keys",
            ("", "requests/s", "p50 ms", "p99 ms", "MB"),
            [_row("without edits", still), _row("one key edited every second", edited)],
        ),
    ]
    result.verdicts = [
        at_most("full load at the start", targets.LOAD_SECONDS_MAX, seconds["many keys"], "s"),
        at_most("p99 with edits, of without", targets.EDITED_P99_RATIO_MAX, ratio),
    ]
    result.notes = [f"A key that was switched off was refused {seen:.2f} s later."]
    result.data = {
        "loads": loads,
        "ready_seconds": {name: site.ready_seconds for name, site in starts.items()},
        "refused_after_seconds": seen,
        "readings": {
            name: [reading.as_json() if reading else None for reading in series.readings]
            for name, series in (("without edits", still), ("with edits", edited))
        },
    }
    return result


def _load_times(bed: Bed, database: Database, rounds: int) -> list[dict[str, Any]]:
    """Return what loading the whole configuration cost, each time in a new process."""
    return [
        json.loads(bed.run_with(database, ["-m", "bench.load_time"]).splitlines()[-1])
        for _ in range(rounds)
    ]


def _measure_edits(
    site: Site, database: Database, options: Options, failures: list[str]
) -> tuple[Series, Series]:
    still, edited = Series("without edits", _LOAD), Series("with edits", _LOAD)
    take_reading(site, _LOAD, seconds=1, failures=failures)  # warms up
    for number_ in range(options.rounds):
        for has_edits in (False, True) if number_ % 2 == 0 else (True, False):
            with _edits(database) if has_edits else contextlib.nullcontext():
                reading = take_reading(site, _LOAD, seconds=options.seconds, failures=failures)
            (edited if has_edits else still).readings.append(reading)
            _say(has_edits, reading)
    return still, edited


@contextlib.contextmanager
def _edits(database: Database) -> Iterator[None]:
    """Change another key every second meanwhile."""
    is_over = threading.Event()

    def edit() -> None:
        with database.connect() as connection:
            number_ = 0
            while not is_over.is_set():  # ends with the reading
                number_ += 1
                connection.execute(
                    "UPDATE api_keys_apikey SET name = %s WHERE id = "
                    "(SELECT max(id) - %s FROM api_keys_apikey)",
                    (f"edited at {time.time()}", number_ % 1_000),
                )
                is_over.wait(_EDIT_SECONDS)

    thread = threading.Thread(target=edit, daemon=True)
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join(10)


def _time_until_refused(site: Site, database: Database) -> float:
    """Switch the last caller's key off and return when it is refused: edits do arrive."""
    if _status(site, site.keys[-1]) != 200:
        raise RuntimeError("The key that is to be switched off did not work before.")
    with database.connect() as connection:
        connection.execute(
            "UPDATE api_keys_apikey SET is_active = false WHERE name = %s",
            (f"key {len(site.keys) - 1}",),
        )
    begun = time.perf_counter()
    while time.perf_counter() - begun < _SEEN_SECONDS_MAX:
        if _status(site, site.keys[-1]) == 401:
            return time.perf_counter() - begun
        time.sleep(0.02)
    raise RuntimeError(f"An edit was not seen within {_SEEN_SECONDS_MAX:.0f} s.")


def _status(site: Site, key: str) -> int:
    caller = http.client.HTTPConnection("127.0.0.1", site.port, timeout=10)
    try:
        headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
        caller.request("POST", PATH, make_body("json"), headers)
        return caller.getresponse().status
    finally:
        caller.close()


def _row(name: str, series: Series) -> list[str]:
    return [
        name,
        number(series.per_second(), 0),
        number(series.median(lambda reading: reading.outcome.p50_ms)),
        number(series.median(lambda reading: reading.outcome.p99_ms)),
        number(series.median(lambda reading: reading.resident_mb), 0),
    ]


def _say(has_edits: bool, reading: Reading | None) -> None:
    if reading is not None:
        found = reading.outcome
        word = "with" if has_edits else "without"
        print(f"{word} edits: {found.per_second:.0f} /s, p99 {found.p99_ms:.2f} ms", flush=True)
