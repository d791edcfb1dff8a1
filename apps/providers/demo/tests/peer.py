"""A raw client for the demo provider, and readers of what it sends."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp

from apps.providers.demo import DemoProvider
from apps.providers.demo.calls import Call

MESSAGES = [{"role": "user", "content": "0123456789abcdef"}]
WAIT_SECONDS_MAX = 5.0


class Peer:
    """A raw connection to the provider."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def ask(self, model: str, **fields: Any) -> None:
        """Send a chat request."""
        self.writer.write(write_request({"model": model, "messages": MESSAGES, **fields}))

    async def read_until(self, mark: bytes) -> bytes:
        """Return what arrives up to the mark."""
        return await asyncio.wait_for(self.reader.readuntil(mark), WAIT_SECONDS_MAX)

    async def read_all(self) -> bytes:
        """Return what arrives until the provider closes."""
        return await asyncio.wait_for(self.reader.read(), WAIT_SECONDS_MAX)

    async def read_response(self) -> bytes:
        """Return the body of one response with a content-length."""
        head = (await self.read_until(b"\r\n\r\n")).decode().lower()
        length = int(head.partition("content-length: ")[2].split("\r\n")[0])
        return await asyncio.wait_for(self.reader.readexactly(length), WAIT_SECONDS_MAX)


def write_request(body: dict[str, Any], *headers: str) -> bytes:
    content = json.dumps(body).encode()
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: demo", f"content-length: {len(content)}"]
    return "\r\n".join([*lines, *headers, "", ""]).encode() + content


@contextlib.asynccontextmanager
async def connect(provider: DemoProvider) -> AsyncIterator[Peer]:
    reader, writer = await asyncio.open_connection("127.0.0.1", provider.port, limit=2**26)
    try:
        yield Peer(reader, writer)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def ended(provider: DemoProvider, at: int = 0) -> Call:
    """Return the record once its call has ended."""
    async with asyncio.timeout(WAIT_SECONDS_MAX):
        while len(provider.calls) <= at or provider.calls[at]["ended"] is None:  # noqa: ASYNC110 - the record is no event
            await asyncio.sleep(0.001)
    return provider.calls[at]


async def post(
    provider: DemoProvider, model: str, path: str = "/chat/completions", **fields: Any
) -> tuple[int, dict[str, str], Any]:
    """Return status, headers and JSON of a call over aiohttp."""
    body = {"model": model, **({"messages": MESSAGES} if "chat" in path else {}), **fields}
    async with (
        aiohttp.ClientSession() as session,
        session.post(provider.base_url + path, json=body) as response,
    ):
        headers = {name.lower(): value for name, value in response.headers.items()}
        return response.status, headers, await response.json(content_type=None)


async def stream(provider: DemoProvider, model: str, **fields: Any) -> list[Any]:
    """Return the data of a stream's events over aiohttp; raises what the client sees."""
    body = {"model": model, "messages": MESSAGES, "stream": True, **fields}
    async with (
        aiohttp.ClientSession(read_bufsize=2**26) as session,
        session.post(provider.base_url + "/chat/completions", json=body) as response,
    ):
        content = await response.read()
    assert response.headers["content-type"] == "text/event-stream; charset=utf-8"
    return read_events(content)


def read_events(content: bytes) -> list[Any]:
    parts = content.decode().removesuffix("\n\n").split("\n\n")
    texts = [part.removeprefix("data: ") for part in parts]
    return [text if text == "[DONE]" else json.loads(text) for text in texts]


def dechunk(body: bytes) -> tuple[bytes, bool]:
    """Return the payload of a chunked body and whether the last chunk came."""
    payload = b""
    while body:
        line, _, rest = body.partition(b"\r\n")
        size = int(line, 16)
        if size == 0:
            return payload, True
        payload, body = payload + rest[:size], rest[size + 2 :]
    return payload, False


def words(events: list[Any]) -> str:
    return "".join(
        choice["delta"].get("content") or ""
        for event in events
        if isinstance(event, dict)
        for choice in event["choices"]
    )


async def collect(chunks: AsyncIterator[Any], into: list[Any]) -> None:
    async for chunk in chunks:
        into.append(chunk)
