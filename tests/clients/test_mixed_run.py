"""All clients at once, at providers of all dialects: what each saw of usage, priced, is what the
ledger took, call by call.

CALLS (2000) says how many calls; one in a hundred is a command of `llm`, which takes a second to
start. Every call is joined by its id with its record and its entry, to the nano:

- an answer that came whole is charged what its client was told of usage, at the prices below;
- one that its client left, or that its provider broke off, is charged the input as it is counted,
  or was told at the beginning, and the words that had come;
- a refusal, and each try that the SDK repeated by itself, is charged nothing.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final

import pytest

from apps.audit.models import APIRequest
from apps.billing.models import Entry, Hold
from apps.providers.models import Provider
from tests.clients.client import Client, Outcome
from tests.clients.jobs import job_of
from tests.e2e.conftest import counting
from tests.e2e.dialects import PROVIDER_DIALECTS, Stages
from tests.support.bench import DOLLAR, Bench, Caller, Stage
from tests.support.processes import wait_until

__all__ = ["counting"]

Kind = tuple[str, str, dict[str, Any]]  # what is done, with which of MODELS, and how
Record = tuple[str, int]  # how a call ended, and its charge

CALLS: Final = int(os.environ.get("CALLS", "2000"))
SEED: Final = 20_261_129
WALLET_NANOS: Final = 1_000 * DOLLAR
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
    "failing": "demo-chat:fault=status(400)",
    "left": "demo-chat:prompt=10,fault=stall_after({left})",
    "broken": "demo-chat:prompt=10,fault=cut_after({broken})",
}
EMBEDDING: Final = "demo-embedding:prompt=7"
# How many events of a dialect there are until a word was told.
WORDS_BEGIN: Final = {"anthropic": 4, "gemini": 1, "openai": 2, "openai-responses": 5}
# The command shows only the id of an answer, which Google's whole answers tell nowhere else.
OF_COMMANDS: Final = tuple(name for name in PROVIDER_DIALECTS if name != "gemini")
# Each job has a model of its own, so that each is tried three times.
FLAKY: Final = "demo-chat-flaky-{}:prompt=7,fault=flaky(2)"
FLAKY_FAILURES: Final = 2
CHATS: Final[tuple[Kind, ...]] = (
    ("plain", "usual", {}),
    ("plain", "cached", {}),
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
    ("plain", "cached", {"options": {"max_tokens": 20}}),
    ("abort", "left", {}),
    ("stream", "broken", {}),
)
# What only providers of OpenAI's Chat Completions do.
OPENAIS: Final[tuple[Kind, ...]] = (
    ("plain", "cached", {"options": {"n": 2}}),
    ("completion", "usual", {}),
    ("embeddings", "embedding", {}),
)
KINDS: Final[dict[str, tuple[Kind, ...]]] = {
    "python": (*SDKS, *OPENAIS),
    "node": (*SDKS, *OPENAIS),
    "langchain": SDKS,
    "llm": CHATS,
    "responses": (*SDKS, ("agent", "tools", {"turns_max": 3})),
    **dict.fromkeys(("responses-node", "anthropic", "anthropic-node", "genai", "genai-node"), SDKS),
}
# How many of a hundred calls a client makes, and how many at once.
SHARES: Final = {
    "python": (14, 6),
    "node": (14, 6),
    "langchain": (11, 4),
    "llm": (1, 2),
    **dict.fromkeys(("responses", "responses-node", "anthropic", "anthropic-node"), (10, 5)),
    **dict.fromkeys(("genai", "genai-node"), (10, 5)),
}
# Where no usage came, input and words are counted: "Say something." is ten tokens with its frame.
COUNTED: Final = {"left": (10, 0, 1, 0), "broken": (10, 0, 3, 0)}
STATES: Final = {"left": "client_disconnected", "broken": "upstream_interrupted"}
_SETTLED_SECONDS: Final = 60
# Before the id of an answer, where a client shows only that.
_PREFIX: Final = re.compile("^(?:chatcmpl-|msg_|resp_)")


@dataclass(slots=True)
class Run:
    """What one client does, and what it saw."""

    name: str
    caller: Caller
    chosen: list[Kind]
    models: list[str]  # of each job
    dialects: list[str]  # that their providers speak
    outcomes: list[Outcome] = field(default_factory=list)

    def count(self, model: str) -> int:
        """Return how many jobs are done with one of MODELS."""
        return sum(name == model for _, name, _ in self.chosen)


@pytest.mark.long
@pytest.mark.usefixtures("counting")
@pytest.mark.parametrize("calls", [CALLS])
def test_what_clients_saw_is_what_the_ledger_took(
    bench: Bench, clients: dict[str, Client], calls: int
) -> None:
    stages = {dialect: _make_stages(bench, dialect) for dialect in PROVIDER_DIALECTS}
    runs = [_prepare(bench, stages, name, -(-calls * SHARES[name][0] // 100)) for name in clients]
    bench.make_caller()  # What is configured is seen in its order.

    def run(one: Run) -> list[Outcome]:
        stage = stages["openai"]["usual"]
        jobs = [
            job_of(stage, what, **values, model=model, key=one.caller.raw)
            for (what, _, values), model in zip(one.chosen, one.models, strict=True)
        ]
        return clients[one.name].do(jobs, parallel=SHARES[one.name][1])

    with ThreadPoolExecutor(len(runs)) as threads:
        for one, outcomes in zip(runs, threads.map(run, runs), strict=True):
            one.outcomes = outcomes

    assert sum(len(one.outcomes) for one in runs) >= calls
    problems: dict[str, str] = {}
    for one in runs:
        try:
            _check_outcomes(one)
            _check_books(bench, one)
        except AssertionError as error:
            problems[one.name] = str(error)
    assert problems == {}


def _make_stages(bench: Bench, dialect: str) -> dict[str, Stage]:
    """Return a stage for each of MODELS, at a provider that speaks a dialect."""
    begin = WORDS_BEGIN[dialect]
    names = [name.format(left=begin, broken=begin + 2) for name in MODELS.values()]
    provider = Stages(bench, dialect).make_provider()
    made = bench.stages(*names, provider=provider, prices=PRICES)
    stages = dict(zip(MODELS, made, strict=True))
    if dialect == "openai":
        stages["embedding"] = bench.stage(EMBEDDING, provider=provider, prices=PRICES)
    return stages


def _prepare(bench: Bench, stages: Mapping[str, Mapping[str, Stage]], name: str, count: int) -> Run:
    """Return so many jobs, each kind and dialect about as often, in an order that is always the
    same.
    """
    kinds = KINDS[name]
    dialects = OF_COMMANDS if name == "llm" else PROVIDER_DIALECTS
    chosen: list[tuple[Kind, str]] = []
    for at in range(count):
        kind = kinds[at % len(kinds)]
        dialect = dialects[(at + at // len(kinds)) % len(dialects)]
        chosen.append((kind, "openai" if kind in OPENAIS else dialect))
    random.Random(SEED).shuffle(chosen)
    models = [
        bench.make_model(
            FLAKY.format(f"{name}-{at}"),
            prices=PRICES,
            provider=Provider.objects.get(routes__model=stages[dialect]["usual"].model),
        ).name
        if model == "flaky"
        else stages[dialect][model].model.name
        for at, ((_, model, _), dialect) in enumerate(chosen)
    ]
    return Run(
        name,
        bench.make_caller(wallet_nanos=WALLET_NANOS),
        [kind for kind, _ in chosen],
        models,
        [dialect for _, dialect in chosen],
    )


def _check_outcomes(run: Run) -> None:
    """Check that all went well but what was to fail, and that nothing was seen in part."""
    for (what, model, _), outcome in zip(run.chosen, run.outcomes, strict=True):
        about = (run.name, what, model, outcome)
        if model == "failing":
            assert outcome.error is not None, about
            assert (outcome.error["status"], outcome.usages) == (400, ()), about
        elif model == "broken":
            assert outcome.error is not None, about
            told = outcome.error["code"] or outcome.error["type"]
            assert told in ("upstream_interrupted", "api_error", "UNAVAILABLE"), about
            assert (len(outcome.answers), outcome.usages) == (1, ()), about
        else:
            assert outcome.error is None, about
            whole = {"tools": 2, "agent": 2, "abort": 0}.get(what, 1)
            assert len(outcome.usages) == whole, about
            assert len(outcome.answers) == max(1, whole), about


def _check_books(bench: Bench, run: Run) -> None:
    """Check the records and entries of a client's calls against what it saw, one by one."""
    expected = _expect(run)
    tries = FLAKY_FAILURES * run.count("flaky")
    # The command prints no id of what was refused.
    unnamed = tries + (run.count("failing") if run.name == "llm" else 0)
    rows = _read_rows(run.caller, len(expected) + unnamed)

    found = {name: row for row in rows for name in _names_of(row)}
    named = {
        name: (found[name].state, found[name].charge_nanos) if name in found else None
        for name in expected
    }
    assert named == expected
    left = {row.pk for row in rows} - {found[name].pk for name in expected}
    assert (len(left), len(rows)) == (unnamed, len(expected) + unnamed)
    assert {(row.state, row.charge_nanos) for row in rows if row.pk in left} <= {("failed", 0)}

    charges = {row.pk: row.charge_nanos for row in rows if row.charge_nanos}
    entries = Entry.objects.filter(account__customer_id=run.caller.user.customer_id)
    taken = entries.exclude(request_id=None).values_list("request_id", "kind", "amount_nanos")
    assert sorted(taken) == sorted((pk, "charge", -charge) for pk, charge in charges.items())

    total = sum(charge for _, charge in expected.values())
    statement = bench.statement(run.caller)
    assert statement.posted_nanos == WALLET_NANOS - total
    assert (statement.held_nanos, statement.holds, statement.owed_nanos) == (0, 0, 0)


def _expect(run: Run) -> dict[str, Record]:
    """Return what is to be on record of each call whose id the client saw."""
    found: dict[str, Record] = {}
    for (_, model, _), outcome in zip(run.chosen, run.outcomes, strict=True):
        if model in COUNTED:
            (name,) = outcome.answers
            found[name] = (STATES[model], _price(COUNTED[model]))
        elif outcome.error is None:
            pairs = zip(outcome.answers, outcome.usages, strict=True)
            found |= {_PREFIX.sub("", name): ("completed", _price(usage)) for name, usage in pairs}
        elif run.name != "llm":
            found[outcome.error["request_id"]] = ("failed", 0)
    return found


def _price(usage: Sequence[int]) -> int:
    """Return what a usage costs: rounded up once."""
    millionths = sum(tokens * price for tokens, price in zip(usage, PRICES.values(), strict=True))
    return -(-millionths // 1_000_000)


def _read_rows(caller: Caller, count: int) -> list[APIRequest]:
    """Return a caller's rows when there are so many, and nothing is held for more."""
    rows = APIRequest.objects.filter(user_id=caller.user.pk)
    holds = Hold.objects.filter(customer_id=caller.user.customer_id)
    wait_until(
        lambda: rows.count() >= count and not holds.exists(),
        timeout_seconds=_SETTLED_SECONDS,
        what=f"the end of {count} calls",
    )
    return list(rows)


def _names_of(row: APIRequest) -> tuple[str, str]:
    """Return what clients may call a call: its id, or the one that the provider gave its answer."""
    return str(row.pk), row.upstream_request_id.removeprefix("req_")
