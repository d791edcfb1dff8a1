"""A host whose clock is off says so, once, and once when it is right again."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import pytest

from apps.billing.host_clock import HostClock
from apps.billing.ledger.store import Engine


class Wrong:
    """The true time and some seconds; `step` passes with each look at it."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.step = 0.0

    def now(self) -> datetime:
        """Return the time that the host shows."""
        shown = datetime.now(UTC) + timedelta(seconds=self.seconds)
        self.seconds += self.step
        return shown


def test_a_clock_that_is_off_is_said_once_and_once_when_it_is_right_again(
    ledger_connect: Callable[[], Engine], caplog: pytest.LogCaptureFixture
) -> None:
    engine, wrong = ledger_connect(), Wrong()
    clock = HostClock(wrong.now)
    offsets = []

    for seconds in (0, -86_400, -86_400, 0, 4, 3_600, 0):
        wrong.seconds = seconds
        clock.compare_clocks(engine)
        offsets.append(round(clock.offset_seconds))

    assert offsets == [0, -86_400, -86_400, 0, 4, 3_600, 0]
    assert caplog.messages == [
        "the clock of this host is 86400 s behind that of the database",
        "the clock of this host and that of the database agree again",
        "the clock of this host is 3600 s ahead of that of the database",
        "the clock of this host and that of the database agree again",
    ]


def test_an_answer_that_takes_long_is_no_wrong_clock(
    ledger_connect: Callable[[], Engine], caplog: pytest.LogCaptureFixture
) -> None:
    wrong = Wrong()
    wrong.seconds, wrong.step = -30.0, 60.0
    clock = HostClock(wrong.now)

    clock.compare_clocks(ledger_connect())

    assert clock.offset_seconds == 0.0
    assert caplog.messages == []
