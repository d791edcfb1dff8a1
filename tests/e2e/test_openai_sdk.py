"""The official OpenAI SDK against a real gateway: what clients see, and what it costs."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import openai
import pytest
from openai import OpenAI
from pydantic import BaseModel

from tests.support.bench import INPUT_NANOS, MESSAGES, OUTPUT_NANOS, Bench, Stage

# What an SDK sees depends on no engine; what it is charged is in test_charges on both.
pytestmark = pytest.mark.sqlite

CHARGE = 10 * INPUT_NANOS + 16 * OUTPUT_NANOS
PREFIXES = ("/v1", "/api/v1", "/v1/", "/api/v1/")
TOOL = {
    "type": "function",
    "function": {
        "name": "find_weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


class Weather(BaseModel):
    city: str
    degrees: int


@pytest.mark.parametrize("prefix", PREFIXES)
def test_a_chat_is_answered_and_charged_under_every_prefix(bench: Bench, prefix: str) -> None:
    stage = bench.stage("demo-chat:prompt=10")

    answer = stage.client(prefix=prefix).chat.completions.create(**stage.body())

    assert answer.choices[0].finish_reason == "stop"
    assert answer.choices[0].message.content is not None
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (10, 16)
    statement = stage.settled()
    assert statement.charges == (CHARGE,)
    assert statement.entries == (("charge", -CHARGE),)
    assert statement.held_nanos == 0
    assert len(stage.upstream_calls) == 1


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/api/v1/chat/completions"])
@pytest.mark.parametrize("slash", ["", "/"])
def test_a_slash_at_the_end_of_a_path_changes_nothing(bench: Bench, path: str, slash: str) -> None:
    stage = bench.stage("demo-chat:prompt=10")

    answer = stage.client(prefix="").post(path + slash, cast_to=object, body=stage.body())

    assert isinstance(answer, dict)
    assert answer["usage"]["total_tokens"] == 26
    assert stage.settled().charges == (CHARGE,)


def test_a_stream_has_the_same_text_and_charge_as_the_whole_answer(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10")
    client = stage.client()

    whole = client.chat.completions.create(**stage.body()).choices[0].message.content
    chunks = list(client.chat.completions.create(**stage.body(stream=True)))

    assert "".join(c.choices[0].delta.content or "" for c in chunks) == whole
    assert [c.choices[0].finish_reason for c in chunks if c.choices[0].finish_reason] == ["stop"]
    assert stage.settled(2).charges == (CHARGE, CHARGE)


@pytest.mark.parametrize("stream", [False, True])
def test_a_forced_tool_call_arrives_with_its_arguments(bench: Bench, stream: bool) -> None:
    stage = bench.stage("demo-chat:prompt=10")
    choice = {"type": "function", "function": {"name": "find_weather"}}
    body = stage.body(tools=[TOOL], tool_choice=choice)

    if stream:
        with stage.client().chat.completions.stream(**body) as events:
            message: Any = events.get_final_completion().choices[0].message
    else:
        message = stage.client().chat.completions.create(**body).choices[0].message

    assert message.tool_calls[0].function.name == "find_weather"
    assert list(json.loads(message.tool_calls[0].function.arguments)) == ["city"]
    assert len(stage.settled().rows) == 1


def test_an_answer_in_a_json_schema_is_parsed_by_the_sdk(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10")

    answer = stage.client().chat.completions.parse(**stage.body(), response_format=Weather)

    assert isinstance(answer.choices[0].message.parsed, Weather)
    assert answer.usage is not None
    expected = 10 * INPUT_NANOS + answer.usage.completion_tokens * OUTPUT_NANOS
    assert stage.settled().charges == (expected,)


def test_completions_are_answered_whole_and_streamed(bench: Bench) -> None:
    stage = bench.stage("demo-chat:prompt=10,tokens=5")
    client = stage.client()

    whole = client.completions.create(model=stage.model.name, prompt="Once")
    chunks = list(client.completions.create(model=stage.model.name, prompt="Once", stream=True))

    assert whole.choices[0].text == "".join(chunk.choices[0].text for chunk in chunks)
    assert stage.settled(2).charges == (30 * INPUT_NANOS,) * 2


def test_embeddings_are_charged_by_their_input(bench: Bench) -> None:
    stage = bench.stage("demo-embedding:prompt=7")

    answer = stage.client().embeddings.create(
        model=stage.model.name, input=["one", "two"], dimensions=8
    )

    assert [len(item.embedding) for item in answer.data] == [8, 8]
    assert stage.settled().charges == (7 * INPUT_NANOS,)


@pytest.mark.usefixtures("counting")
def test_moderations_cost_what_was_read(bench: Bench) -> None:
    stage = bench.stage("demo-moderation")

    texts = ["a harmless text", "flag this"]

    answer = stage.client().moderations.create(model=stage.model.name, input=texts)

    assert [result.flagged for result in answer.results] == [False, True]
    statement = stage.settled()
    # OpenAI reports no usage here: the tokens of the texts are counted.
    assert statement.charges == (5 * INPUT_NANOS,)
    assert statement.held_nanos == 0


@pytest.mark.parametrize("path", ["/v1/rerank", "/api/v1/rerank/"])
def test_documents_are_ranked_and_charged_by_what_was_read(bench: Bench, path: str) -> None:
    stage = bench.stage("demo-rerank:prompt=30")
    body = {
        "model": stage.model.name,
        "query": "red apples",
        "documents": ["green pears", {"text": "red apples"}, "red cars"],
        "top_n": 2,
    }

    answer: Any = stage.client(prefix="").post(path, cast_to=object, body=body)

    assert [result["index"] for result in answer["results"]] == [1, 2]
    assert answer["usage"] == {"total_tokens": 30}
    assert stage.settled().charges == (30 * INPUT_NANOS,)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_models_are_listed_and_found(bench: Bench, prefix: str) -> None:
    stage = bench.stage()
    client = stage.client(prefix=prefix)

    listed = [model.id for model in client.models.list()]
    found = client.models.retrieve(stage.model.name)

    assert stage.model.name in listed
    assert (found.id, found.object, found.owned_by) == (stage.model.name, "model", "gateway")


def test_a_model_group_that_is_not_ones_own_hides_its_models(bench: Bench) -> None:
    stage = bench.stage()
    hidden = bench.make_model()
    bench.group.models.remove(hidden)
    later = bench.make_model()
    bench.wait_for_model(later, stage.caller)
    client = stage.client()

    listed = [model.id for model in client.models.list()]

    assert hidden.name not in listed
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve(hidden.name)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model=hidden.name, messages=MESSAGES)  # type: ignore[arg-type]  # plain dicts
    assert stage.bench.statement(stage.caller).rows == ()


def test_errors_arrive_as_the_sdks_own_classes(bench: Bench) -> None:
    stage = bench.stage()
    client = stage.client()

    with (
        OpenAI(api_key="sk-audit-wrong", base_url=client.base_url) as stranger,
        pytest.raises(openai.AuthenticationError) as wrong_key,
    ):
        stranger.models.list()
    with pytest.raises(openai.NotFoundError) as wrong_model:
        client.chat.completions.create(**{**stage.body(), "model": "no-such-model"})
    with pytest.raises(openai.BadRequestError) as wrong_value:
        client.chat.completions.create(**stage.body(n=0))

    assert wrong_key.value.code == "invalid_api_key"
    assert (wrong_model.value.code, wrong_model.value.param) == ("model_not_found", "model")
    assert (wrong_value.value.code, wrong_value.value.param) == ("integer_below_min_value", "n")
    assert wrong_model.value.request_id
    assert bench.statement(stage.caller).rows == ()
    assert stage.upstream_calls == []


@pytest.mark.parametrize(
    "options",
    [
        {"stream_options": {"include_usage": True}},
        {"stream_options": {"include_usage": False}},
        {},
        {"stream_options": {"include_usage": "junk"}},
        {"stream_options": "junk"},
        {"stream_options": None},
    ],
    ids=["true", "false", "absent", "junk", "junk object", "null"],
)
def test_what_a_client_says_about_usage_never_changes_the_charge(
    bench: Bench, options: dict[str, Any]
) -> None:
    stage = bench.stage("demo-chat:prompt=10")
    has_asked = options.get("stream_options") == {"include_usage": True}

    stream = stage.client().post(
        "/chat/completions",
        cast_to=object,
        body=stage.body(stream=True, **options),
        options={"headers": {"Accept": "text/event-stream"}},
        stream=True,
        stream_cls=openai.Stream[object],
    )
    chunks: list[Any] = list(stream)

    usages = [chunk["usage"] for chunk in chunks if chunk.get("usage")]
    assert len(usages) == has_asked
    assert all(chunk["choices"] for chunk in chunks) is not has_asked
    statement = stage.settled()
    assert statement.charges == (CHARGE,)
    assert statement.rows[0].usage_source == "reported"
    assert stage.upstream_calls[0]["body"]["stream_options"] == {"include_usage": True}


def test_cached_and_reasoning_tokens_are_told_apart_and_charged(bench: Bench) -> None:
    stage = bench.stage(
        "demo-chat:prompt=10,cached=4,tokens=16,reasoning=6",
        prices={
            "input": 1_000_000_000,
            "cache_read": 100_000_000,
            "output": 4_000_000_000,
            "reasoning": 5_000_000_000,
        },
    )

    stage.client().chat.completions.create(**stage.body())

    statement = stage.settled()
    row = statement.rows[0]
    assert (row.input_tokens, row.cache_read_tokens) == (6, 4)
    assert (row.output_tokens, row.reasoning_tokens) == (10, 6)
    assert statement.charges == (6 * 1000 + 4 * 100 + 10 * 4000 + 6 * 5000,)


def test_every_nano_of_a_mixed_run_is_explained_by_the_usage_that_the_sdk_saw(
    bench: Bench,
) -> None:
    prices = {"input": 1_234_567_891, "output": 4_321_987_653}
    stages = [
        bench.stage(name, prices=prices)
        for name in ("demo-chat", "demo-chat:tokens=7", "demo-chat:prompt=3,tokens=101")
    ]
    owner = stages[0].caller

    usages = asyncio.run(_mixed_run(bench, stages))

    expected = sorted(
        -(-(seen[0] * prices["input"] + seen[1] * prices["output"]) // 1_000_000) for seen in usages
    )
    statement = bench.settled(owner, 60)
    assert len(usages) == 60
    assert sorted(statement.charges) == expected
    assert statement.posted_nanos == 10_000_000_000 - sum(expected)
    assert sorted(-amount for _, amount in statement.entries) == expected
    assert (statement.held_nanos, statement.holds, statement.owed_nanos) == (0, 0, 0)


async def _mixed_run(bench: Bench, stages: list[Stage]) -> list[tuple[int, int]]:
    """Make sixty calls of four kinds, twenty at a time, and return the usage each of them saw."""
    client = bench.async_client(stages[0].caller)
    gate = asyncio.Semaphore(20)

    async def chat(number: int) -> tuple[int, int]:
        body = {"model": stages[number % 3].model.name, "messages": MESSAGES, "n": number % 2 + 1}
        answer: Any = await client.chat.completions.create(**body)  # type: ignore[call-overload]  # plain dicts
        return answer.usage.prompt_tokens, answer.usage.completion_tokens

    async def stream(number: int) -> tuple[int, int]:
        answer: Any = await client.chat.completions.create(  # type: ignore[call-overload]  # plain dicts
            model=stages[number % 3].model.name,
            messages=MESSAGES,
            stream=True,
            stream_options={"include_usage": True},
        )
        usage = [chunk.usage async for chunk in answer if chunk.usage][-1]
        return usage.prompt_tokens, usage.completion_tokens

    async def completion(number: int) -> tuple[int, int]:
        answer: Any = await client.completions.create(
            model=stages[number % 3].model.name, prompt="x" * number
        )
        return answer.usage.prompt_tokens, answer.usage.completion_tokens

    async def embedding(number: int) -> tuple[int, int]:
        answer = await client.embeddings.create(
            model=stages[number % 3].model.name, input="x" * (number + 1)
        )
        return answer.usage.prompt_tokens, 0

    kinds: list[Callable[[int], Any]] = [chat, stream, completion, embedding]

    async def one(number: int) -> tuple[int, int]:
        async with gate:
            found: tuple[int, int] = await kinds[number % 4](number)
            return found

    async with client:
        return await asyncio.gather(*(one(number) for number in range(60)))
