"""Reports: tables and verdicts on the screen, and the same with all readings in files.

Files are named by moment and scenario, and say what kind of machine it was but not which one.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import psutil

from bench.targets import Verdict

RESULTS: Final = Path(__file__).resolve().parent / "results"


@dataclass(frozen=True, slots=True)
class Table:
    """Columns of text; the first one is aligned to the left."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(slots=True)
class Result:
    """What a scenario found."""

    name: str
    tables: list[Table] = field(default_factory=list)
    verdicts: list[Verdict] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    data: dict[str, Any] = field(default_factory=dict)

    @property
    def has_missed(self) -> bool:
        """Whether a target was measured and not reached."""
        return any(verdict.is_reached is False for verdict in self.verdicts)


def number(value: float | None, digits: int = 2) -> str:
    """Return a figure as text, a dash where there is none."""
    return "–" if value is None else f"{value:,.{digits}f}"


def publish(result: Result, *, options: dict[str, Any], directory: Path) -> None:
    """Print a result and write it to two files."""
    now = datetime.now(UTC)
    machine = describe_machine()
    for table in _all_tables(result):
        print(_as_text(table), flush=True)
    for note in result.notes:
        print(note)
    for failure in result.failures:
        print(f"FAILED  {failure}")
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{now:%Y%m%dT%H%M%SZ}-{result.name}.json"
    path.write_text(
        json.dumps(
            {
                "scenario": result.name,
                "at": now.isoformat(timespec="seconds"),
                "options": options,
                "machine": machine,
                "verdicts": [
                    {
                        "target": verdict.name,
                        "wanted": verdict.wanted,
                        "measured": verdict.measured,
                        "is_reached": verdict.is_reached,
                    }
                    for verdict in result.verdicts
                ],
                "failures": result.failures,
                "notes": result.notes,
                **result.data,
            },
            indent=1,
            ensure_ascii=False,
        )
        + "\n"
    )
    facts = ", ".join(f"{name} {value}" for name, value in machine.items())
    chosen = ", ".join(f"{name} {value}" for name, value in options.items())
    parts = [f"# {result.name}, {now:%Y-%m-%d %H:%M} UTC", facts, chosen]
    parts += [_as_markdown(table) for table in _all_tables(result)]
    parts += [*result.notes, *(f"**FAILED** {failure}" for failure in result.failures)]
    path.with_suffix(".md").write_text("\n\n".join(parts) + "\n")
    print(f"\nwritten to {path} and {path.with_suffix('.md').name}", flush=True)


def describe_machine() -> dict[str, str]:
    """Return what of the machine and its programs matters for figures."""
    load = os.getloadavg()
    return {
        "processors": str(os.cpu_count()),
        "processor": _processor(),
        "memory": f"{psutil.virtual_memory().total / 1e9:.0f} GB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "nginx": _version(["nginx", "-v"]),
        "wrk": _version(["wrk", "-v"]),
        "load average at the end": f"{load[0]:.1f} {load[1]:.1f} {load[2]:.1f}",
    }


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version(command: list[str]) -> str:
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    words = (ended.stdout + ended.stderr).split("\n")[0].split()
    found = [word for word in words if any(mark.isdigit() for mark in word)]
    return found[0].rpartition("/")[2] if found else "?"


def _all_tables(result: Result) -> list[Table]:
    verdicts = [
        [verdict.name, verdict.wanted, verdict.measured, verdict.word]
        for verdict in result.verdicts
    ]
    targets = [Table("Targets", ("target", "wanted", "measured", ""), verdicts)] if verdicts else []
    return [*result.tables, *targets]


def _as_text(table: Table) -> str:
    lines = [list(table.columns), *map(list, table.rows)]
    widths = [max(len(line[at]) for line in lines) for at in range(len(table.columns))]
    written = [
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    ]
    return "\n".join(["", table.title, written[0], "-" * len(written[0]), *written[1:]])


def _as_markdown(table: Table) -> str:
    lines = [
        f"## {table.title}\n",
        "| " + " | ".join(table.columns) + " |",
        "|---|" + "---:|" * (len(table.columns) - 1),
        *("| " + " | ".join(row) + " |" for row in table.rows),
    ]
    return "\n".join(lines)
