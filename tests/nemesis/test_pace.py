"""That calls which stay slow after the faults are found, and those that are not are left alone."""

from __future__ import annotations

from tests.nemesis.pace import check_pace
from tests.nemesis.seen import Seen


def calls(count: int, began: float, seconds: float, *, is_stream: bool = False) -> list[Seen]:
    return [
        Seen(
            "plain", is_ordinary=True, is_stream=is_stream, began=began, seconds=seconds,
            status=200, is_whole=True,
        )
        for _ in range(count)
    ]  # fmt: skip


def test_calls_that_stay_slow_after_the_faults_are_found() -> None:
    before = calls(100, 1.0, 0.5)
    report: list[str] = []

    assert check_pace([*before, *calls(100, 60.0, 2.5)], 10.0, 60.0, report) == []
    assert len(check_pace([*before, *calls(100, 60.0, 2.6)], 10.0, 60.0, report)) == 1
    assert report == [
        "p99 of whole answers 0.50 s before the faults (100 calls), 2.50 s after (100): 5.00 x",
        "p99 of whole answers 0.50 s before the faults (100 calls), 2.60 s after (100): 5.20 x",
    ]


def test_what_is_slow_during_the_faults_or_by_itself_does_not_count() -> None:
    well = [*calls(100, 1.0, 0.5), *calls(99, 60.0, 0.5)]
    others = [
        *calls(1, 60.0, 25.0),  # one of a hundred
        *calls(100, 9.9, 25.0),
        *calls(100, 60.0, 25.0, is_stream=True),
    ]

    assert check_pace([*well, *others], 10.0, 60.0, []) == []


def test_without_calls_nothing_is_proved() -> None:
    assert len(check_pace(calls(100, 1.0, 0.5), 10.0, 60.0, [])) == 1
