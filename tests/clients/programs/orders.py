"""How a program takes orders: `{"parallel": 2, "jobs": [{"do": …}]}` in, outcomes out, in order.

A failure that is no error of the SDK ends the program: it is a fault of the program, or worth a
look.
"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

# A try that takes longer is given up by the clients. It bounds, and measures nothing: a call that
# shares two cores with a hundred others may take a minute.
SECONDS_MAX = 300


@dataclass(slots=True)
class Outcome:
    """What a client saw of one job.

    `answers` are the ids of requests that were answered, in order; `usages` are theirs: input,
    cache_read, output, reasoning. An answer that broke off, or was left, has no usage.
    """

    text: str = ""
    data: Any = None
    answers: list[str] = field(default_factory=list)
    usages: list[list[int]] = field(default_factory=list)
    error: dict[str, Any] | None = None

    def see_openai(self, answer: Any) -> None:
        """Take down the id and the usage of an answer of the SDK's own type."""
        self.answers.append(answer._request_id)
        self.see_openai_usage(answer.usage)

    def see_openai_usage(self, usage: Any) -> None:
        """Take down a usage of the SDK's own type."""
        prompt = getattr(usage, "prompt_tokens_details", None)
        completion = getattr(usage, "completion_tokens_details", None)
        cached = (prompt and prompt.cached_tokens) or 0
        reasoning = (completion and completion.reasoning_tokens) or 0
        output = getattr(usage, "completion_tokens", 0)
        self.usages.append([usage.prompt_tokens - cached, cached, output - reasoning, reasoning])


def root_of(job: Mapping[str, Any]) -> str:
    """Return the base URL of SDKs that add the version by themselves."""
    return str(job["base_url"]).removesuffix("/v1")


def tell_openai_error(error: Any, class_name: str) -> dict[str, Any]:
    """Return what an error of OpenAI's SDK shows."""
    return {
        "class": class_name,
        "status": getattr(error, "status_code", None),
        "code": error.code,
        "type": error.type,
        "param": error.param,
        "request_id": getattr(error, "request_id", None),
    }


def serve(run: Callable[[dict[str, Any], Outcome], Awaitable[None]]) -> None:
    """Take orders until there are no more."""
    # One loop for all orders: LangChain keeps connections from one client to the next.
    with asyncio.Runner() as runner:
        for line in sys.stdin:
            order = json.loads(line)
            outcomes = runner.run(_run_all(run, order["jobs"], order["parallel"]))
            print(json.dumps([asdict(outcome) for outcome in outcomes]), flush=True)


async def _run_all(
    run: Callable[[dict[str, Any], Outcome], Awaitable[None]],
    jobs: list[dict[str, Any]],
    parallel: int,
) -> list[Outcome]:
    gate = asyncio.Semaphore(parallel)
    outcomes = [Outcome() for _ in jobs]

    async def one(job: dict[str, Any], outcome: Outcome) -> None:
        async with gate:
            await run(job, outcome)

    await asyncio.gather(*(one(*pair) for pair in zip(jobs, outcomes, strict=True)))
    return outcomes
