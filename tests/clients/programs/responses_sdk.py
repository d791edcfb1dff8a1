"""OpenAI's Python SDK that creates responses, and its agents that do: reads orders, one JSON line
each, and prints what it saw.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import openai
from agents import Agent, OpenAIResponsesModel, Runner, function_tool, set_tracing_disabled
from calls import PICTURE, PROMPT, QUESTION, TOOL, Weather, call_tool
from openai import AsyncOpenAI
from orders import SECONDS_MAX, Outcome, serve, tell_openai_error


@function_tool
def find_weather(city: str) -> str:
    """Tell the weather of a city."""
    return call_tool("find_weather", {"city": city})


async def run(job: dict[str, Any], outcome: Outcome) -> None:
    """Do one job, with connections that the next ones use, too."""
    options = {"max_retries": job["retries"]} if "retries" in job else {}
    client = _first_client().with_options(
        api_key=job["key"], base_url=job["base_url"], timeout=SECONDS_MAX, **options
    )
    try:
        await _JOBS[job["do"]](client, job, outcome)
    except openai.APIError as error:
        outcome.error = tell_openai_error(error, type(error).__name__)


@cache
def _first_client() -> AsyncOpenAI:
    # Else it tells OpenAI of each run.
    set_tracing_disabled(True)
    return AsyncOpenAI(api_key="of each job")


def _see(outcome: Outcome, answer: Any) -> None:
    outcome.answers.append(answer._request_id)
    _see_usage(outcome, answer.usage)
    outcome.text = answer.output_text


def _see_usage(outcome: Outcome, usage: Any) -> None:
    cached = usage.input_tokens_details.cached_tokens
    reasoning = usage.output_tokens_details.reasoning_tokens
    outcome.usages.append(
        [usage.input_tokens - cached, cached, usage.output_tokens - reasoning, reasoning]
    )


async def _plain(client: AsyncOpenAI, job: dict[str, Any], outcome: Outcome) -> None:
    options = dict(job.get("options", {}))
    if "max_tokens" in options:
        options["max_output_tokens"] = options.pop("max_tokens")
    _see(outcome, await client.responses.create(model=job["model"], input=PROMPT, **options))


async def _stream(client: AsyncOpenAI, job: dict[str, Any], outcome: Outcome) -> None:
    stream: Any = await client.responses.create(model=job["model"], input=PROMPT, stream=True)
    outcome.answers.append(stream.response.headers["x-request-id"])
    async for event in stream:
        if event.type == "response.output_text.delta":
            outcome.text += event.delta
        elif event.type == "response.completed":
            _see_usage(outcome, event.response.usage)


async def _abort(client: AsyncOpenAI, job: dict[str, Any], outcome: Outcome) -> None:
    stream: Any = await client.responses.create(model=job["model"], input=PROMPT, stream=True)
    outcome.answers.append(stream.response.headers["x-request-id"])
    async with stream:
        async for event in stream:
            if event.type == "response.output_text.delta":
                outcome.text += event.delta
                return


async def _tools(client: AsyncOpenAI, job: dict[str, Any], outcome: Outcome) -> None:
    tool: Any = {"type": "function", **TOOL["function"], "strict": False}
    items: list[Any] = [{"role": "user", "content": PROMPT}]
    for _ in range(job["turns_max"]):
        answer = await client.responses.create(model=job["model"], input=items, tools=[tool])
        _see(outcome, answer)
        calls = [item for item in answer.output if item.type == "function_call"]
        if not calls:
            return
        items += answer.output
        for call in calls:
            told = call_tool(call.name, call.arguments)
            items.append({"type": "function_call_output", "call_id": call.call_id, "output": told})


async def _agent(client: AsyncOpenAI, job: dict[str, Any], outcome: Outcome) -> None:
    model = OpenAIResponsesModel(model=job["model"], openai_client=client)
    agent = Agent(name="forecaster", model=model, tools=[find_weather])
    result = await Runner.run(agent, PROMPT, max_turns=job["turns_max"])
    for answer in result.raw_responses:
        assert answer.request_id is not None
        outcome.answers.append(answer.request_id)
        _see_usage(outcome, answer.usage)
    outcome.text = result.final_output


async def _structured(client: AsyncOpenAI, job: dict[str, Any], outcome: Outcome) -> None:
    answer = await client.responses.parse(model=job["model"], input=PROMPT, text_format=Weather)
    assert isinstance(answer.output_parsed, Weather)
    outcome.data = answer.output_parsed.model_dump()
    _see(outcome, answer)


async def _vision(client: AsyncOpenAI, job: dict[str, Any], outcome: Outcome) -> None:
    content = [
        {"type": "input_text", "text": QUESTION},
        {"type": "input_image", "image_url": PICTURE, "detail": "auto"},
    ]
    items: Any = [{"role": "user", "content": content}]
    _see(outcome, await client.responses.create(model=job["model"], input=items))


_JOBS = {
    "plain": _plain,
    "stream": _stream,
    "abort": _abort,
    "tools": _tools,
    "agent": _agent,
    "structured": _structured,
    "vision": _vision,
}

if __name__ == "__main__":
    serve(run)
