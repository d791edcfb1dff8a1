"""Providers of each dialect that leak their key or fail inside an answer, for clients of each.

P11: the key stands in nothing that a client gets. A stream that failed never looks whole, and an
answer that is none is told as an error in the client's own dialect.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any, Final

import orjson
import pytest

from apps.ai_models.models import AIModel
from apps.proxy.dialects.conversion import PIECES_MAX
from tests.e2e.dialects import PROVIDER_DIALECTS
from tests.e2e.raw_upstream import Heard, RawUpstream, respond
from tests.e2e.wire import RawConnection, post, post_bytes
from tests.support.bench import Bench, Caller

# What comes over the wire is judged before any database is asked.
pytestmark = pytest.mark.sqlite

KEY: Final = "CanaryPlain5a2E9d1C0b8F7436ofTheProvider"
OWNER: Final = "org-CanaryOfTheOperator"
# By which a client is told that an answer is whole.
ENDS: Final = {
    "anthropic": b"message_stop",
    "gemini": b"finishReason",
    "openai": b"[DONE]",
    "openai-responses": b"response.completed",
}
_TOLD: Final = f"Bad key {KEY} of {OWNER}"
ERRORS: Final[dict[str, Any]] = {
    "anthropic": {"type": "error", "error": {"type": KEY, "message": _TOLD}},
    "gemini": {"error": {"code": 400, "status": KEY, "message": _TOLD, "details": [OWNER]}},
    "openai": {"error": {"type": KEY, "code": KEY, "param": OWNER, "message": _TOLD}},
    "openai-responses": {"error": {"type": KEY, "code": KEY, "param": OWNER, "message": _TOLD}},
}
_CHAT: Final = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
_MESSAGE: Final = {"id": "m", "type": "message", "role": "assistant", "model": "m", "content": []}
_SAID: Final = {"type": "text_delta", "text": "Hi"}
_PART: Final = {"content": {"role": "model", "parts": [{"text": "Hi"}]}, "index": 0}
BEGINNINGS: Final[dict[str, list[dict[str, Any]]]] = {
    "anthropic": [
        {"type": "message_start", "message": _MESSAGE | {"usage": {"input_tokens": 1}}},
        {
            "type": "content_block_start",
            "index": 0,
            "content_block": {"type": "text", "text": ""},
        },
        {"type": "content_block_delta", "index": 0, "delta": _SAID},
    ],
    "gemini": [{"candidates": [_PART], "responseId": "r", "modelVersion": "m"}],
    "openai": [_CHAT | {"choices": [{"index": 0, "delta": {"content": "Hi"}}]}],
    "openai-responses": [
        {"type": "response.created", "response": {"id": "r", "output": [], "model": "m"}},
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {"type": "message", "id": "i", "role": "assistant", "content": []},
        },
        {
            "type": "response.content_part.added",
            "item_id": "i",
            "output_index": 0,
            "content_index": 0,
            "part": {"type": "output_text", "text": "", "annotations": []},
        },
        {
            "type": "response.output_text.delta",
            "item_id": "i",
            "output_index": 0,
            "content_index": 0,
            "delta": "Hi",
        },
    ],
}


def _events(documents: list[dict[str, Any]]) -> bytes:
    told = b""
    for document in documents:
        if "type" in document:
            told += b"event: %b\n" % document["type"].encode()
        told += b"data: %b\n\n" % orjson.dumps(document)
    return told


def _refused(status: str) -> Callable[[str], list[bytes]]:
    return lambda dialect: [respond(orjson.dumps(ERRORS[dialect]), status=status)]


def _inside(dialect: str) -> list[bytes]:
    return [respond(orjson.dumps(ERRORS[dialect]))]


def _first_event(dialect: str) -> list[bytes]:
    return [respond(_events([ERRORS[dialect]]), kind="text/event-stream")]


def _later_event(dialect: str) -> list[bytes]:
    begun, failed = _events(BEGINNINGS[dialect]), _events([ERRORS[dialect]])
    said = respond(begun + failed, kind="text/event-stream")
    # Apart: before anything is shown, a failure leads to another attempt.
    return [said[: -len(failed)], said[-len(failed) :]]


def _cut(dialect: str) -> list[bytes]:
    return [respond(_events(BEGINNINGS[dialect]), kind="text/event-stream")]


WAYS: Final[dict[str, Callable[[str], list[bytes]]]] = {
    "400": _refused("400 Bad"),
    "403": _refused("403 Forbidden"),
    "429": _refused("429 Slow"),
    "500": _refused("500 Error"),
    "an error in a whole answer": _inside,
    "an error as the first event": _first_event,
    "an error as a later event": _later_event,
    "no end": _cut,
}
STREAMED: Final = ("an error as a later event", "no end")


def _way_of(heard: Heard) -> str:
    """Return the way that the prompt names, wherever the dialect puts it."""
    return next(way for way in WAYS if f"<{way}>".encode() in heard.body)


@pytest.fixture(scope="module", params=PROVIDER_DIALECTS)
def provided(
    request: pytest.FixtureRequest, module_bench: Bench
) -> Iterator[tuple[Bench, Caller, dict[str, AIModel]]]:
    """Run a provider of each dialect in turn, known as another one for each way to fail."""
    dialect: str = request.param
    caller = module_bench.make_caller()
    with RawUpstream(lambda heard: WAYS[_way_of(heard)](dialect)) as upstream:
        models = {}
        for way in WAYS:
            provider = module_bench.make_provider(
                upstream.base_url, secret=KEY, dialect=dialect, failures_max=1_000
            )
            models[way] = module_bench.make_model("raw", provider=provider)
        module_bench.wait_for_model(list(models.values())[-1], caller)
        yield module_bench, caller, models


def _request(client: str, caller: Caller, model: AIModel, said: str, *, is_stream: bool) -> bytes:
    turns = [{"role": "user", "content": said}]
    named: dict[str, Any] = {"model": model.name, "stream": is_stream}
    if client == "anthropic":
        return post(caller, named | {"max_tokens": 50, "messages": turns}, "/v1/messages")
    if client == "openai":
        return post(caller, named | {"messages": turns})
    if client == "openai-responses":
        return post(caller, named | {"input": said}, "/v1/responses")
    method = "streamGenerateContent?alt=sse" if is_stream else "generateContent"
    contents = {"contents": [{"role": "user", "parts": [{"text": said}]}]}
    return post(caller, contents, f"/v1beta/models/{model.name}:{method}")


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("client", PROVIDER_DIALECTS)
def test_nothing_of_the_provider_leaks_and_no_failure_looks_whole(
    provided: tuple[Bench, Caller, dict[str, AIModel]], client: str, way: str
) -> None:
    bench, caller, models = provided

    for is_stream in (False, True):
        with RawConnection(bench.gateway.port) as connection:
            connection.send(_request(client, caller, models[way], f"<{way}>", is_stream=is_stream))
            while connection.read_more():
                head, _, body = connection.received.partition(b"\r\n\r\n")
                if b"content-length" in head and body.endswith(b"}"):
                    break  # An error, whole.
            received = connection.received

        assert KEY.encode() not in received
        assert OWNER.encode() not in received
        assert ENDS[client] not in received
        is_broken_off = is_stream and way in STREAMED
        assert received.startswith(b"HTTP/1.1 200 ") is is_broken_off
        assert b"error" in received
        if is_broken_off:
            assert b"Hi" in received
            assert not received.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        (
            "/v1beta/models/MODEL:generateContent",
            {"contents": [{"parts": [{"text": "a"}] * (PIECES_MAX - 1)}]},
            b"200",
        ),
        ("/v1/responses", {"model": "MODEL", "input": [{"a": 1}] * 100_000}, b"400"),
    ],
    ids=["to convert", "to check"],
)
def test_a_body_that_takes_long_keeps_nobody_waiting(
    bench: Bench, path: str, body: dict[str, Any], status: bytes
) -> None:
    stage = bench.stage("demo-chat:prompt=10")
    request = post_bytes(
        stage.caller,
        orjson.dumps(body).replace(b"MODEL", stage.model.name.encode()),
        path.replace("MODEL", stage.model.name),
    )
    waits = []

    with RawConnection(bench.gateway.port) as slow, RawConnection(bench.gateway.port) as other:
        begun = time.monotonic()
        slow.send(request)
        while not slow.read_what_came():  # bounded by the waits of the other one
            asked = time.monotonic()
            other.received = b""
            other.send(b"GET /livez HTTP/1.1\r\nHost: gateway\r\n\r\n")
            other.read_until(b"}")
            waits.append(time.monotonic() - asked)
            assert asked - begun < 60
        seconds = time.monotonic() - begun

    assert slow.received.startswith(b"HTTP/1.1 " + status)
    assert seconds > 0.1  # of which the conversion or the check is the most
    assert max(waits) < seconds / 2


def test_a_body_that_takes_longer_to_convert_is_refused_by_what_holds_its_pieces(
    bench: Bench,
) -> None:
    stage = bench.stage("demo-chat:prompt=10")
    contents = {"contents": [{"parts": [{"text": "a"}] * PIECES_MAX}]}
    path = f"/v1beta/models/{stage.model.name}:generateContent"

    with RawConnection(bench.gateway.port) as connection:
        connection.send(post(stage.caller, contents, path))
        refusal = connection.read_until(b"]}}")

    assert refusal.startswith(b"HTTP/1.1 400 ")
    assert b'"field":"contents"' in refusal
    assert stage.upstream_calls == []
