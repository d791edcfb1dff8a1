"""The list of faults in the documentation is complete."""

from __future__ import annotations

import re

from tests.support.named_tests import ROOT, functions_of, named_in

TEXT = (ROOT / "docs" / "faults.md").read_text()
NUMBERS = [
    *range(1, 14),
    *range(20, 33),
    *range(40, 46),
    *range(50, 69),
    *range(70, 77),
    *range(90, 98),
    *range(100, 107),
]
WITHOUT = [30, 32]


def test_every_fault_is_listed_once_and_in_order() -> None:
    found = [int(number) for number in re.findall(r"^\| F(\d+) \|", TEXT, re.MULTILINE)]

    assert found == NUMBERS


def test_a_fault_has_a_test_or_a_reason_why_not() -> None:
    rows = re.findall(r"^\| F(\d+) \|.*\| ([^|]+) \|$", TEXT, re.MULTILINE)

    without = [int(number) for number, test in rows if "::test_" not in test]

    assert without == WITHOUT
    assert all(test.startswith("none: ") for number, test in rows if int(number) in WITHOUT)


def test_no_test_of_a_fault_is_left_out() -> None:
    files = sorted((ROOT / "tests" / "faults").glob("test_*.py"))
    written = {name for path in files for name in functions_of(path) if name.startswith("test_")}
    named = {name for path, name in named_in(TEXT) if path.startswith("tests/faults/")}

    # Beside those of a number: that a cap is lowered, that repeats are one call, and that the race
    # can be lost.
    assert written - named == {
        "test_200_clients_without_a_maximum_share_what_is_there",
        "test_64_at_once_over_two_gateways_are_one_call",
        "test_a_dollar_runs_four_calls_without_a_maximum_at_once",
        "test_control_without_the_guard_the_wallet_is_overspent",
    }
