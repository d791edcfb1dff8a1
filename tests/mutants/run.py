"""Runs the mutants: `python -m tests.mutants.run [NAME …]`, all of them without a name.

First the tests of all mutants on the tree as it is: they have to pass. Then, in a copy of the tree,
one mutant at a time: each of its tests has to fail, by an assertion or an error of its own. A test
that could not be collected, set up or ended in time proves nothing.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Final

from tests.mutants.mutant import Mutant, Stale, forget_compiled, split_node_id
from tests.mutants.table import MUTANTS

ROOT: Final = Path(__file__).resolve().parents[2]
WORKERS: Final = 2
GREEN_SECONDS_MAX: Final = 600.0
MUTANT_SECONDS_MAX: Final = 150.0
_STOP_SECONDS: Final = 20.0
_LEFT_OUT: Final = shutil.ignore_patterns(
    ".git", ".venv", ".clients", "__pycache__", ".*_cache", ".hypothesis", "node_modules"
)
_LEFT_OUT_AT_THE_TOP: Final = ("data", "static")
# Such a test did not find the bug: the mutant is no program, or something was slow.
_NO_VERDICT: Final = ("ImportError", "ModuleNotFoundError", "NameError", "SyntaxError", "NotReady")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of a mutant on one engine; `problem` is empty where its tests found it."""

    mutant: Mutant
    engine: str
    seconds: float
    problem: str


def copy_tree(target: Path) -> Path:
    """Copy what the tests need and return where it is."""
    shutil.copytree(ROOT, target, ignore=_ignore, symlinks=True)
    return target


def _ignore(folder: str, names: list[str]) -> set[str]:
    ignored = _LEFT_OUT(folder, names)
    return ignored | set(_LEFT_OUT_AT_THE_TOP) if Path(folder) == ROOT else ignored


def run_tests(
    tree: Path, engine: str, tests: Sequence[str], seconds_max: float
) -> tuple[str, dict[tuple[str, str], list[str]]]:
    """Run tests in a tree; return what kept them from a verdict, and by test what went wrong.

    What went wrong is one text a case: empty where it passed.
    """
    report = tree / "report.xml"
    report.unlink(missing_ok=True)
    # The tree at hand and no other one.
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTEST_ADDOPTS")}
    left_out = ("cacheprovider", "randomly", "xdist", "schemathesis")
    options = [word for name in left_out for word in ("-p", f"no:{name}")]
    process = subprocess.Popen(
        [
            *(sys.executable, "-m", "pytest", "-q", *options),
            *("--hypothesis-seed=0", "--hypothesis-profile=mutants"),
            *(f"--engine={engine}", f"--junitxml={report}", *tests),
        ],
        cwd=tree,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=seconds_max)
    except subprocess.TimeoutExpired:
        return f"not over after {seconds_max:.0f} s", {}
    finally:
        _end(process)
    if process.returncode not in (0, 1) or not report.exists():
        return f"pytest ended with {process.returncode}: {output[-2_000:]}", {}
    return "", _read_report(report)


def _end(process: subprocess.Popen[str]) -> None:
    """End tests that run still: first they may stop the servers that they have started."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGINT)
    with suppress(subprocess.TimeoutExpired):
        process.communicate(timeout=_STOP_SECONDS)
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


def _read_report(report: Path) -> dict[tuple[str, str], list[str]]:
    found: dict[tuple[str, str], list[str]] = {}
    for case in ElementTree.parse(report).iter("testcase"):  # noqa: S314 (pytest wrote it)
        path = f"{case.get('classname', '').replace('.', '/')}.py"
        problem = ""
        for result in case:
            if result.tag == "skipped":
                problem = "skipped"
            elif result.tag in ("failure", "error"):
                problem = f"{result.tag}: {result.get('message', '')}"
                break
        name = case.get("name", "").partition("[")[0]
        found.setdefault((path, name), []).append(problem)
    return found


def judge(mutant: Mutant, problem: str, found: dict[tuple[str, str], list[str]]) -> str:
    """Return why a mutant counts as not found, or nothing."""
    if problem:
        return problem
    for test in mutant.tests:
        cases = found.get(split_node_id(test), [])
        failures = [case for case in cases if case.startswith("failure: ")]
        verdicts = [case for case in failures if not _is_no_verdict(case)]
        if not verdicts:
            seen = next(filter(None, cases), "passed" if cases else "did not run")
            return f"survived {test.rpartition('::')[2]}: {seen[:200]}"
    return ""


def _is_no_verdict(case: str) -> bool:
    kind = case.removeprefix("failure: ").partition(":")[0]
    return kind.rpartition(".")[2] in _NO_VERDICT


def check_green(tree: Path, engine: str, mutants: Sequence[Mutant]) -> str:
    """Run the tests of all mutants on the tree as it is, and return what does not pass."""
    tests = sorted({test for one in mutants if engine in one.engines for test in one.tests})
    if not tests:
        return ""
    problem, found = run_tests(tree, engine, tests, GREEN_SECONDS_MAX)
    bad = [f"{name}: {case[:300]}" for (_, name), cases in found.items() for case in cases if case]
    return problem or "; ".join(bad)


def try_mutant(tree: Path, engine: str, mutant: Mutant) -> Verdict:
    """Plant a mutant, run its tests, take it out again."""
    begun = time.monotonic()
    path = tree / mutant.path
    sound = path.read_text()
    try:
        mutant.plant(tree)
        problem = judge(mutant, *run_tests(tree, engine, mutant.tests, MUTANT_SECONDS_MAX))
    except Stale as error:
        problem = str(error)
    finally:
        path.write_text(sound)
        forget_compiled(path)
    return Verdict(mutant, engine, time.monotonic() - begun, problem)


def run_all(mutants: Sequence[Mutant], scratch: Path) -> list[Verdict] | str:
    """Return a verdict on each mutant and engine, or what is wrong with the tree itself."""
    trees: SimpleQueue[Path] = SimpleQueue()
    for number in range(WORKERS):
        trees.put(copy_tree(scratch / f"tree-{number}"))

    def green(engine: str) -> str:
        tree = trees.get()
        try:
            return check_green(tree, engine, mutants)
        finally:
            trees.put(tree)

    def mutated(case: tuple[Mutant, str]) -> Verdict:
        tree = trees.get()
        try:
            verdict = try_mutant(tree, case[1], case[0])
        finally:
            trees.put(tree)
        print(describe(verdict), flush=True)
        return verdict

    with ThreadPoolExecutor(WORKERS) as threads:
        begun = time.monotonic()
        problems = list(threads.map(green, ("sqlite", "postgres")))
        if any(problems):
            return "The tree is not green without a mutant: " + " ".join(filter(None, problems))
        print(f"the tree without a mutant is green ({time.monotonic() - begun:.0f} s)", flush=True)
        return list(threads.map(mutated, [(one, e) for one in mutants for e in one.engines]))


def describe(verdict: Verdict) -> str:
    """Return one line of the table."""
    mutant = verdict.mutant
    outcome = f"NOT FOUND  {verdict.problem}" if verdict.problem else "found"
    return (
        f"{mutant.guards:5} {mutant.name:44} {verdict.engine:9}{verdict.seconds:5.0f} s  {outcome}"
    )


def main(names: Sequence[str]) -> int:
    """Run the mutants with these names, or all, and return the exit status."""
    known = {mutant.name: mutant for mutant in MUTANTS}
    if unknown := set(names) - known.keys():
        print(f"There is no mutant {', '.join(sorted(unknown))}.")
        return 2
    mutants = [known[name] for name in names] or list(MUTANTS)
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="auditing-mutants-") as scratch:
        verdicts = run_all(mutants, Path(scratch))
    if isinstance(verdicts, str):
        print(verdicts)
        return 1
    survivors = [verdict for verdict in verdicts if verdict.problem]
    seconds = time.monotonic() - begun
    print(
        f"{len(mutants)} mutants, {len(verdicts)} runs, {len(survivors)} not found, {seconds:.0f} s"
    )
    for verdict in survivors:
        print(describe(verdict))
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
