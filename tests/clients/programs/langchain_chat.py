"""LangChain's ChatOpenAI and OpenAIEmbeddings: reads orders and prints what it saw."""

from __future__ import annotations

from typing import Any

import openai
from calls import PICTURE, PROMPT, QUESTION, Weather, call_tool
from langchain_core.messages import HumanMessage, ToolMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from orders import SECONDS_MAX, Outcome, serve, tell_openai_error


@tool
def find_weather(city: str) -> str:
    """Tell the weather of a city."""
    return call_tool("find_weather", {"city": city})


async def run(job: dict[str, Any], outcome: Outcome) -> None:
    """Do one job."""
    options = {"max_retries": job["retries"]} if "retries" in job else {}
    model: Any = ChatOpenAI(
        model=job["model"],
        api_key=job["key"],
        base_url=job["base_url"],
        timeout=SECONDS_MAX,
        # They hold the id of the request.
        include_response_headers=True,
        # With a base URL of one's own it is off by default.
        stream_usage=True,
        **options,
    )
    try:
        await _JOBS[job["do"]](model, job, outcome)
    except openai.APIError as error:
        # LangChain raises subclasses of its own for some.
        names = [cls.__name__ for cls in type(error).__mro__ if cls.__module__.startswith("openai")]
        outcome.error = tell_openai_error(error, names[0])


def _see(outcome: Outcome, message: Any) -> None:
    _see_answer(outcome, message)
    _see_usage(outcome, message)


def _see_answer(outcome: Outcome, message: Any) -> None:
    outcome.answers.append(message.response_metadata["headers"]["x-request-id"])


def _see_usage(outcome: Outcome, message: Any) -> None:
    usage = message.usage_metadata
    cached = usage.get("input_token_details", {}).get("cache_read") or 0
    reasoning = usage.get("output_token_details", {}).get("reasoning") or 0
    outcome.usages.append(
        [usage["input_tokens"] - cached, cached, usage["output_tokens"] - reasoning, reasoning]
    )


async def _plain(model: Any, job: dict[str, Any], outcome: Outcome) -> None:
    message = await model.bind(**job.get("options", {})).ainvoke(PROMPT)
    outcome.text = message.content
    _see(outcome, message)


async def _stream(model: Any, job: dict[str, Any], outcome: Outcome) -> None:
    whole = None
    async for chunk in model.astream(PROMPT):
        _see_chunk(outcome, chunk)
        whole = chunk if whole is None else whole + chunk
    assert whole is not None
    _see_usage(outcome, whole)


async def _abort(model: Any, job: dict[str, Any], outcome: Outcome) -> None:
    stream = model.astream(PROMPT)
    async for chunk in stream:
        _see_chunk(outcome, chunk)
        if outcome.text:
            break
    await stream.aclose()


def _see_chunk(outcome: Outcome, chunk: Any) -> None:
    if "headers" in chunk.response_metadata:  # of the first one
        _see_answer(outcome, chunk)
    outcome.text += chunk.content


async def _tools(model: Any, job: dict[str, Any], outcome: Outcome) -> None:
    bound = model.bind_tools([find_weather])
    messages: list[Any] = [HumanMessage(PROMPT)]
    for _ in range(job["turns_max"]):
        message = await bound.ainvoke(messages)
        _see(outcome, message)
        if not message.tool_calls:
            outcome.text = message.content
            return
        messages.append(message)
        for call in message.tool_calls:
            told: ToolMessage = await find_weather.ainvoke(call)
            messages.append(told)


async def _structured(model: Any, job: dict[str, Any], outcome: Outcome) -> None:
    bound = model.with_structured_output(Weather, method="json_schema", include_raw=True)
    answer = await bound.ainvoke(PROMPT)
    assert isinstance(answer["parsed"], Weather)
    outcome.data = answer["parsed"].model_dump()
    _see(outcome, answer["raw"])


async def _vision(model: Any, job: dict[str, Any], outcome: Outcome) -> None:
    parts: list[Any] = [
        {"type": "text", "text": QUESTION},
        {"type": "image_url", "image_url": {"url": PICTURE}},
    ]
    message = await model.ainvoke([HumanMessage(parts)])
    outcome.text = message.content
    _see(outcome, message)


async def _embeddings(model: Any, job: dict[str, Any], outcome: Outcome) -> None:
    embeddings: Any = OpenAIEmbeddings(
        model=job["model"],
        api_key=job["key"],
        base_url=job["base_url"],
        dimensions=8,
        # Else it cuts texts into tokens of OpenAI's models, whose tables it downloads.
        check_embedding_ctx_length=False,
    )
    outcome.data = [len(vector) for vector in await embeddings.aembed_documents(["one", "two"])]


_JOBS = {
    "plain": _plain,
    "stream": _stream,
    "abort": _abort,
    "tools": _tools,
    "structured": _structured,
    "vision": _vision,
    "embeddings": _embeddings,
}

if __name__ == "__main__":
    serve(run)
