"""What holds for the clients of every dialect, whichever their provider speaks."""

from __future__ import annotations

import time

import pytest

from tests.e2e.dialects import SURFACES, Stages, Surface
from tests.e2e.test_order import LOCKED_SECONDS, nothing_commits
from tests.e2e.wire import RawConnection
from tests.support.bench import INPUT_NANOS, OUTPUT_NANOS
from tests.support.processes import wait_until

# What comes over the wire depends on no engine.
pytestmark = pytest.mark.sqlite


@pytest.fixture(params=SURFACES)
def surface(request: pytest.FixtureRequest) -> Surface:
    """A client of each dialect in turn."""
    return SURFACES[request.param]


def test_the_end_of_a_stream_waits_for_its_charge(stages: Stages, surface: Surface) -> None:
    stage = stages.make("prompt=10,tokens=5,latency=0.3")

    with RawConnection(stage.bench.gateway.port) as connection:
        connection.send(surface.request(stage))
        wait_until(
            lambda: bool(stage.bench.demo.calls(stage.upstream_name)),
            timeout_seconds=5,
            what="the provider's call",
        )
        with nothing_commits(stage):
            calls = stage.upstream_calls
            time.sleep(LOCKED_SECONDS)
            received = connection.read_what_came()
        connection.read_until(surface.end)

    assert [call["ended"] for call in calls] == ["done"]
    assert b"data: " in received
    assert surface.end not in received
    assert stage.settled().charges == (10 * INPUT_NANOS + 5 * OUTPUT_NANOS,)


def test_who_leaves_a_stream_pays_for_what_was_delivered(stages: Stages, surface: Surface) -> None:
    stage = stages.make("prompt=10,tokens=150,pace=0.02")

    with RawConnection(stage.bench.gateway.port) as connection:
        connection.send(surface.request(stage))
        while connection.received.count(b"data: ") < 30:
            assert connection.read_more()

    (row,) = stage.settled().rows
    assert row.state == "client_disconnected"
    (call,) = stage.upstream_calls
    assert call["ended"] == "client_closed"
    # Google tells with every piece what it has come to.
    assert row.usage_source == ("reported" if stages.dialect == "gemini" else "estimated")
    # The demo's words are about a token each.
    assert 10 * OUTPUT_NANOS < row.charge_nanos < 150 * OUTPUT_NANOS


def test_a_whole_answer_and_a_stream_cost_the_same(stages: Stages, surface: Surface) -> None:
    stage = stages.make("prompt=10,tokens=12")

    for is_stream in (False, True):
        with RawConnection(stage.bench.gateway.port) as connection:
            connection.send(surface.request(stage, is_stream=is_stream))
            connection.read_until(surface.end if is_stream else b"}")
        stage.settled(1 + is_stream)

    assert stage.settled(2).charges == (58_000, 58_000)
