"""The list of attacks in the documentation is complete."""

from __future__ import annotations

import re

from tests.support.named_tests import ROOT

TEXT = (ROOT / "docs" / "security-tests.md").read_text()
NUMBERS = [f"{kind}{number}" for kind, last in (("P", 17), ("S", 9), ("K", 10))
           for number in range(1, last + 1)]  # fmt: skip
WITHOUT = ["K3"]


def test_every_attack_is_listed_once_and_in_order() -> None:
    assert re.findall(r"^\| ([PSK]\d+) \|", TEXT, re.MULTILINE) == NUMBERS


def test_an_attack_has_a_test_or_a_reason_why_not() -> None:
    rows = re.findall(r"^\| ([PSK]\d+) \|.*\| ([^|]+) \|$", TEXT, re.MULTILINE)

    without = [number for number, tests in rows if "::test_" not in tests]

    assert without == WITHOUT
    assert all(tests.startswith("none: ") for number, tests in rows if number in WITHOUT)
