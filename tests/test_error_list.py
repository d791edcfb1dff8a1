"""The list of error rows in the documentation is complete, and the tests that it names exist."""

from __future__ import annotations

import re
from pathlib import Path

from apps.core import error_rows
from tests.support.cases import for_all
from tests.test_faults import functions_of

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "docs" / "error-tests.md").read_text()
NUMBERS = [*range(1, 38), *range(40, 55), *range(60, 67), 70, 71]
ROWS = [f"E{number:02}" for number in NUMBERS] + [f"T{number}" for number in range(1, 9)]
NAMED = sorted(set(re.findall(r"`([\w/]+\.py)::(\w+)`", TEXT)))
# What is no error: the first answer again, an answer that is made a stream, a stream that goes on
# to its end, and one that is settled later.
NO_ERRORS = {"E30", "E50", "E63", "E65"}


def test_every_row_is_listed_once_and_in_order() -> None:
    assert re.findall(r"^\| ([ET]\d+) \|", TEXT, re.MULTILINE) == ROWS
    assert {row for row in ROWS if row.startswith("E")} - NO_ERRORS == set(error_rows.ROWS)


@for_all(("path", "name"), NAMED)
def test_the_named_test_exists(path: str, name: str) -> None:
    assert name in functions_of(ROOT / path)


def test_each_row_has_a_test() -> None:
    rows = re.findall(r"^\| ([ET]\d+) \|(?:[^|]*\|)? ([^|]+) \|$", TEXT, re.MULTILINE)

    assert len(rows) == len(ROWS)
    assert [row for row, tests in rows if "::" not in tests] == []


def test_the_code_raises_every_row_that_is_sent_and_no_other() -> None:
    paths = [
        path
        for path in (ROOT / "apps").rglob("*.py")
        if "tests" not in path.parts and path.name != "error_rows.py"
    ]
    named = {row for path in paths for row in re.findall(r'"(E\d\d)"', path.read_text())}

    assert {row for row in error_rows.ROWS if error_rows.ROWS[row].is_sent} == (
        named & set(error_rows.ROWS)
    )
