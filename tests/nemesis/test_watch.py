"""What a gateway may take more of in one life: the bounds, and a control."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.nemesis.watch import (
    FDS_GROWTH_MAX,
    RSS_GROWTH_BYTES_MAX,
    THREADS_GROWTH_MAX,
    compare,
)
from tests.soak.gauges import Reading

EARLY = Reading(130 << 20, 45, 20, 30, 3, 5, 5, 0)


@pytest.mark.parametrize(
    ("name", "growth"),
    [
        ("resident_bytes", RSS_GROWTH_BYTES_MAX),
        ("descriptors", FDS_GROWTH_MAX),
        ("threads", THREADS_GROWTH_MAX),
    ],
)
def test_more_than_its_growth_is_a_finding(name: str, growth: int) -> None:
    value = getattr(EARLY, name)

    assert compare("a", EARLY, replace(EARLY, **{name: value + growth})) == []
    assert len(compare("a", EARLY, replace(EARLY, **{name: value + growth + 1}))) == 1
