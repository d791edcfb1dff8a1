"""The benchmark: `python -m bench.run [scenario]`. See bench/README.md.

Ends with 1 where calls failed, because then the figures mean nothing; where a target is missed,
only with --strict.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from types import FrameType

from bench import dialects, headroom, keys, latency, pacing, pair, prompt, rows, table, writer
from bench.options import Options, parse
from bench.report import Result, publish
from bench.sites import Bed

SCENARIOS: dict[str, Callable[[Bed, Options], Result]] = {
    "upstream": headroom.run,
    "table": table.run,
    "dialects": dialects.run,
    "latency": latency.run,
    "pacing": pacing.run,
    "keys": keys.run,
    "rows": rows.run,
    "processes": pair.run,
    "prompt": prompt.run,
    "writer": writer.run,
}
_PROGRAMS = ("wrk", "nginx")
# Of the minute before the first scenario; what follows is our own.
_LOAD_AVERAGE_MAX = 0.5
_BUSY = "WARNING: the machine was busy before (load average {:.1f}): the figures say little."


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for and return the exit code."""
    options = parse(arguments, SCENARIOS, "Benchmarks of the gateway on this machine.")
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        print(f"The benchmark needs {' and '.join(missing)}.", file=sys.stderr)
        return 2
    # Also where a shell started this in the background and had it ignore Ctrl-C.
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, _end)
    names = SCENARIOS if options.scenario == "all" else [options.scenario]
    has_failed = has_missed = False
    try:
        for name in names:
            busy = os.getloadavg()[0]
            with Bed() as bed:
                result = SCENARIOS[name](bed, options)
            if name == next(iter(names)) and busy > _LOAD_AVERAGE_MAX:
                result.notes.append(_BUSY.format(busy))
            publish(result, options=options.as_json(), directory=options.results)
            has_failed = has_failed or bool(result.failures)
            has_missed = has_missed or result.has_missed
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
        return 130
    return 1 if has_failed or (options.strict and has_missed) else 0


def _end(number: int, frame: FrameType | None) -> None:
    """End like Ctrl-C, so that servers are stopped."""
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
