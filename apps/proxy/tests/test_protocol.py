"""The gateway's side of a connection: what is read from it, and when it is closed.

Over 400 lines because all of it is about one class, on real sockets.
"""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest
import uvicorn

from apps.proxy import protocol
from apps.proxy.protocol import Connection, DrainableState, GatewayProtocol
from tests.support.processes import until

IDLE_SECONDS = 100
REQUEST = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


class Clock:
    """The loop's time, moved by hand; what is to be called later is called by hand as well."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.now = 1_000.0
        self.timers: list[tuple[float, asyncio.TimerHandle]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loop, name)

    def time(self) -> float:
        """Return the time."""
        return self.now

    def call_later(self, delay: float, callback: Any, *args: Any) -> asyncio.TimerHandle:
        """Keep a timer for `advance`."""
        timer = asyncio.TimerHandle(self.now + delay, callback, args, self._loop)
        self.timers.append((self.now + delay, timer))
        return timer

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        due = [timer for at, timer in self.timers if at <= self.now]
        self.timers = [(at, timer) for at, timer in self.timers if at > self.now]
        for timer in due:
            if not timer.cancelled():
                timer._run()

    @property
    def waiting(self) -> int:
        """How many timers have not been cancelled."""
        return sum(not timer.cancelled() for _, timer in self.timers)


async def answer(scope: Any, receive: Any, send: Any) -> None:
    """Answer with nothing."""
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


class Provider:
    """Answers with an event stream, once the test says what comes."""

    def __init__(self) -> None:
        self.begins, self.ends = asyncio.Event(), asyncio.Event()
        self.calls = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one call."""
        self.calls += 1
        connection = scope["extensions"]["gateway.connection"]
        await self.begins.wait()
        connection.begin([], length=None)
        connection.write(b"data: 1\n\n")
        await self.ends.wait()
        connection.end(b"data: [DONE]\n\n")


@asynccontextmanager
async def connected(
    state: DrainableState, app: Any = answer
) -> AsyncIterator[tuple[Clock, asyncio.StreamReader, asyncio.StreamWriter]]:
    loop = asyncio.get_running_loop()
    clock = Clock(loop)
    config = uvicorn.Config(app, timeout_keep_alive=IDLE_SECONDS, lifespan="off")
    config.load()
    server = await loop.create_server(
        lambda: GatewayProtocol(config, state, {}, _loop=clock), "127.0.0.1", 0
    )
    reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    try:
        yield clock, reader, writer
    finally:
        writer.close()
        server.close()


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(REQUEST)
    head = await reader.readuntil(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 204 ")


async def test_an_idle_connection_is_closed_after_its_time() -> None:
    async with connected(DrainableState()) as (clock, reader, writer):
        await ask(reader, writer)

        clock.advance(IDLE_SECONDS)

        assert await reader.read() == b""


async def test_idle_time_counts_from_the_last_answer() -> None:
    async with connected(DrainableState()) as (clock, reader, writer):
        await ask(reader, writer)
        clock.advance(IDLE_SECONDS - 1)
        await ask(reader, writer)

        clock.advance(IDLE_SECONDS - 1)
        await ask(reader, writer)
        clock.advance(IDLE_SECONDS)

        assert await reader.read() == b""


async def test_one_timer_looks_after_many_answers() -> None:
    async with connected(DrainableState()) as (clock, reader, writer):
        for _ in range(10):
            await ask(reader, writer)

        assert clock.waiting == 1


async def test_a_head_under_way_is_not_idleness(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEAD_SECONDS", IDLE_SECONDS * 2)
    state = DrainableState()
    async with connected(state) as (clock, reader, writer):
        await ask(reader, writer)
        (served,) = state.connections
        served.data_received(REQUEST[:10])

        clock.advance(IDLE_SECONDS)
        writer.write(REQUEST[10:])

        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 204 ")


async def test_a_server_about_to_end_closes_after_each_answer() -> None:
    state = DrainableState()
    async with connected(state) as (_, reader, writer):
        await ask(reader, writer)
        state.is_draining = True
        await ask(reader, writer)

        assert await reader.read() == b""


@pytest.mark.parametrize("has_begun", [False, True])
async def test_a_stream_under_way_ends_with_its_connection_once_the_server_is_to_end(
    has_begun: bool,
) -> None:
    state, provider = DrainableState(), Provider()
    async with connected(state, provider) as (clock, reader, writer):
        writer.write(REQUEST)
        if has_begun:
            provider.begins.set()
            await reader.readuntil(b"data: 1\n\n")
        else:
            await until(lambda: provider.calls == 1)
        (served,) = state.connections
        served.shutdown()
        provider.begins.set()
        provider.ends.set()

        rest = await reader.read()

        assert rest.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        assert b"connection: close" not in rest
        assert clock.waiting == 0


async def test_requests_that_nobody_waits_for_do_not_pile_up() -> None:
    provider = Provider()
    state = DrainableState()
    async with connected(state, provider) as (_, reader, writer):
        writer.write(REQUEST * (protocol.PIPELINED_MAX + 1))
        await until(lambda: provider.calls == 1)
        (served,) = state.connections
        assert isinstance(served, GatewayProtocol)
        waiting = len(served.pipeline)
        provider.begins.set()
        served.flow.resume_reading()
        writer.write(REQUEST * 10_000)

        with suppress(ConnectionError):
            await reader.read()

        assert waiting == protocol.PIPELINED_MAX
        assert len(served.pipeline) == protocol.PIPELINED_MAX + 1
        assert provider.calls == 1


@pytest.mark.parametrize("more", [b"\r\n", REQUEST[:10], REQUEST + REQUEST[:10]])
async def test_what_comes_behind_a_request_does_not_cut_its_answer(more: bytes) -> None:
    provider = Provider()
    state = DrainableState()
    async with connected(state, provider) as (clock, reader, writer):
        writer.write(REQUEST)
        await until(lambda: provider.calls == 1)
        (served,) = state.connections
        served.data_received(more)

        clock.advance(protocol.HEAD_SECONDS)
        clock.advance(protocol.HEAD_SECONDS)
        provider.begins.set()
        provider.ends.set()

        assert b"data: 1" in await reader.readuntil(b"0\r\n\r\n")


class Echo:
    """Answers with the body, and keeps the names of the headers."""

    def __init__(self) -> None:
        self.names: list[bytes] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""
        self.names = [name for name, _ in scope["headers"]]
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message["body"], message["more_body"]
        length = (b"content-length", b"%d" % len(body))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        await send({"type": "http.response.body", "body": body})


class Watching(Provider):
    """Notes when its client leaves."""

    def __init__(self) -> None:
        super().__init__()
        self.lost = 0
        self.connections: list[Connection] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one call."""
        connection = scope["extensions"]["gateway.connection"]
        self.connections.append(connection)
        connection.on_lost(self._note)
        await super().__call__(scope, receive, send)

    def _note(self) -> None:
        self.lost += 1


@pytest.mark.parametrize("is_together", [True, False])
async def test_a_client_that_has_asked_for_more_and_leaves_is_noticed(is_together: bool) -> None:
    watching = Watching()
    async with connected(DrainableState(), watching) as (_, reader, writer):
        watching.begins.set()
        writer.write(REQUEST * 2 if is_together else REQUEST)
        await reader.readuntil(b"data: 1")
        if not is_together:
            writer.write(REQUEST * 2)
        writer.close()

        await until(lambda: watching.lost == 1)

        watching.ends.set()
        assert [one._cycle.disconnected for one in watching.connections] == [True]


OFFER = b"connection: Upgrade, HTTP2-Settings\r\nupgrade: h2c\r\nhttp2-settings: AAEAAEAA\r\n"
OFFERED = b"POST / HTTP/1.1\r\nhost: x\r\n" + OFFER


@pytest.mark.parametrize(
    "request_bytes",
    [
        OFFERED + b"content-length: 5\r\n\r\nhello",
        OFFERED + b"transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    ],
    ids=["length", "chunks"],
)
async def test_an_offer_of_another_protocol_is_passed_over_wherever_it_is_cut(
    request_bytes: bytes,
) -> None:
    echo = Echo()
    state = DrainableState()
    async with connected(state, echo) as (_, reader, _writer):
        await until(lambda: bool(state.connections))
        (served,) = state.connections
        for at in range(1, len(request_bytes) + 1):
            served.data_received(request_bytes[:at])
            served.data_received(request_bytes[at:] + request_bytes)

            for _ in range(2):
                head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 10)
                assert head.startswith(b"HTTP/1.1 200 ")
                assert await asyncio.wait_for(reader.readexactly(5), 10) == b"hello"
            assert b"upgrade" not in echo.names
            assert echo.names[:3] == [b"host", b"connection", b"http2-settings"]


async def test_who_wants_a_tunnel_gets_none() -> None:
    async with connected(DrainableState()) as (_, reader, writer):
        writer.write(b"CONNECT /x HTTP/1.1\r\nhost: x\r\n\r\n" + REQUEST)

        refusal = await asyncio.wait_for(reader.read(), 10)

        assert refusal.startswith(b"HTTP/1.1 400 ")
        assert refusal.count(b"HTTP/1.1 ") == 1


CHUNKED = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n"


async def test_what_comes_behind_a_body_is_not_kept() -> None:
    provider = Provider()
    state = DrainableState()
    async with connected(state, provider) as (_, reader, writer):
        writer.write(CHUNKED)
        await until(lambda: provider.calls == 1)
        (served,) = state.connections
        assert isinstance(served, GatewayProtocol)
        served.data_received(b"0\r\nauthorization: Bearer x\r\nexpect: 100-continue\r\n\r\n")
        provider.begins.set()
        provider.ends.set()
        await reader.readuntil(b"0\r\n\r\n")

        assert [name for name, _ in served.headers] == [b"host", b"transfer-encoding"]
        assert not served.expect_100_continue


@pytest.mark.parametrize("more", [b"0\r\n" + b"a:\r\n" * 16_384, b"0\r\na: " + b"x" * 65_536])
async def test_a_body_whose_trailers_do_not_end_is_refused(more: bytes) -> None:
    provider = Provider()
    state = DrainableState()
    async with connected(state, provider) as (_, reader, writer):
        writer.write(CHUNKED)
        await until(lambda: provider.calls == 1)
        (served,) = state.connections
        for start in range(0, len(more), 4_096):
            served.data_received(more[start : start + 4_096])

        refusal = await asyncio.wait_for(reader.read(), 10)

        assert refusal.startswith(b"HTTP/1.1 431 ")


@pytest.mark.parametrize("is_answered", [False, True])
async def test_small_chunks_are_no_trailers_however_many_they_are(is_answered: bool) -> None:
    provider = Provider()
    state = DrainableState()
    async with connected(state, answer if is_answered else provider) as (_, reader, writer):
        writer.write(CHUNKED)
        if is_answered:
            await reader.readuntil(b"\r\n\r\n")
        else:
            await until(lambda: provider.calls == 1)
        (served,) = state.connections
        for _ in range(200):
            served.data_received(b"1;" + b"a" * 1_000 + b"\r\n")
            served.data_received(b"x\r\n")
        served.data_received(b"0\r\n\r\n" + REQUEST)

        assert isinstance(served, GatewayProtocol)
        assert not served.transport.is_closing()


def leave_room_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    monkeypatch.setattr(protocol, "KEPT_DESCRIPTORS", most - 2)


async def test_who_comes_when_there_is_no_room_is_heard_once_and_the_others_stay(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    leave_room_for_one(monkeypatch)
    surplus = []

    async def note(scope: Any, receive: Any, send: Any) -> None:
        surplus.append(scope["extensions"]["gateway.connection"].is_surplus)
        await answer(scope, receive, send)

    state = DrainableState()
    async with connected(state, note) as (_, reader, writer):
        await ask(reader, writer)
        port = writer.get_extra_info("peername")[1]
        late_reader, late_writer = await asyncio.open_connection("127.0.0.1", port)

        await ask(late_reader, late_writer)
        after = await asyncio.wait_for(late_reader.read(), 10)
        await ask(reader, writer)
        late_writer.close()

    assert after == b""
    assert surplus == [False, True, False]
    assert state.surplus == 0


async def test_more_than_can_be_heard_are_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    leave_room_for_one(monkeypatch)
    monkeypatch.setattr(protocol, "SURPLUS_MAX", 1)
    state = DrainableState()
    async with connected(state) as (_, reader, writer):
        await ask(reader, writer)
        port = writer.get_extra_info("peername")[1]
        heard_reader, heard_writer = await asyncio.open_connection("127.0.0.1", port)
        await until(lambda: state.surplus == 1)
        told_reader, told_writer = await asyncio.open_connection("127.0.0.1", port)

        told = await asyncio.wait_for(told_reader.read(), 10)
        await ask(heard_reader, heard_writer)
        told_writer.close()
        heard_writer.close()
        await until(lambda: state.surplus == 0)

    head = told.partition(b"\r\n\r\n")[0]
    assert head.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
    assert b"\r\nretry-after: 1\r\n" in head
    assert head.endswith(b"\r\nconnection: close")
