"""All clients at once: what they saw of usage, priced, is what the ledger took, to the nano.

CALLS (2000) says how many calls; one in a hundred is a command of `llm`, which takes a second to
start.
"""

from __future__ import annotations

import os
import random
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

import pytest

from tests.clients.client import Client, Outcome
from tests.clients.jobs import job_of
from tests.support.bench import DOLLAR, Bench, Stage

Kind = tuple[str, str, dict[str, Any]]  # what is done, with which of MODELS, and how

CALLS: Final = int(os.environ.get("CALLS", "2000"))
# Far more than an idle machine takes: this bounds, and measures nothing.
SECONDS_MAX: Final = 300 + CALLS // 4
SEED: Final = 20_261_129
# Prices that no usage divides.
PRICES: Final = {
    "input": 1_234_567_891,
    "cache_read": 123_456_789,
    "output": 4_321_987_653,
    "reasoning": 5_432_198_767,
}
MODELS: Final = {
    "usual": "demo-chat:prompt=11",
    "cached": "demo-chat:prompt=97,cached=31,tokens=40,reasoning=13",
    "tools": "demo-chat:tools=on,prompt=23",
    "flaky": "demo-chat:prompt=7,fault=flaky(2)",
    "failing": "demo-chat:fault=status(400)",
    "embedding": "demo-embedding:prompt=7",
}
CHATS: Final[tuple[Kind, ...]] = (
    ("plain", "usual", {}),
    ("plain", "cached", {}),
    ("plain", "usual", {"options": {"max_tokens": 3}}),
    ("stream", "usual", {}),
    ("stream", "cached", {}),
    ("tools", "tools", {"turns_max": 3}),
    ("structured", "usual", {}),
    ("vision", "cached", {}),
    ("plain", "flaky", {}),
    ("plain", "failing", {}),
)
SDKS: Final[tuple[Kind, ...]] = (
    *CHATS,
    ("plain", "cached", {"options": {"n": 2}}),
    ("completion", "usual", {}),
    ("embeddings", "embedding", {}),
)
COMMANDS: Final = tuple(chat for chat in CHATS if not chat[2].get("options"))
# How many of a hundred calls a client makes, and how many at once.
SHARES: Final = {"python": (45, 12), "node": (39, 12), "langchain": (15, 8), "llm": (1, 2)}
KINDS: Final = {"python": SDKS, "node": SDKS, "langchain": CHATS, "llm": COMMANDS}


@pytest.mark.long
@pytest.mark.parametrize("calls", [CALLS])
def test_what_clients_saw_is_what_the_ledger_took(
    bench: Bench, clients: dict[str, Client], calls: int
) -> None:
    stages = {
        name: dict(zip(MODELS, bench.stages(*MODELS.values(), prices=PRICES), strict=True))
        for name in clients
    }
    callers = {name: bench.make_caller(wallet_nanos=1_000 * DOLLAR) for name in clients}
    chosen = {name: _choose(name, -(-calls * share // 100)) for name, (share, _) in SHARES.items()}
    begun = time.monotonic()

    def run(name: str) -> list[Outcome]:
        jobs = [
            job_of(stages[name][model], what, **values, key=callers[name].raw)
            for what, model, values in chosen[name]
        ]
        return clients[name].do(jobs, parallel=SHARES[name][1])

    with ThreadPoolExecutor(len(clients)) as threads:
        outcomes = dict(zip(clients, threads.map(run, clients), strict=True))

    assert time.monotonic() - begun < SECONDS_MAX
    assert sum(len(found) for found in outcomes.values()) >= calls
    for name, found in outcomes.items():
        _check_outcomes(chosen[name], found)
        seen = [usage for outcome in found for usage in outcome.usages]
        assert len(seen) >= len(found) * 3 // 4, name
        expected = sorted(_price(usage) for usage in seen)
        statement = bench.settled(callers[name], len(seen))
        assert sorted(charge for charge in statement.charges if charge) == expected, name
        assert sorted(-amount for _, amount in statement.entries) == expected
        assert statement.posted_nanos == 1_000 * DOLLAR - sum(expected)
        assert (statement.held_nanos, statement.holds, statement.owed_nanos) == (0, 0, 0)
    _check_retries(stages["python"]["flaky"])


def _choose(name: str, count: int) -> list[Kind]:
    """Return so many jobs, each kind about as often, in an order that is always the same."""
    kinds = KINDS[name]
    jobs = [kinds[at % len(kinds)] for at in range(count)]
    random.Random(SEED).shuffle(jobs)
    return jobs


def _check_outcomes(chosen: list[Kind], found: list[Outcome]) -> None:
    """Check that all succeeded but those whose provider refuses their input."""
    for (what, model, _), outcome in zip(chosen, found, strict=True):
        if model == "failing":
            assert outcome.error is not None
            assert outcome.error["status"] == 400
            assert outcome.usages == ()
        else:
            assert outcome.error is None, (what, model, outcome.error)
            assert len(outcome.usages) == {"tools": 2}.get(what, 1)


def _price(usage: tuple[int, int, int, int]) -> int:
    """Return what a usage costs: rounded up once."""
    millionths = sum(tokens * price for tokens, price in zip(usage, PRICES.values(), strict=True))
    return -(-millionths // 1_000_000)


def _check_retries(stage: Stage) -> None:
    """Check that the provider did fail, and that the clients tried again by themselves."""
    statuses = [call["status"] for call in stage.upstream_calls]
    assert statuses.count(500) == 2
    assert statuses.count(200) > 0
