"""Google's Python SDK: reads orders, one JSON line each, and prints what it saw."""

from __future__ import annotations

import base64
from typing import Any

from calls import PICTURE_BASE64, PROMPT, QUESTION, Weather, call_tool
from google import genai
from google.genai import errors, types
from orders import SECONDS_MAX, Outcome, root_of, serve

# As often as the other SDKs do it unasked: this one repeats nothing by itself.
RETRIES = 2


def find_weather(city: str) -> str:
    """Tell the weather of a city."""
    return call_tool("find_weather", {"city": city})


async def run(job: dict[str, Any], outcome: Outcome) -> None:
    """Do one job."""
    attempts = 1 + job.get("retries", RETRIES)
    options = types.HttpOptions(
        base_url=root_of(job),
        timeout=SECONDS_MAX * 1_000,
        retry_options=types.HttpRetryOptions(attempts=attempts),
    )
    client = genai.Client(api_key=job["key"], http_options=options).aio
    try:
        await _JOBS[job["do"]](client, job, outcome)
    except errors.APIError as error:
        headers: Any = getattr(error.response, "headers", None) or {}
        outcome.error = {
            "class": type(error).__name__,
            "status": error.code,
            "code": None,
            "type": error.status,
            "param": None,
            "message": str(error),
            "request_id": headers.get("x-request-id"),
        }
    finally:
        await client.aclose()


def _config(job: dict[str, Any], **values: Any) -> types.GenerateContentConfig:
    options = dict(job.get("options", {}))
    if "max_tokens" in options:
        options["max_output_tokens"] = options.pop("max_tokens")
    return types.GenerateContentConfig(**options, **values)


def _id_of(answer: Any) -> str:
    headers = {name.lower(): value for name, value in answer.sdk_http_response.headers.items()}
    return str(headers["x-request-id"])


def _see(outcome: Outcome, answer: Any) -> None:
    outcome.answers.append(_id_of(answer))
    _see_usage(outcome, answer.usage_metadata)
    outcome.text = answer.text or ""


def _see_usage(outcome: Outcome, usage: Any) -> None:
    cached = usage.cached_content_token_count or 0
    outcome.usages.append(
        [
            usage.prompt_token_count - cached,
            cached,
            usage.candidates_token_count or 0,
            usage.thoughts_token_count or 0,
        ]
    )


async def _plain(client: Any, job: dict[str, Any], outcome: Outcome) -> None:
    answer = await client.models.generate_content(
        model=job["model"], contents=PROMPT, config=_config(job)
    )
    _see(outcome, answer)


async def _stream(client: Any, job: dict[str, Any], outcome: Outcome) -> None:
    usage = None
    async for chunk in await client.models.generate_content_stream(
        model=job["model"], contents=PROMPT, config=_config(job)
    ):
        if not outcome.answers:
            outcome.answers.append(_id_of(chunk))
        outcome.text += chunk.text or ""
        # It tells with every piece what it has come to.
        usage = chunk.usage_metadata or usage
    _see_usage(outcome, usage)


async def _abort(client: Any, job: dict[str, Any], outcome: Outcome) -> None:
    stream = await client.models.generate_content_stream(
        model=job["model"], contents=PROMPT, config=_config(job)
    )
    async for chunk in stream:
        if not outcome.answers:
            outcome.answers.append(_id_of(chunk))
        outcome.text += chunk.text or ""
        if outcome.text:
            break
    await stream.aclose()


async def _tools(client: Any, job: dict[str, Any], outcome: Outcome) -> None:
    """Have the SDK call the function. Of whole answers it shows only the last: so in a stream."""
    calling = types.AutomaticFunctionCallingConfig(maximum_remote_calls=job["turns_max"])
    usages: dict[str, Any] = {}
    async for chunk in await client.models.generate_content_stream(
        model=job["model"],
        contents=PROMPT,
        config=_config(job, tools=[find_weather], automatic_function_calling=calling),
    ):
        if chunk.sdk_http_response is None:
            continue  # What the function said, which the SDK adds.
        outcome.text += chunk.text or ""
        usages[_id_of(chunk)] = chunk.usage_metadata or usages.get(_id_of(chunk))
    for name, usage in usages.items():
        outcome.answers.append(name)
        _see_usage(outcome, usage)


async def _structured(client: Any, job: dict[str, Any], outcome: Outcome) -> None:
    answer = await client.models.generate_content(
        model=job["model"],
        contents=PROMPT,
        config=_config(job, response_mime_type="application/json", response_schema=Weather),
    )
    assert isinstance(answer.parsed, Weather)
    outcome.data = answer.parsed.model_dump()
    _see(outcome, answer)


async def _vision(client: Any, job: dict[str, Any], outcome: Outcome) -> None:
    picture = types.Part.from_bytes(data=base64.b64decode(PICTURE_BASE64), mime_type="image/png")
    answer = await client.models.generate_content(
        model=job["model"], contents=[QUESTION, picture], config=_config(job)
    )
    _see(outcome, answer)


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
