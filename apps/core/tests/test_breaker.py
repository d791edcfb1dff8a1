"""The breaker opens, probes and closes by the clock it is given."""

from apps.core.breaker import Breaker
from tests.support.clocks import Clock


def test_only_the_third_failure_in_a_row_opens_it() -> None:
    breaker = Breaker(clock=Clock(100.0))

    opened = [breaker.record_failure(), breaker.record_failure()]
    breaker.record_success()
    opened += [breaker.record_failure(), breaker.record_failure(), breaker.record_failure()]

    assert opened == [False, False, False, False, True]
    assert breaker.is_open
    assert not breaker.allows()


def test_an_open_breaker_lets_one_probe_through_every_five_seconds() -> None:
    clock = Clock(100.0)
    breaker = Breaker(clock=clock)
    for _ in range(3):
        breaker.record_failure()

    clock.now = 104.9
    before = breaker.allows()
    clock.now = 105.0
    probes = [breaker.allows(), breaker.allows()]
    breaker.record_failure()
    clock.now = 109.9
    after_failed_probe = breaker.allows()
    clock.now = 110.0
    next_probe = breaker.allows()

    assert (before, probes, after_failed_probe, next_probe) == (False, [True, False], False, True)


def test_a_probe_that_succeeds_closes_it_for_everybody() -> None:
    clock = Clock(100.0)
    breaker = Breaker(clock=clock)
    for _ in range(3):
        breaker.record_failure()
    clock.now = 105.0

    assert breaker.allows()
    assert breaker.record_success()
    assert not breaker.record_success()
    assert [breaker.allows(), breaker.allows()] == [True, True]
