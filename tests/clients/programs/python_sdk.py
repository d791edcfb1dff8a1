"""The official Python SDK: reads orders, one JSON line each, and prints what it saw."""

from __future__ import annotations

from functools import cache
from typing import Any

import openai
from calls import MESSAGES, PICTURE, PROMPT, QUESTION, TOOL, WEATHER_SCHEMA, Weather, call_tool
from openai import AsyncOpenAI
from orders import SECONDS_MAX, Outcome, serve, tell_openai_error


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
    return AsyncOpenAI(api_key="of each job")


async def _plain(client: AsyncOpenAI, job: dict[str, Any], outcome: Outcome) -> None:
    answer: Any = await client.chat.completions.create(
        model=job["model"], messages=MESSAGES, **job.get("options", {})
    )
    outcome.text = answer.choices[0].message.content
    outcome.see_openai(answer)


async def _stream(client: AsyncOpenAI, job: dict[str, Any], outcome: Outcome) -> None:
    stream: Any = await client.chat.completions.create(
        model=job["model"],
        messages=MESSAGES,
        stream=True,
        stream_options={"include_usage": True},
    )
    outcome.answers.append(stream.response.headers["x-request-id"])
    async for chunk in stream:
        outcome.text += "".join(choice.delta.content or "" for choice in chunk.choices)
        if chunk.usage:
            outcome.see_openai_usage(chunk.usage)


async def _abort(client: AsyncOpenAI, job: dict[str, Any], outcome: Outcome) -> None:
    stream: Any = await client.chat.completions.create(
        model=job["model"], messages=MESSAGES, stream=True
    )
    outcome.answers.append(stream.response.headers["x-request-id"])
    async with stream:
        async for chunk in stream:
            outcome.text += chunk.choices[0].delta.content or ""
            if outcome.text:
                return


async def _tools(client: AsyncOpenAI, job: dict[str, Any], outcome: Outcome) -> None:
    messages: list[Any] = list(MESSAGES)
    for _ in range(job["turns_max"]):
        answer: Any = await client.chat.completions.create(
            model=job["model"], messages=messages, tools=[TOOL]
        )
        outcome.see_openai(answer)
        message = answer.choices[0].message
        if not message.tool_calls:
            outcome.text = message.content
            return
        messages.append(message)
        for call in message.tool_calls:
            told = call_tool(call.function.name, call.function.arguments)
            messages.append({"role": "tool", "tool_call_id": call.id, "content": told})


async def _structured(client: AsyncOpenAI, job: dict[str, Any], outcome: Outcome) -> None:
    answer = await client.chat.completions.parse(
        model=job["model"], messages=MESSAGES, response_format=Weather
    )
    parsed = answer.choices[0].message.parsed
    assert isinstance(parsed, Weather)
    outcome.data = parsed.model_dump()
    outcome.see_openai(answer)


async def _vision(client: AsyncOpenAI, job: dict[str, Any], outcome: Outcome) -> None:
    parts: list[Any] = [
        {"type": "text", "text": QUESTION},
        {"type": "image_url", "image_url": {"url": PICTURE}},
    ]
    answer = await client.chat.completions.create(
        model=job["model"], messages=[{"role": "user", "content": parts}]
    )
    outcome.text = answer.choices[0].message.content or ""
    outcome.see_openai(answer)


async def _completion(client: AsyncOpenAI, job: dict[str, Any], outcome: Outcome) -> None:
    answer = await client.completions.create(model=job["model"], prompt=PROMPT)
    outcome.text = answer.choices[0].text
    outcome.see_openai(answer)


async def _embeddings(client: AsyncOpenAI, job: dict[str, Any], outcome: Outcome) -> None:
    answer = await client.embeddings.create(model=job["model"], input=["one", "two"], dimensions=8)
    outcome.data = [len(item.embedding) for item in answer.data]
    outcome.see_openai(answer)


async def _moderations(client: AsyncOpenAI, job: dict[str, Any], outcome: Outcome) -> None:
    answer = await client.moderations.create(
        model=job["model"], input=["a harmless text", "flag this"]
    )
    outcome.data = [result.flagged for result in answer.results]


async def _models(client: AsyncOpenAI, job: dict[str, Any], outcome: Outcome) -> None:
    outcome.data = [model.id async for model in client.models.list()]


_JOBS = {
    "plain": _plain,
    "stream": _stream,
    "abort": _abort,
    "tools": _tools,
    "structured": _structured,
    "vision": _vision,
    "completion": _completion,
    "embeddings": _embeddings,
    "moderations": _moderations,
    "models": _models,
}

if __name__ == "__main__":
    assert list(Weather.model_json_schema()["required"]) == WEATHER_SCHEMA["required"]
    serve(run)
