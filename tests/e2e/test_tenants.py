"""Many clients through the same connections: nobody gets what is another's (P14, P15).

The provider answers with the marker in the prompt.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator

import orjson
import pytest

from tests.e2e.answers import ask
from tests.e2e.raw_upstream import Heard, RawUpstream, chunk, completion, respond, usage_chunk
from tests.e2e.wire import body_of, events_of, post, text_of
from tests.support.bench import Bench, Caller, Stage

CHAT = "/v1/chat/completions"
CLIENTS = 300  # 200 of them stream
ROUNDS = 2
# Every seventh client leaves when it has seen so many bytes, by turns.
LEAVES_AT = (1, 400, 700)
# All answers of a round stand open at once; a machine under load takes a while to come to that.
ROUND_SECONDS = 120.0
PAUSE_SECONDS = 0.25
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
)
MARKER = re.compile(rb"marker-[0-9]{4}")


def say(heard: Heard) -> list[bytes]:
    """Answer with the prompt."""
    return [respond(completion(heard.prompt))]


@pytest.fixture(scope="module")
def echo(module_bench: Bench) -> Iterator[tuple[Stage, RawUpstream]]:
    """Run the provider, and make a model of it."""
    with RawUpstream(say) as upstream:
        provider = module_bench.make_provider(upstream.base_url)
        yield module_bench.stage("raw", provider=provider), upstream


def _piece(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


class Choir:
    """A provider that holds all answers of a round open until all of its calls have come."""

    def __init__(self) -> None:
        self.upstream = RawUpstream(self.say, pause_seconds=PAUSE_SECONDS)
        self.wanted = CLIENTS  # calls, up to the end of this round

    def say(self, heard: Heard) -> Iterable[bytes]:
        """Answer with the prompt, whole or in four events."""
        prompt = heard.prompt
        if heard.json.get("stream") is not True:
            yield from self._wait()
            # A second answer stands behind the first one of some: nobody asked for it.
            more = respond(completion(prompt + " again")) if prompt.endswith("0") else b""
            yield respond(completion(prompt)) + more
            return
        yield STREAM_HEAD + _piece(chunk(f"{prompt} 0"))
        yield from self._wait()
        for number in range(1, 4):
            yield _piece(chunk(f", {prompt} {number}"))
        ending = (chunk("", "stop"), usage_chunk(), b"data: [DONE]\n\n")
        yield b"".join(map(_piece, ending)) + b"0\r\n\r\n"

    def _wait(self) -> Iterable[bytes]:
        for _ in range(int(ROUND_SECONDS / PAUSE_SECONDS)):
            if len(self.upstream.heard) >= self.wanted:
                return
            yield b""


async def _one(stage: Stage, caller: Caller, number: int, leaves_at: int | None) -> bytes:
    """Make a call with a marker, and return what was seen of its answer."""
    is_stream = number % 3 > 0
    messages = [{"role": "user", "content": f"marker-{number:04d}"}]
    body = stage.body(messages=messages, stream=is_stream)
    reader, writer = await asyncio.open_connection("127.0.0.1", stage.bench.gateway.port)
    received = b""
    try:
        writer.write(post(caller, body))
        mark = b"data: [DONE]\n\n\r\n0\r\n\r\n" if is_stream else b"}}"
        while mark not in received:  # bounded by the time of the round
            part = await reader.read(65_536)
            assert part, f"the answer of {number} is not whole: {received!r}"
            received += part
            if leaves_at is not None and len(received) >= leaves_at:
                break
    finally:
        writer.transport.abort()
    return received


async def _sing(stage: Stage, callers: list[Caller], leaving: dict[int, int]) -> list[bytes]:
    async with asyncio.timeout(ROUND_SECONDS):
        return await asyncio.gather(
            *(
                _one(stage, callers[number % 2], number, leaving.get(number))
                for number in range(CLIENTS)
            )
        )


@pytest.mark.long
def test_no_marker_of_200_parallel_streams_is_seen_by_another_client(bench: Bench) -> None:
    choir = Choir()
    leaving = {
        number: LEAVES_AT[position % len(LEAVES_AT)]
        for position, number in enumerate(range(3, CLIENTS, 7))
    }

    with choir.upstream as upstream:
        stage = bench.stage("raw", provider=bench.make_provider(upstream.base_url))
        callers = [stage.caller, bench.make_caller()]
        rounds = []
        for number in range(1, ROUNDS + 1):
            choir.wanted = number * CLIENTS
            rounds.append(asyncio.run(_sing(stage, callers, leaving)))
        heard, connections = len(upstream.heard), upstream.connections

    for answers in rounds:
        for number, received in enumerate(answers):
            marker = f"marker-{number:04d}"
            assert set(MARKER.findall(received)) <= {marker.encode()}
            if number in leaving:
                continue
            if number % 3:
                expected = ", ".join(f"{marker} {part}" for part in range(4))
                assert text_of(events_of(received)) == expected
            else:
                assert orjson.loads(body_of(received))["choices"][0]["message"]["content"] == marker
    # All of a round ran at once, and the second one over connections of the first: else this
    # shows nothing.
    assert heard == ROUNDS * CLIENTS
    assert CLIENTS <= connections < heard
    rows = [row for caller in callers for row in bench.settled(caller, CLIENTS).rows]
    assert len({row.pk for row in rows}) == len(rows) == ROUNDS * CLIENTS


def test_cookies_and_keys_of_one_call_are_not_sent_with_the_next(
    bench: Bench, echo: tuple[Stage, RawUpstream]
) -> None:
    stage, upstream = echo
    before = len(upstream.heard)
    body = orjson.dumps(stage.body(messages=[{"role": "user", "content": "marker-0001"}]))

    for number in range(3):
        headers = {**stage.caller.headers, "Cookie": f"a={number}", "X-Mine": str(number)}
        assert ask(bench.gateway, "POST", CHAT, headers=headers, body=body).status == 200

    heads = [heard.lines for heard in upstream.heard[before:]]
    without_id = [[line for line in head if "x-request-id" not in line] for head in heads]
    assert without_id[0] == without_id[1] == without_id[2]
    assert "cookie" not in str(heads).lower()
    assert "x-mine" not in str(heads).lower()


def test_the_same_idempotency_key_of_two_users_is_two_calls(
    bench: Bench, echo: tuple[Stage, RawUpstream]
) -> None:
    stage, upstream = echo
    callers = [stage.caller, bench.make_caller()]
    before = len(upstream.heard)
    texts = []

    for number, caller in enumerate(callers):
        messages = [{"role": "user", "content": f"marker-{number:04d}"}]
        headers = {**caller.headers, "Idempotency-Key": "the-same-key-of-both"}
        body = orjson.dumps(stage.body(messages=messages))
        answer = ask(bench.gateway, "POST", CHAT, headers=headers, body=body)
        texts.append(orjson.loads(answer.body)["choices"][0]["message"]["content"])

    assert texts == ["marker-0000", "marker-0001"]
    assert len(upstream.heard) - before == 2
