"""Row E37 as clients meet it: a gateway that has no room for a call."""

from __future__ import annotations

import pytest

from tests.clients.client import Client
from tests.clients.jobs import job_of
from tests.clients.refusals import refusals, subtract
from tests.support.bench import Bench
from tests.support.gateway import FAST

pytestmark = pytest.mark.long

CONSTANTS = {**FAST, "apps.proxy.weight:BYTES_IN_FLIGHT_MAX": 100_000}


@pytest.mark.parametrize("name", ["python", "node", "langchain"])
def test_e37_a_full_gateway_is_tried_three_times(
    bench: Bench, clients: dict[str, Client], name: str
) -> None:
    stage = bench.stage()
    before = refusals(bench)

    (outcome,) = clients[name].do([job_of(stage, "plain", options={"user": "x" * 20_000})])

    assert outcome.error is not None
    assert (outcome.error["status"], outcome.error["code"]) == (503, "server_is_overloaded")
    assert subtract(refusals(bench), before) == {("E37", "server_is_overloaded"): 3}
    assert stage.bench.statement(stage.caller).rows == ()
    assert stage.upstream_calls == []
