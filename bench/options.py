"""What can be asked for on the command line."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from bench.report import RESULTS


@dataclass(frozen=True, slots=True)
class Options:
    """The same for all scenarios; each reads what concerns it."""

    scenario: str
    seconds: int  # of one reading
    rounds: int
    only: str  # a regular expression over the names of cells
    calls: int  # two processes: at least so many calls
    keys: int
    filled: int  # rows that are already there
    streams: int
    strict: bool
    results: Path

    def as_json(self) -> dict[str, Any]:
        """Return what reports keep."""
        return {
            name: value
            for name, value in asdict(self).items()
            if name not in ("results", "scenario")
        }


def parse(arguments: Sequence[str] | None, scenarios: Iterable[str], text: str) -> Options:
    """Read the command line; ends the process where it is wrong."""
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=text)
    parser.add_argument("scenario", nargs="?", default="table", choices=[*scenarios, "all"])
    parser.add_argument("--seconds", type=_positive, default=4, help="of one reading (4)")
    parser.add_argument("--rounds", type=_positive, default=3, help="interleaved rounds (3)")
    parser.add_argument(
        "--only",
        default="",
        help="table, dialects: a pattern of cells, for example json-c32-gateway-postgres$",
    )
    parser.add_argument("--calls", type=_positive, default=100_000, help="two processes: at least")
    parser.add_argument("--keys", type=_positive, default=100_000, help="keys: that many present")
    parser.add_argument(
        "--filled", type=_positive, default=1_000_000, help="rows: that many already there"
    )
    parser.add_argument("--streams", type=_positive, default=500, help="pacing: at the same time")
    parser.add_argument(
        "--strict", action="store_true", help="end with 1 where a target is not reached"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="where reports go")
    return Options(**vars(parser.parse_args(arguments)))


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return value
