"""What the clients of every dialect can do, whichever their provider speaks, charged to the nano.

What is asked is the same for all; what an answer says, its usage and its errors are what each SDK
shows in its own form. A client does all of it at once.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import pytest

from tests.clients.client import Client, Outcome
from tests.clients.jobs import job_of
from tests.e2e.dialects import PROVIDER_DIALECTS, Stages
from tests.support.bench import Bench, Stage

pytestmark = pytest.mark.long

# The commands of `llm`, each of which takes a second to start, go through OpenAI's SDK.
FAMILIES: Final = {
    "python": "openai",
    "node": "openai",
    "langchain": "openai",
    "responses": "openai",
    "responses-node": "openai",
    "anthropic": "anthropic",
    "anthropic-node": "anthropic",
    "genai": "google",
    "genai-node": "google",
}
TEXT: Final = "This answer costs nothing: it"
PRICES: Final = {
    "input": 1_000_000_000,
    "cache_read": 100_000_000,
    "output": 4_000_000_000,
    "reasoning": 5_000_000_000,
}
# Status, and the classes of OpenAI's, Anthropic's and Google's SDKs.
ERRORS: Final = {
    400: (400, "BadRequestError", "BadRequestError", "ClientError"),
    401: (502, "InternalServerError", "InternalServerError", "ServerError"),
    429: (429, "RateLimitError", "RateLimitError", "ClientError"),
    503: (503, "InternalServerError", "OverloadedError", "ServerError"),
}
# Anthropic's own for who has too much to do.
OVERLOADED: Final = 529
# What an SDK shows of a stream that broke: the error's class, its status, and what tells more.
BROKEN: Final = {
    "python": ("APIError", None, "upstream_interrupted"),
    "node": ("APIError", None, "upstream_interrupted"),
    "langchain": ("APIError", None, "upstream_interrupted"),
    "responses": ("APIError", None, "upstream_interrupted"),
    "responses-node": ("APIError", None, "upstream_interrupted"),
    "anthropic": ("APIStatusError", 200, "api_error"),
    "anthropic-node": ("APIError", None, "api_error"),
    "genai": ("ServerError", 503, "UNAVAILABLE"),
    "genai-node": ("ApiError", 503, "UNAVAILABLE"),
}
Check = Callable[[Stage, Outcome, Client], None]


@dataclass(frozen=True, slots=True)
class Case:
    """What a client does at which model, and what is to become of it."""

    what: str
    wishes: str
    check: Check
    clients: tuple[str, ...] = tuple(FAMILIES)


def price_of(outcome: Outcome) -> tuple[int, ...]:
    """Return what the usages that a client saw cost, in nano-USD."""
    return tuple(
        new * 1_000 + cached * 100 + written * 4_000 + thought * 5_000
        for new, cached, written, thought in outcome.usages
    )


def check_answer(stage: Stage, outcome: Outcome, client: Client) -> None:
    assert (outcome.error, outcome.text) == (None, TEXT)
    assert outcome.usages == ((6, 4, 6, 2),)
    (row,) = stage.settled().rows
    assert outcome.answers == (str(row.pk),)
    assert row.charge_nanos == 6 * 1_000 + 4 * 100 + 6 * 4_000 + 2 * 5_000
    assert row.usage_source == "reported"


def check_tools(stage: Stage, outcome: Outcome, client: Client) -> None:
    assert outcome.error is None
    assert "21 degrees in demo" in outcome.text
    statement = stage.settled(2)
    assert statement.charges == price_of(outcome)
    assert len(statement.charges) == len(stage.upstream_calls) == 2


def check_structured(stage: Stage, outcome: Outcome, client: Client) -> None:
    assert outcome.error is None
    found = {name: type(value) for name, value in outcome.data.items()}
    assert found == {"city": str, "degrees": int}
    assert stage.settled().charges == price_of(outcome)


def check_picture(stage: Stage, outcome: Outcome, client: Client) -> None:
    assert outcome.error is None
    assert outcome.text.startswith(TEXT)
    ((read, *_),) = outcome.usages
    # 85 tokens are the picture, what is left is the question.
    assert 85 < read < 85 + 10
    assert stage.settled().charges == price_of(outcome)


def check_left(stage: Stage, outcome: Outcome, client: Client) -> None:
    """What was made until the client left is paid, and the provider makes no more."""
    assert outcome.error is None
    assert outcome.text.startswith(" more")
    statement = stage.settled()
    assert statement.states == ("client_disconnected",)
    assert outcome.answers == (str(statement.rows[0].pk),)
    assert 1_000 < statement.charges[0] <= statement.rows[0].hold_nanos
    assert statement.entries == (("charge", -statement.charges[0]),)
    assert [call["ended"] for call in stage.upstream_calls] == ["client_closed"]


def check_refused(status: int) -> Check:
    """Return the check that a provider's failure is shown by the SDK's own class."""

    def check(stage: Stage, outcome: Outcome, client: Client) -> None:
        family = FAMILIES[client.name]
        shown, *names = ERRORS[status]
        name = names[("openai", "anthropic", "google").index(family)]
        if status == 503 and family == "anthropic":
            shown = OVERLOADED
        if client.name == "genai-node":
            name = "ApiError"
        assert outcome.error is not None
        assert (outcome.error["status"], outcome.error["class"]) == (shown, name)
        statement = stage.settled()
        assert statement.charges == (0,)
        assert outcome.error["request_id"] == str(statement.rows[0].pk)
        assert outcome.usages == ()

    return check


def check_broken(stage: Stage, outcome: Outcome, client: Client) -> None:
    """A stream that breaks is seen to break; what had come is paid."""
    error = outcome.error
    assert error is not None
    assert (error["class"], error["status"], error["code"] or error["type"]) == BROKEN[client.name]
    assert outcome.text.startswith("This answer")
    assert outcome.usages == ()
    (row,) = stage.settled().rows
    assert row.state == "upstream_interrupted"
    assert outcome.answers == (str(row.pk),)
    assert 0 < row.charge_nanos <= row.hold_nanos


_USUAL: Final = "prompt=10,cached=4,tokens=8,reasoning=2"
_BREAKING: Final = "prompt=10,tokens=20,pace=0.02,fault="
CASES: Final = {
    "a whole answer": Case("plain", _USUAL, check_answer),
    "a stream": Case("stream", _USUAL, check_answer),
    "tools": Case("tools", "tools=on,prompt=10", check_tools),
    "an agent": Case("agent", "tools=on,prompt=10", check_tools, ("responses",)),
    "a schema": Case("structured", "prompt=10", check_structured),
    "a picture": Case("vision", "tokens=8", check_picture),
    "leaving": Case("abort", "prompt=10,pace=0.02,fault=never_end", check_left),
    "a stream that is cut": Case("stream", _BREAKING + "cut_after(8)", check_broken),
    "an error in a stream": Case("stream", _BREAKING + "err_event_mid(8)", check_broken),
    **{
        f"{what}, refused by {status}": Case(what, f"fault=status({status})", check_refused(status))
        for what in ("plain", "stream")
        for status in ERRORS
    },
}


@pytest.mark.parametrize("dialect", PROVIDER_DIALECTS)
@pytest.mark.parametrize("name", FAMILIES)
def test_a_client_does_all_it_can_at_a_provider(
    bench: Bench, clients: dict[str, Client], name: str, dialect: str
) -> None:
    cases = {title: case for title, case in CASES.items() if name in case.clients}
    wishes = [case.wishes for case in cases.values()]
    stages = Stages(bench, dialect).make_all(*wishes, prices=PRICES)
    jobs: list[dict[str, Any]] = [
        job_of(stage, case.what, turns_max=3, retries=0)
        for stage, case in zip(stages, cases.values(), strict=True)
    ]

    outcomes = clients[name].do(jobs, parallel=len(jobs))

    problems: dict[str, str] = {}
    for title, stage, outcome in zip(cases, stages, outcomes, strict=True):
        try:
            cases[title].check(stage, outcome, clients[name])
        except AssertionError as error:
            problems[title] = f"{error}\n{outcome}"
    assert problems == {}
