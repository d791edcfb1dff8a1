"""What counts as grown, and what as back to what it was."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.soak.gauges import GROWTH_MAX, SLACK, Reading, by_fifths, growth, is_back

QUIET = Reading(100 << 20, 40, 12, 8, 3, 0, 0, 0)


def test_memory_is_compared_after_the_warm_up() -> None:
    sizes = [mebibytes << 20 for mebibytes in (50, 60, 100, 100, 105, 106, 107, 108, 120, 120)]

    assert by_fifths(sizes) == [55, 100, 105.5, 107.5, 120]
    assert growth(sizes) == 1.2 > GROWTH_MAX


@pytest.mark.parametrize("name", SLACK)
def test_more_than_the_slack_is_a_leak(name: str) -> None:
    value = getattr(QUIET, name)

    assert is_back(QUIET, replace(QUIET, **{name: value + SLACK[name]}))
    assert not is_back(QUIET, replace(QUIET, **{name: value + SLACK[name] + 1}))


@pytest.mark.parametrize("name", ["in_flight", "holds", "bytes_in_flight"])
def test_who_still_works_on_something_is_not_back(name: str) -> None:
    assert not is_back(QUIET, replace(QUIET, **{name: 1}))
