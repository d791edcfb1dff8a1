"""The list of invariants in the documentation is complete."""

from __future__ import annotations

import re

from auditing.celery import SCHEDULE
from tests.support.named_tests import ROOT

TEXT = (ROOT / "docs" / "invariants.md").read_text()
NUMBERS = [*range(1, 38), *range(40, 46), 65, *range(67, 75)]


def test_every_invariant_is_listed_once_and_in_order() -> None:
    found = [int(number) for number in re.findall(r"^\| I-(\d\d) \|", TEXT, re.MULTILINE)]

    assert found == NUMBERS


def test_heads_are_anchored_at_least_once_a_minute() -> None:
    assert SCHEDULE["billing.anchor_heads"] <= 60


def test_everything_is_verified_within_an_hour_of_being_due() -> None:
    assert SCHEDULE["billing.verify_full"] <= 3600
