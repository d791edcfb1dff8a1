"""A pass-through without any gateway logic: bare ASGI and aiohttp, the yardstick of the gateway.

Run by uvicorn with uvloop and httptools; UPSTREAM is where calls go.
"""

from __future__ import annotations

import os
from collections.abc import Awaitable, Callable
from typing import Any

import aiohttp

Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]
_sessions: list[aiohttp.ClientSession] = []


async def app(scope: dict[str, Any], receive: Receive, send: Send) -> None:
    """Send a request on, and its answer back as it comes."""
    if scope["type"] == "lifespan":
        await receive()
        connector = aiohttp.TCPConnector(limit=0)
        _sessions.append(aiohttp.ClientSession(connector=connector, auto_decompress=False))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await _sessions.pop().close()
        await send({"type": "lifespan.shutdown.complete"})
        return
    message = await receive()
    body = message.get("body", b"")
    while message.get("more_body"):  # bounded by what the benchmark sends
        message = await receive()
        body += message.get("body", b"")
    url = os.environ["UPSTREAM"] + scope["path"]
    headers = {"authorization": "Bearer sk-upstream", "content-type": "application/json"}
    async with _sessions[0].post(url, data=body, headers=headers) as answer:
        kind = answer.headers["content-type"].encode()
        head = {"status": answer.status, "headers": [(b"content-type", kind)]}
        await send({"type": "http.response.start", **head})
        if answer.content_length is not None:
            await send({"type": "http.response.body", "body": await answer.read()})
            return
        async for part in answer.content.iter_any():
            await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": b""})
