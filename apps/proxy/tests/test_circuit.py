"""Circuits open after failures in a row, rest longer each time, and let one probe through."""

from __future__ import annotations

from apps.proxy.circuit import FAILURES_MAX, REST_SECONDS, REST_SECONDS_MAX, Circuits


def _opened() -> Circuits:
    circuits = Circuits()
    for _ in range(FAILURES_MAX):
        circuits.fail(1, 0.0)
    return circuits


def test_failures_in_a_row_open_a_circuit_and_a_success_between_them_does_not() -> None:
    circuits = Circuits()
    for _ in range(FAILURES_MAX - 1):
        circuits.fail(1, 0.0)
    circuits.succeed(1)
    for _ in range(FAILURES_MAX - 1):
        circuits.fail(1, 0.0)

    assert not circuits.is_open(1, 0.0)

    circuits.fail(1, 0.0)

    assert circuits.is_open(1, 0.0)
    assert not circuits.is_open(2, 0.0)


def test_after_the_rest_one_probe_goes_through_and_its_success_closes() -> None:
    circuits = _opened()

    assert circuits.is_open(1, REST_SECONDS - 0.1)
    assert not circuits.is_open(1, REST_SECONDS)

    circuits.begin(1, REST_SECONDS)

    assert circuits.is_open(1, REST_SECONDS)

    circuits.succeed(1)

    assert not circuits.is_open(1, REST_SECONDS)


def test_a_failed_probe_doubles_the_rest_up_to_its_bound() -> None:
    circuits = _opened()
    now, rests = REST_SECONDS, []
    for _ in range(6):
        circuits.begin(1, now)
        circuits.fail(1, now)
        rest = next(s for s in range(1, 1_000) if not circuits.is_open(1, now + s))
        rests.append(rest)
        now += rest

    assert rests == [60, 120, 240, 300, 300, int(REST_SECONDS_MAX)]


def test_an_abandoned_probe_tells_nothing() -> None:
    circuits = _opened()
    circuits.begin(1, REST_SECONDS)

    circuits.abandon(1)

    assert not circuits.is_open(1, REST_SECONDS)


def test_a_rate_limit_rests_a_route_for_as_long_as_asked() -> None:
    circuits = Circuits()

    circuits.rest(1, 10.0, 7)

    assert circuits.is_open(1, 16.9)
    assert not circuits.is_open(1, 17.0)
