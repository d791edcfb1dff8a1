"""The schedule of faults: pure, from a seed alone."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tests.nemesis.schedule import CALM_SECONDS, Kind, plan_faults

KINDS = [
    Kind("kill", ("gateway a", "gateway b"), 1.0, 8.0),
    Kind("freeze", ("gateway a", "gateway b"), 8.0, 16.0),
    Kind("kill", ("database",), 2.0, 12.0),
    Kind("freeze", ("database",), 2.0, 20.0),
    Kind("jump", ("clock a",), 5.0, 20.0),
    Kind("kill", ("redis",), 2.0, 15.0),
]


def test_a_seed_gives_the_same_schedule_again_and_another_seed_another_one() -> None:
    assert plan_faults(7, 300, KINDS) == plan_faults(7, 300, KINDS)
    assert plan_faults(7, 300, KINDS) != plan_faults(8, 300, KINDS)


@pytest.mark.parametrize("seconds", [90, 180, 1800])
def test_the_end_is_calm_and_nothing_is_harmed_twice_at_once(seconds: float) -> None:
    for seed in range(50):
        planned = plan_faults(seed, seconds, KINDS)

        assert max(one.at + one.seconds for one in planned) <= seconds - CALM_SECONDS + 0.1
        for target in {one.target for one in planned}:
            of_target = [one for one in planned if one.target == target]
            assert all(a.at + a.seconds < b.at for a, b in pairwise(of_target))


def test_a_short_run_has_faults_of_different_kinds() -> None:
    for seed in range(50):
        planned = plan_faults(seed, 90, KINDS)

        assert len({(one.kind, one.target.split()[0]) for one in planned}) >= 4
