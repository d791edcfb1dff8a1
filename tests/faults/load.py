"""Calls that go on while something happens, and what is said of those that were refused."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager

from apps.ai_models.models import AIModel
from tests.faults.crowd import Outcome
from tests.faults.site import Payer, Site, chat
from tests.support.gateway import GatewayProcess

ANSWER_SECONDS_MAX = 3.0


@contextmanager
def steady_calls(
    site: Site, gateways: list[GatewayProcess], payer: Payer, model: AIModel, count: int
) -> Iterator[list[Outcome]]:
    """Call each gateway again and again, `count` clients each; filled with outcomes at the end."""
    is_over = False
    outcomes: list[Outcome] = []
    loops: list[Future[list[Outcome]]] = [
        site.crowd.repeat(gateway.url, payer.key, chat(model), until=lambda: is_over)
        for gateway in gateways
        for _ in range(count)
    ]
    try:
        yield outcomes
    finally:
        is_over = True
        for loop in loops:
            outcomes += loop.result(60)


def first_success_after(outcomes: list[Outcome], moment: float) -> float:
    """Return how many seconds after a moment a call that began after it had its answer."""
    began_later = [one for one in outcomes if one.ended_at - one.seconds > moment]
    return min(one.ended_at for one in began_later if one.status == 200) - moment


def check_refusals(outcomes: list[Outcome]) -> None:
    """While the database is away calls are refused quickly, and nobody is told a wrong reason."""
    refused = [one for one in outcomes if one.status != 200]
    assert {one.status for one in refused} == {503}
    assert max(one.seconds for one in refused) < ANSWER_SECONDS_MAX
    # But for those that were waiting when it happened, the refusal comes at once.
    assert sorted(one.seconds for one in refused)[len(refused) // 2] < 0.5
