"""How long a client may take for a piece of its answer, and how large that may be."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import uvicorn

from apps.core.ids import new_uuid7
from apps.proxy.admission import plan_call
from apps.proxy.call import Call
from apps.proxy.delivery import Delivery
from apps.proxy.dialects.openai_request import parse_request
from apps.proxy.endings import Reason
from apps.proxy.gateway import Gateway
from apps.proxy.protocol import DrainableState, GatewayProtocol
from apps.proxy.tests.values import NOW, make_caller, make_snapshot
from apps.proxy.weight import Weight

IDLE_SECONDS = 60.0
EVENT = b"data: " + b"x" * 1_000_000 + b"\n\n"
OVER = b"data: it is over\n\n"
# So that hardly anything is on its way: what counts is what the client has taken.
BUFFER_BYTES = 4096


class Sending:
    """A call whose answer is one large event, on a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 1_000.0
        gateway = Gateway()
        gateway.monotonic = lambda: self.now
        body = {"model": "gpt", "messages": [{"role": "user", "content": "Hi"}]}
        request = parse_request("chat/completions", body)
        self.call = Call(
            gateway,
            plan_call(make_snapshot(b"d" * 32), make_caller(), request, NOW),
            request_id=new_uuid7(),
            body=b"{}",
            path="/v1/chat/completions",
            address="127.0.0.1",
            user_agent="tests",
            now=NOW,
            begun=self.now,
            weight=Weight(gateway, 1),
        )
        self.was_cut = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer."""
        delivery = Delivery(self.call, scope["extensions"]["gateway.connection"], [])
        self.call.open_to_interruption()
        self.call.deadline = self.now + IDLE_SECONDS
        delivery.start(is_stream=True)
        try:
            await delivery.send(EVENT, IDLE_SECONDS)
        except asyncio.CancelledError:
            reason = self.call.translate_cancellation().reason
            self.was_cut = True
            if reason == "client":
                delivery.drop()
            else:
                await delivery.break_off(OVER)
            return
        self.call.close_to_interruption()
        await delivery.end(b"data: [DONE]\n\n")

    async def wait_until_full(self) -> None:
        """Return when the client takes nothing any more."""
        async with asyncio.timeout(10):
            while not self.call.is_sending:  # noqa: ASYNC110 (nobody tells when)
                await asyncio.sleep(0.001)

    def pass_time(self, seconds: float) -> None:
        """Let time pass, and the gateway look after the call."""
        self.now += seconds
        self.call.on_tick(self.now)


@asynccontextmanager
async def asked(sending: Sending) -> AsyncIterator[socket.socket]:
    loop = asyncio.get_running_loop()
    config = uvicorn.Config(sending, lifespan="off")
    config.load()
    listener = socket.create_server(("127.0.0.1", 0))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
    state = DrainableState()
    server = await loop.create_server(lambda: GatewayProtocol(config, state, {}), sock=listener)
    client = socket.socket()
    client.setblocking(False)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER_BYTES)
    try:
        await loop.sock_connect(client, listener.getsockname())
        await loop.sock_sendall(client, b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 0\r\n\r\n")
        yield client
    finally:
        client.close()
        server.close()


async def test_a_client_that_takes_something_all_the_time_gets_all_of_a_large_event() -> None:
    loop = asyncio.get_running_loop()
    sending = Sending()
    async with asked(sending) as client:
        received = 0
        noticed = 0
        while part := await loop.sock_recv(client, 1 << 16):
            received += len(part)
            if received - noticed > 100_000:
                noticed = received
                sending.pass_time(IDLE_SECONDS * 0.9)
            if part.endswith(b"\r\n0\r\n\r\n"):
                break

    assert received > len(EVENT)
    assert not sending.was_cut
    assert sending.now > 1_000 + 8 * IDLE_SECONDS


async def test_one_that_takes_nothing_is_cut_off() -> None:
    sending = Sending()
    async with asked(sending):
        await sending.wait_until_full()
        sending.pass_time(IDLE_SECONDS * 0.9)
        await asyncio.sleep(0)
        was_cut_early = sending.was_cut
        sending.pass_time(IDLE_SECONDS * 0.2)
        async with asyncio.timeout(10):
            while not sending.was_cut:  # noqa: ASYNC110 (as above)
                await asyncio.sleep(0.001)

    assert not was_cut_early
    assert sending.call.is_client_gone


async def test_what_breaks_a_stream_off_does_not_come_inside_an_event() -> None:
    loop = asyncio.get_running_loop()
    sending = Sending()
    received = b""
    async with asked(sending) as client:
        await sending.wait_until_full()
        sending.call.interrupt("limit")
        while part := await loop.sock_recv(client, 1 << 16):
            received += part

    chunks = received.partition(b"\r\n\r\n")[2].split(b"\r\n")[1::2]
    assert sending.was_cut
    assert b"".join(chunks) == EVENT + OVER


async def test_one_that_has_been_sent_256_mebibytes_is_sent_no_more() -> None:
    call = Sending().call
    piece = bytes(1 << 20)

    async def stream(count: int) -> Reason | None:
        call.open_to_interruption()
        for _ in range(count):
            call.capture(piece)
        call.on_tick(1_000.5)
        try:
            await asyncio.sleep(0)
        except asyncio.CancelledError:
            return call.translate_cancellation().reason
        finally:
            call.close_to_interruption()
        return None

    assert await stream(256) is None
    assert await stream(1) == "limit"
    assert not call.is_client_gone
