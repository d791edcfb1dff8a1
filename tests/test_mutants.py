"""The mutants can be planted, and docs/invariants.md names each where it belongs.

Whether the tests find them is for `make mutants`.
"""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

from tests.mutants.mutant import Mutant, Stale, split_node_id
from tests.mutants.run import judge
from tests.mutants.table import MUTANTS
from tests.support.cases import for_all

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "invariants.md").read_text()
EXAMPLE = Mutant("example", "I-01", "a.py", "one", "two", ("tests/test_a.py::test_b[c]",))
CASE = ("tests/test_a.py", "test_b")


def test_every_mutant_has_a_name_of_its_own() -> None:
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 15


@for_all("mutant", MUTANTS)
def test_a_mutant_is_a_small_edit_and_names_tests(mutant: Mutant) -> None:
    changed = mutant.apply((ROOT / mutant.path).read_text())

    ast.parse(changed)
    assert len(mutant.old.splitlines()) <= 4
    assert mutant.tests
    for test in mutant.tests:
        path, name = split_node_id(test)
        assert re.search(rf"def {name}\(", (ROOT / path).read_text()), test


def test_each_row_of_the_documentation_names_its_mutants() -> None:
    named: dict[str, list[str]] = defaultdict(list)
    for guards, cells in re.findall(r"^\| (I-\d\d|E\d\d) \|(.*)\|$", TEXT, re.MULTILINE):
        named[guards] += re.findall(r"`([\w-]+)`", cells.rpartition("|")[2])
    planted: dict[str, list[str]] = defaultdict(list)
    for mutant in MUTANTS:
        planted[mutant.guards].append(mutant.name)

    assert {guards: names for guards, names in named.items() if names} == planted


@pytest.mark.parametrize("text", ["", "one one", "1"])
def test_a_text_that_is_not_there_exactly_once_is_stale(text: str) -> None:
    with pytest.raises(Stale):
        EXAMPLE.apply(text)


@pytest.mark.parametrize(
    ("cases", "is_found"),
    [
        (["failure: assert 1 == 2"], True),
        (["", "failure: AssertionError: no"], True),
        (["failure: psycopg.errors.CheckViolation: no"], True),
        ([""], False),
        ([], False),
        (["skipped"], False),
        (["error: failed on setup with: no"], False),
        (["failure: NameError: name 'x' is not defined"], False),
        (["failure: ImportError: cannot import name 'x'"], False),
        (["failure: tests.support.processes.NotReady: too slow"], False),
    ],
)
def test_only_a_failure_of_the_test_itself_counts(cases: list[str], is_found: bool) -> None:
    assert (judge(EXAMPLE, "", {CASE: cases}) == "") == is_found


def test_what_kept_tests_from_running_is_no_verdict() -> None:
    assert judge(EXAMPLE, "not over after 150 s", {}) == "not over after 150 s"
