"""Clients of the gateways: many at once, on an event loop in a thread beside the test."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import orjson

_END: Final = b"data: [DONE]\n\n"
_TAIL_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one client saw of one call."""

    status: int  # 0 where nothing was answered
    request_id: str
    kind: str  # of the error: its type
    is_whole: bool  # the answer was complete
    seconds: float
    ended_at: float  # monotonic
    cap: int | None  # the lowered maximum that the gateway told
    retry_after: int | None  # seconds


class Crowd:
    """Makes calls and collects what became of them."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._session: aiohttp.ClientSession
        self._calls: list[Future[Outcome]] = []
        self._barrier = asyncio.Event()
        self.streaming = 0  # streams of which something has arrived and more is to come
        self._run(self._open())

    def call(self, url: str, key: str, body: dict[str, Any], *, count: int = 1) -> None:
        """Start calls and return."""
        self._barrier.set()
        self.line_up(url, key, body, count=count)

    def line_up(self, url: str, key: str, body: dict[str, Any], *, count: int) -> None:
        """Have clients wait until all are released at once."""
        self._calls += [self.start(self._call(url, key, body)) for _ in range(count)]

    def release(self) -> None:
        """Let all clients that wait go at once."""
        self._loop.call_soon_threadsafe(self._barrier.set)

    def repeat(
        self, url: str, key: str, body: dict[str, Any], *, until: Callable[[], bool]
    ) -> Future[list[Outcome]]:
        """Make one call after the other until told, and return what became of them."""
        self._barrier.set()
        return self.start(self._repeat(url, key, body, until))

    def start(self, work: Coroutine[Any, Any, Any]) -> Future[Any]:
        """Run work of another kind on the clients' event loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def wait(self, timeout_seconds: float) -> list[Outcome]:
        """Return what became of all calls since the last wait."""
        deadline = time.monotonic() + timeout_seconds
        calls, self._calls = self._calls, []
        return [call.result(max(0.0, deadline - time.monotonic())) for call in calls]

    def stop(self) -> None:
        """End everything."""
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _open(self) -> None:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, force_close=True),
            timeout=aiohttp.ClientTimeout(total=180),
        )

    async def _close(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self._session.close()

    async def _repeat(
        self, url: str, key: str, body: dict[str, Any], until: Callable[[], bool]
    ) -> list[Outcome]:
        outcomes = []
        while not until():
            outcomes.append(await self._call(url, key, body))
            if outcomes[-1].status != 200:
                await asyncio.sleep(0.05)
        return outcomes

    async def _call(self, url: str, key: str, body: dict[str, Any]) -> Outcome:
        await self._barrier.wait()
        began = time.monotonic()
        status, request_id, kind, is_whole, cap, retry_after = 0, "", "", False, None, None
        try:
            async with self._session.post(
                f"{url}/v1/chat/completions",
                data=orjson.dumps(body),
                headers={"authorization": f"Bearer {key}", "content-type": "application/json"},
            ) as answer:
                status = answer.status
                request_id = answer.headers.get("x-request-id", "")
                if "x-gateway-output-cap" in answer.headers:
                    cap = int(answer.headers["x-gateway-output-cap"])
                if "retry-after" in answer.headers:
                    retry_after = int(answer.headers["retry-after"])
                if status == 200 and body.get("stream"):
                    is_whole = await self._read_stream(answer)
                elif status == 200:
                    is_whole = bool(orjson.loads(await answer.read())["choices"])
                else:
                    kind = orjson.loads(await answer.read())["error"]["type"]
        except (aiohttp.ClientError, OSError):
            pass  # Cut off: what had come until then is the outcome.
        now = time.monotonic()
        return Outcome(status, request_id, kind, is_whole, now - began, now, cap, retry_after)

    async def _read_stream(self, answer: aiohttp.ClientResponse) -> bool:
        tail = b""
        self.streaming += 1
        try:
            async for data in answer.content.iter_any():
                tail = (tail + data)[-_TAIL_BYTES:]
        finally:
            self.streaming -= 1
        return tail.endswith(_END)
