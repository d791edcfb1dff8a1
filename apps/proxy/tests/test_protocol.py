"""The gateway's side of a connection: when one that is idle is closed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from apps.proxy import protocol
from apps.proxy.protocol import DrainableState, GatewayProtocol

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
    """Answer with nothing, and leave the connection open as after an event stream."""
    scope["extensions"]["gateway.connection"].keep_alive()
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})


@asynccontextmanager
async def connected(
    state: DrainableState,
) -> AsyncIterator[tuple[Clock, asyncio.StreamReader, asyncio.StreamWriter]]:
    loop = asyncio.get_running_loop()
    clock = Clock(loop)
    config = uvicorn.Config(answer, timeout_keep_alive=IDLE_SECONDS, lifespan="off")
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


async def test_a_server_about_to_end_keeps_no_idle_connection_for_long() -> None:
    state = DrainableState()
    async with connected(state) as (clock, reader, writer):
        await ask(reader, writer)
        state.is_draining = True
        await ask(reader, writer)

        clock.advance(protocol.LAST_IDLE_SECONDS)

        assert await reader.read() == b""
