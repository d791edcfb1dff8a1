"""Circuits open after failures in a row or too many in all, rest longer each time, and let one
probe through.
"""

from __future__ import annotations

import pytest

from apps.proxy.circuit import (
    CALLS_MIN,
    FAILURES_MAX,
    FORGET_SECONDS,
    PROBE_SECONDS_MAX,
    REST_SECONDS,
    REST_SECONDS_MAX,
    Circuits,
    Door,
)

DOOR = (1, 0)
OTHER = (1, 7)


def _fail(circuits: Circuits, now: float, count: int = 1, begun: float | None = None) -> float:
    """Fail that often at once and return the rest that the last one led to."""
    rest = 0.0
    for _ in range(count):
        rest = circuits.fail(DOOR, now, begun=now if begun is None else begun)
    return rest


def _opened() -> Circuits:
    circuits = Circuits()
    assert _fail(circuits, 0.0, FAILURES_MAX) == REST_SECONDS
    return circuits


def test_failures_in_a_row_open_a_circuit_and_a_success_between_them_does_not() -> None:
    circuits = Circuits()
    _fail(circuits, 0.0, FAILURES_MAX - 1)
    circuits.succeed(DOOR, 0.0, begun=0.0)
    _fail(circuits, 0.0, FAILURES_MAX - 1)

    assert not circuits.is_open(DOOR, 0.0)

    assert _fail(circuits, 0.0) == 30.0

    assert circuits.is_open(DOOR, 0.0)
    assert not circuits.is_open(OTHER, 0.0)


def test_how_many_in_a_row_can_be_said() -> None:
    circuits = Circuits()

    rests = [circuits.fail(DOOR, 0.0, begun=0.0, failures_max=2) for _ in range(2)]

    assert rests == [0.0, 30.0]


def test_a_door_that_fails_every_other_call_opens_when_enough_were_counted() -> None:
    circuits = Circuits()
    calls = 0
    while not circuits.is_open(DOOR, calls):
        if calls % 2 == 0:
            circuits.fail(DOOR, calls, begun=calls)
        else:
            circuits.succeed(DOOR, calls, begun=calls)
        calls += 1

    assert calls == CALLS_MIN + 1


def test_few_errors_among_many_calls_open_nothing() -> None:
    circuits = Circuits()
    for number in range(1_000):
        now = number / 10
        if number % 4 == 0:
            circuits.fail(DOOR, now, begun=now)
        else:
            circuits.succeed(DOOR, now, begun=now)

    assert not circuits.is_open(DOOR, 100.0)


def test_errors_are_forgotten_after_a_minute() -> None:
    circuits = Circuits()
    for number in range(10):
        circuits.fail(DOOR, 0.0, begun=0.0)
        circuits.succeed(DOOR, 0.0, begun=0.0)
        assert not circuits.is_open(DOOR, 0.0), number
        if number == 8:
            break
    circuits.fail(DOOR, 70.0, begun=70.0)
    for _ in range(3):
        circuits.succeed(DOOR, 70.0, begun=70.0)
        circuits.fail(DOOR, 70.0, begun=70.0)

    assert not circuits.is_open(DOOR, 70.0)


def test_a_door_that_is_well_again_leaves_nothing_behind() -> None:
    circuits = Circuits()
    _fail(circuits, 0.0)

    circuits.succeed(DOOR, 10.0, begun=10.0)

    assert not circuits.are_all_closed

    circuits.succeed(DOOR, 70.0, begun=70.0)

    assert circuits.are_all_closed


def test_a_door_tells_when_it_was_tried_since_its_trouble_began() -> None:
    circuits = _opened()

    assert circuits.tried_at(DOOR) == 0.0

    circuits.begin(DOOR, 7.0)  # There was no other.

    assert circuits.tried_at(DOOR) == 7.0
    assert circuits.tried_at(OTHER) == 0.0


def test_after_the_rest_one_probe_goes_through_and_its_success_closes() -> None:
    circuits = _opened()

    assert circuits.is_open(DOOR, REST_SECONDS - 0.1)
    assert not circuits.is_open(DOOR, REST_SECONDS)

    circuits.begin(DOOR, REST_SECONDS)

    assert circuits.is_open(DOOR, REST_SECONDS)

    assert circuits.succeed(DOOR, REST_SECONDS + 1, begun=REST_SECONDS)

    assert not circuits.is_open(DOOR, REST_SECONDS + 1)
    assert dict(circuits.states(REST_SECONDS + 1)) == {DOOR: "closed"}


def test_an_answer_that_begins_closes_what_is_probed_and_counts_for_nothing_else() -> None:
    circuits = _opened()
    circuits.begin(DOOR, REST_SECONDS)

    assert circuits.answer(DOOR, REST_SECONDS + 1, begun=REST_SECONDS)
    assert not circuits.answer(DOOR, REST_SECONDS + 2, begun=REST_SECONDS)
    assert not circuits.answer(OTHER, REST_SECONDS, begun=REST_SECONDS)


def test_a_failed_probe_doubles_the_rest_up_to_its_bound() -> None:
    circuits = _opened()
    now, rests = REST_SECONDS, []
    for _ in range(6):
        circuits.begin(DOOR, now)
        rests.append(_fail(circuits, now))
        assert circuits.is_open(DOOR, now + rests[-1] - 0.1)
        now += rests[-1]
        assert not circuits.is_open(DOOR, now)

    assert rests == [60.0, 120.0, 240.0, 300.0, 300.0, REST_SECONDS_MAX]


def test_calls_that_were_under_way_when_it_opened_do_not_make_the_rest_longer() -> None:
    circuits = _opened()

    assert _fail(circuits, 5.0, 50, begun=-1.0) == 0.0
    assert _fail(circuits, 40.0, 50, begun=3.0) == 0.0

    assert not circuits.is_open(DOOR, REST_SECONDS)


def test_a_call_that_was_under_way_when_it_opened_does_not_close_it() -> None:
    circuits = _opened()

    assert not circuits.succeed(DOOR, 5.0, begun=-1.0)

    assert circuits.is_open(DOOR, 5.0)


def test_a_success_of_a_call_that_had_no_other_door_ends_the_rest() -> None:
    circuits = _opened()

    assert circuits.succeed(DOOR, 5.0, begun=4.0)

    assert not circuits.is_open(DOOR, 5.0)


@pytest.mark.parametrize(("closed_for", "rest"), [(10.0, 60.0), (FORGET_SECONDS + 1, 30.0)])
def test_a_door_that_opens_again_soon_rests_for_longer(closed_for: float, rest: float) -> None:
    circuits = _opened()
    circuits.begin(DOOR, 30.0)
    circuits.succeed(DOOR, 30.0, begun=30.0)

    assert _fail(circuits, 30.0 + closed_for, FAILURES_MAX) == rest


def test_an_abandoned_probe_tells_nothing() -> None:
    circuits = _opened()
    circuits.begin(DOOR, REST_SECONDS)

    circuits.abandon(DOOR)

    assert not circuits.is_open(DOOR, REST_SECONDS)


def test_a_probe_that_never_ends_keeps_the_door_closed_for_a_minute_only() -> None:
    circuits = _opened()
    circuits.begin(DOOR, REST_SECONDS)

    assert circuits.is_open(DOOR, REST_SECONDS + PROBE_SECONDS_MAX - 0.1)
    assert not circuits.is_open(DOOR, REST_SECONDS + PROBE_SECONDS_MAX)


def test_a_rate_limit_rests_a_door_for_as_long_as_asked_and_needs_no_probe() -> None:
    circuits = Circuits()

    circuits.rest(DOOR, 10.0, 7)

    assert circuits.is_open(DOOR, 16.9)
    assert not circuits.is_open(DOOR, 17.0)
    circuits.begin(DOOR, 17.0)
    assert not circuits.is_open(DOOR, 17.0)


def test_a_rest_of_another_process_is_adopted_with_its_openings() -> None:
    circuits = Circuits()

    circuits.adopt(DOOR, 100.0, seconds=20.0, openings=2)

    assert circuits.is_open(DOOR, 119.9)
    circuits.begin(DOOR, 120.0)
    assert circuits.is_open(DOOR, 120.0)
    assert _fail(circuits, 121.0, begun=120.0) == 120.0


def test_a_rest_that_somebody_else_ends_leads_to_a_probe() -> None:
    circuits = _opened()

    circuits.end_rest(DOOR, 5.0)

    assert not circuits.is_open(DOOR, 5.0)
    circuits.begin(DOOR, 5.0)
    assert circuits.is_open(DOOR, 5.0)
    assert _fail(circuits, 6.0, begun=5.0) == 60.0


def test_what_is_gone_or_long_over_is_forgotten_and_nothing_else() -> None:
    circuits = Circuits()
    gone, rested, failing, opened, closed = [(number, 0) for number in range(1, 6)]
    for door in (gone, failing):
        circuits.fail(door, 0.0, begun=0.0)
    circuits.rest(rested, 0.0, 7)
    for door in (opened, closed):
        circuits.adopt(door, 0.0, seconds=5.0, openings=2)
    circuits.succeed(closed, 5.0, begun=5.0)
    known = {rested, failing, opened, closed}

    def doors_left(now: float) -> set[Door]:
        circuits.keep(known, now)
        return {door for door, _ in circuits.states(now)}

    assert doors_left(6.0) == {rested, failing, opened, closed}
    assert doors_left(7.0) == {failing, opened, closed}
    # In a row means in a row, however long it takes; and an open circuit waits for its probe.
    assert doors_left(5.0 + FORGET_SECONDS + 1) == {failing, opened}
    known = set()
    assert doors_left(400.0) == set()
    assert circuits.are_all_closed
