"""What OpenAI's own SDK makes of the answers and streams that are written as Responses."""

from typing import Any, Final, get_args

import httpx2
import openai
import orjson
import pytest
from hypothesis import given
from openai._models import construct_type
from openai.lib.streaming.responses._responses import ResponseStreamState
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import BaseModel

from apps.core.errors import GatewayError
from apps.core.usage import Usage
from apps.proxy.dialects.answer_deltas import deltas_of
from apps.proxy.dialects.conversion import DIALECTS
from apps.proxy.dialects.neutral import Answer, Delta, Failure, Start, Text, TextPiece, ToolUse
from apps.proxy.dialects.surfaces import parse_request
from apps.proxy.tests.dialects.answer_kit import any_order
from apps.proxy.tests.dialects.golden_cells import REPLY, Cell, golden_cells, stream
from tests.support.cases import for_all

RESPONSES: Final = DIALECTS["openai-responses"]
# By the type of an event, its model.
EVENTS: Final[dict[str, type[BaseModel]]] = {
    get_args(model.model_fields["type"].annotation)[0]: model
    for model in get_args(get_args(ResponseStreamEvent)[0])
}
ASKED: Final[dict[str, Any]] = {
    "model": "m",
    "input": "Hi",
    "instructions": "Be brief.",
    "max_output_tokens": 500,
    "metadata": {"team": "a"},
    "parallel_tool_calls": False,
    "reasoning": {"effort": "low"},
    "safety_identifier": "u-1",
    "prompt_cache_key": "k",
    "temperature": 0.5,
    "text": {"verbosity": "low"},
    "tool_choice": "required",
    "tools": [
        {"type": "function", "name": "find", "parameters": {"type": "object"}},
        {"type": "custom", "name": "run", "format": {"type": "text"}},
    ],
    "top_p": 0.9,
}


def cells_of_clients(kind: str) -> list[Any]:
    return [cell for cell in golden_cells(kind) if cell.values[0].client == "openai-responses"]


def client(body: bytes) -> openai.OpenAI:
    """Return an SDK that gets this stream whatever it asks."""
    headers = {"content-type": "text/event-stream"}
    answer = httpx2.MockTransport(
        lambda request: httpx2.Response(200, content=body, headers=headers)
    )
    return openai.OpenAI(
        api_key="sk-test",
        base_url="http://gateway.test/v1",
        http_client=httpx2.Client(transport=answer),
        max_retries=0,
    )


def gathered(body: bytes) -> Response:
    """Return the response that the SDK gathers from a stream, or is told at its end."""
    state: ResponseStreamState[Any] = ResponseStreamState(input_tools=[], text_format=openai.omit)
    found: Response | None = None
    for event in events_of(body):
        loaded: Any = construct_type(type_=ResponseStreamEvent, value=event)
        for told in state.handle_event(loaded):
            if told.type in ("response.completed", "response.incomplete"):
                found = told.response
    assert found is not None
    return found


def told_of(found: Response, whole: dict[str, Any]) -> dict[str, Any]:
    """Return what was found, without what the SDK adds to it."""
    return shared(found.to_dict(mode="json"), whole)  # type: ignore[no-any-return]  # any JSON


def shared(found: Any, whole: Any) -> Any:
    if isinstance(whole, dict):
        return {name: shared(found.get(name), item) for name, item in whole.items()}
    if isinstance(whole, list):
        return [shared(left, right) for left, right in zip(found, whole, strict=True)]
    return found


def events_of(body: bytes) -> list[dict[str, Any]]:
    found = []
    for event in body.decode().split("\n\n")[:-1]:
        name, _, data = event.partition("\ndata: ")
        loaded = orjson.loads(data)
        assert name == f"event: {loaded['type']}"
        found.append(loaded)
    return found


@for_all("cell", cells_of_clients("answer"))
def test_an_answer_is_one_of_the_sdks(cell: Cell) -> None:
    # Strictly, while the SDK itself takes anything.
    Response.model_validate(cell.written, strict=True)


@for_all("cell", cells_of_clients("stream"))
def test_every_event_is_one_of_the_sdks_and_counts_on(cell: Cell) -> None:
    events = events_of(stream(cell.written))

    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    for event in events:
        EVENTS[event["type"]].model_validate(event, strict=True)


def has_calls_apart(answer: Answer) -> bool:
    """Return whether no two calls have the same id, which the SDK refuses."""
    calls = [part.id for part in answer.parts if isinstance(part, ToolUse)]
    return len(calls) == len(set(calls))


@given(answer=any_order.filter(has_calls_apart))
def test_the_sdk_gathers_what_was_said(answer: Answer) -> None:
    reply = REPLY._replace(asked=ASKED)
    whole = orjson.loads(orjson.dumps(RESPONSES.write_answer(answer, reply)))

    found = gathered(RESPONSES.stream_writer(reply).write(deltas_of(answer)))

    assert told_of(found, whole) == whole
    assert found.output_text == "".join(
        part.text for part in answer.parts if isinstance(part, Text)
    )
    assert [
        (item.call_id, item.name, item.arguments)
        for item in found.output
        if item.type == "function_call"
    ] == [(part.id, part.name, part.arguments) for part in answer.parts if type(part) is ToolUse]
    assert found.usage is not None
    assert found.usage.total_tokens == answer.usage.total_tokens


def test_an_answer_repeats_what_was_asked() -> None:
    answer = Answer(
        "a",
        "m-1",
        (Text("Hi"),),
        "end",
        usage=DIALECTS["openai"].read_answer({"choices": [{"message": {"content": "Hi"}}]}).usage,
    )

    told = RESPONSES.write_answer(answer, REPLY._replace(asked=ASKED))
    silent = RESPONSES.write_answer(answer, REPLY)

    repeated = Response.model_validate(told, strict=True)
    assert (repeated.instructions, repeated.max_output_tokens) == ("Be brief.", 500)
    assert (repeated.temperature, repeated.top_p) == (0.5, 0.9)
    assert (repeated.parallel_tool_calls, repeated.tool_choice) == (False, "required")
    assert (repeated.safety_identifier, repeated.prompt_cache_key) == ("u-1", "k")
    assert repeated.metadata == {"team": "a"}
    assert told["reasoning"] == {"effort": "low", "summary": None}
    assert told["text"] == {"format": {"type": "text"}, "verbosity": "low"}
    assert [tool.type for tool in repeated.tools] == ["function", "custom"]
    assert told["tools"][0]["strict"] is False
    assert (told["model"], told["store"], told["status"]) == ("m-1", False, "completed")
    assert (silent["temperature"], silent["top_p"], silent["tools"]) == (1.0, 1.0, [])


@pytest.mark.parametrize(
    "asked",
    [
        {"tools": [{"type": "custom"}, {"type": "namespace", "tools": [{"type": "function"}]}]},
        {"tools": [{"type": "namespace", "name": "a", "tools": [{"type": "custom"}]}]},
        {"tools": [{"type": "namespace", "name": "a"}, {"type": "web_search"}]},
        {"tools": None, "text": "x", "reasoning": None, "metadata": 1},
    ],
)
def test_a_request_that_was_not_read_closely_is_repeated_as_it_is(asked: dict[str, Any]) -> None:
    parse_request("responses", "openai-responses", {"model": "m", "input": "Hi", **asked})
    answer = Answer("a", "m", (ToolUse("c", "a", "{}"),), "tool_use", Usage(input=1))
    reply = REPLY._replace(asked=asked)

    told = RESPONSES.write_answer(answer, reply)
    streamed = events_of(RESPONSES.stream_writer(reply).write(deltas_of(answer)))

    assert told["tools"] == (asked["tools"] or [])
    assert told["output"][0]["type"] == "function_call"
    assert streamed[-1]["response"] == orjson.loads(orjson.dumps(told))


def test_the_sdk_raises_an_error_in_the_middle() -> None:
    deltas: list[Delta] = [Start("a", "m"), TextPiece("Hi"), Failure(GatewayError("E60"))]
    body = RESPONSES.stream_writer(REPLY).write(deltas)

    with client(body) as sdk:
        events = sdk.responses.create(model="m", input="Hi", stream=True)
        told = [next(events).type for _ in range(5)]
        with pytest.raises(openai.APIError) as error:
            next(events)

    assert told[-1] == "response.output_text.delta"
    assert error.value.code == "upstream_interrupted"
    assert error.value.message == "The upstream closed the stream early."


def test_an_error_alone_tells_it_in_both_forms() -> None:
    body = RESPONSES.error_event(GatewayError("E60"), REPLY._replace(asked=ASKED))

    error, failed = events_of(body)
    assert (error["type"], error["code"]) == ("error", "upstream_interrupted")
    # Codex knows of no other end of a stream that failed.
    assert failed["response"]["error"] == {
        "code": "server_error",
        "message": "The upstream closed the stream early.",
    }
    assert (failed["response"]["id"], failed["response"]["status"]) == ("resp_req_1", "failed")
    for event in (error, failed):
        EVENTS[event["type"]].model_validate(event, strict=True)
