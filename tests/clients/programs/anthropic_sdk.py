"""Anthropic's Python SDK: reads orders, one JSON line each, and prints what it saw."""

from __future__ import annotations

from functools import cache
from typing import Any

import anthropic
from anthropic import AsyncAnthropic, beta_async_tool
from calls import MESSAGES, OUTPUT_MAX, PICTURE_BASE64, QUESTION, Weather, call_tool
from orders import SECONDS_MAX, Outcome, root_of, serve


@beta_async_tool
async def find_weather(city: str) -> str:
    """Tell the weather of a city.

    Args:
        city: Its name.
    """
    return call_tool("find_weather", {"city": city})


async def run(job: dict[str, Any], outcome: Outcome) -> None:
    """Do one job, with connections that the next ones use, too."""
    options = {"max_retries": job["retries"]} if "retries" in job else {}
    client = _first_client().with_options(
        api_key=job["key"], base_url=root_of(job), timeout=SECONDS_MAX, **options
    )
    try:
        await _JOBS[job["do"]](client, job, outcome)
    except anthropic.APIError as error:
        outcome.error = {
            "class": type(error).__name__,
            "status": getattr(error, "status_code", None),
            "code": None,
            "type": getattr(error, "type", None),
            "param": None,
            "message": str(error),
            "request_id": getattr(error, "request_id", None),
        }


@cache
def _first_client() -> AsyncAnthropic:
    return AsyncAnthropic(api_key="of each job")


def _ask(job: dict[str, Any], **values: Any) -> dict[str, Any]:
    asked = {"model": job["model"], "max_tokens": OUTPUT_MAX, "messages": MESSAGES}
    return asked | job.get("options", {}) | values


def _see(outcome: Outcome, message: Any) -> None:
    outcome.answers.append(message._request_id)
    _see_usage(outcome, message.usage)
    outcome.text = "".join(block.text for block in message.content if block.type == "text")


def _see_usage(outcome: Outcome, usage: Any) -> None:
    # What a cache took is input at its usual price here.
    read = usage.input_tokens + (usage.cache_creation_input_tokens or 0)
    details = usage.output_tokens_details
    thinking = details.thinking_tokens if details else 0
    outcome.usages.append(
        [read, usage.cache_read_input_tokens or 0, usage.output_tokens - thinking, thinking]
    )


async def _plain(client: AsyncAnthropic, job: dict[str, Any], outcome: Outcome) -> None:
    _see(outcome, await client.messages.create(**_ask(job)))


async def _stream(client: AsyncAnthropic, job: dict[str, Any], outcome: Outcome) -> None:
    async with client.messages.stream(**_ask(job)) as stream:
        outcome.answers.append(stream.response.headers["request-id"])
        async for text in stream.text_stream:
            outcome.text += text
        message = await stream.get_final_message()
    _see_usage(outcome, message.usage)


async def _abort(client: AsyncAnthropic, job: dict[str, Any], outcome: Outcome) -> None:
    async with client.messages.stream(**_ask(job)) as stream:
        outcome.answers.append(stream.response.headers["request-id"])
        async for text in stream.text_stream:
            outcome.text += text
            return


async def _tools(client: AsyncAnthropic, job: dict[str, Any], outcome: Outcome) -> None:
    runner = client.beta.messages.tool_runner(
        **_ask(job), tools=[find_weather], max_iterations=job["turns_max"]
    )
    async for message in runner:
        _see(outcome, message)


async def _structured(client: AsyncAnthropic, job: dict[str, Any], outcome: Outcome) -> None:
    message = await client.messages.parse(**_ask(job), output_format=Weather)
    assert isinstance(message.parsed_output, Weather)
    outcome.data = message.parsed_output.model_dump()
    _see(outcome, message)


async def _vision(client: AsyncAnthropic, job: dict[str, Any], outcome: Outcome) -> None:
    source = {"type": "base64", "media_type": "image/png", "data": PICTURE_BASE64}
    content = [{"type": "text", "text": QUESTION}, {"type": "image", "source": source}]
    messages = [{"role": "user", "content": content}]
    _see(outcome, await client.messages.create(**_ask(job, messages=messages)))


_JOBS = {
    "plain": _plain,
    "stream": _stream,
    "abort": _abort,
    "tools": _tools,
    "structured": _structured,
    "vision": _vision,
}

if __name__ == "__main__":
    serve(run)
