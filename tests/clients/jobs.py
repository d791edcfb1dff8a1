"""Jobs for clients: what a test wants them to do with a stage's model and key."""

from __future__ import annotations

from typing import Any

from tests.clients.client import Client, Job, Outcome
from tests.support.bench import Stage


def job_of(stage: Stage, do: str, **values: Any) -> Job:
    """Return a job for a stage's model and key."""
    return {
        "do": do,
        "model": stage.model.name,
        "key": stage.caller.raw,
        "base_url": f"{stage.bench.gateway.url}/v1",
        **values,
    }


def do(client: Client, stage: Stage, what: str, **values: Any) -> Outcome:
    """Have a client do one job that must not fail."""
    (outcome,) = client.do([job_of(stage, what, **values)])
    assert outcome.error is None, outcome.error
    return outcome
