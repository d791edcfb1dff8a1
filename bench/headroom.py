"""Is the upstream of the benchmark fast enough: it alone, beside nginx with the same answers."""

from __future__ import annotations

from typing import Final

from bench.load import KINDS, Load, LoadFailed, Outcome, run_wrk
from bench.nginx import JSON_PATH, STREAM_PATH
from bench.options import Options
from bench.report import Result, Table, number
from bench.sites import Bed

CONNECTIONS: Final = (1, 32, 128)
_PATHS: Final = {"json": JSON_PATH, "stream": STREAM_PATH}


def run(bed: Bed, options: Options) -> Result:
    """Measure both in turns, and the pass-through as what would have to be slower."""
    upstream = bed.start_upstream()
    nginx = bed.start_nginx(upstream)
    passthrough = bed.start_passthrough(upstream)
    result = Result("upstream")
    rows = []
    for connections in CONNECTIONS:
        for kind in KINDS:
            load = Load(kind, connections)
            best: dict[str, Outcome] = {}
            for _ in range(options.rounds):
                for name, site, path in (
                    ("upstream", upstream, "/v1/chat/completions"),
                    ("nginx, static", nginx, _PATHS[kind]),
                    ("pass-through", passthrough, "/v1/chat/completions"),
                ):
                    try:
                        outcome = run_wrk(
                            site.port, load, keys=site.keys, seconds=options.seconds, path=path
                        )
                    except LoadFailed as error:
                        result.failures.append(f"{name} {load.name}: {error}")
                        continue
                    if name not in best or outcome.per_second > best[name].per_second:
                        best[name] = outcome
            names = ("upstream", "nginx, static", "pass-through")
            rates = [best[name].per_second if name in best else None for name in names]
            times = rates[0] / rates[2] if rates[0] and rates[2] else None
            rows.append([load.name, *(number(rate, 0) for rate in rates), f"{number(times, 1)} ×"])
    result.tables = [
        Table(
            "Answers per second, best of the rounds",
            ("", "upstream", "nginx, static", "pass-through", "upstream is faster"),
            rows,
        )
    ]
    result.data = {"rows": rows}
    return result
