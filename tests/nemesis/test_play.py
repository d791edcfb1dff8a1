"""The player of a schedule: faults of one thing take turns."""

from __future__ import annotations

import time
from random import Random

from tests.nemesis.faults import Simple
from tests.nemesis.play import Play
from tests.nemesis.schedule import Planned

HEAL_SECONDS = 0.6


def test_a_fault_begins_when_the_one_before_it_is_healed_or_is_left_out() -> None:
    told: list[tuple[str, float]] = []

    def make(kind: str, target: str, random: Random) -> Simple:
        def heal() -> None:
            if kind == "slow":
                time.sleep(HEAL_SECONDS)
            told.append((f"{kind} {target} healed", time.monotonic()))

        return Simple(lambda: told.append((f"{kind} {target}", time.monotonic())), heal)

    schedule = [
        Planned(0.0, 0.1, "slow", "database"),
        Planned(0.2, 0.1, "kill", "redis"),
        Planned(0.3, 1.2, "cut", "database"),
        Planned(1.6, 0.1, "slow", "gateway"),
        Planned(1.7, 0.1, "kill", "gateway"),
    ]
    play = Play(schedule, 1, make)
    play.start()
    play.wait(2.0)

    names = [name for name, _ in told]
    assert names.index("kill redis") < names.index("slow database healed")
    assert names.index("slow database healed") < names.index("cut database")
    assert [one.target for one in play.left_out] == ["gateway"]
    assert (play.problems, len(play.happened)) == ([], 4)
