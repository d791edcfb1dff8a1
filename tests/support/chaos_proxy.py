"""A TCP proxy on the loopback interface that can go bad: slow, silent, cut, reset."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from random import Random
from typing import Any, Final

_CHUNK: Final = 64 << 10
_CONNECT_SECONDS: Final = 5.0
# Abort instead of an orderly end: the peer gets a reset.
_LINGER_OFF: Final = struct.pack("ii", 1, 0)


class ChaosProxy:
    """Forwards to a port of the loopback interface, on an event loop in a thread of its own.

    `blackhole` swallows all bytes, both ways, and lets connections be made that nobody answers.
    With `answer_bytes_max` each connection ends when so much of an answer has gone through, with a
    reset where `is_reset`, else in order.
    """

    def __init__(self, target_port: int) -> None:
        self.port = 0
        self.latency_seconds = 0.0  # each way
        self.answer_bytes_max: int | None = None
        self.is_reset = False
        self.target_port = target_port
        self._is_open = asyncio.Event()
        self._is_cut = False
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._server: asyncio.Server
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self) -> None:
        """Listen on a free port."""
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(_CONNECT_SECONDS)

    def stop(self) -> None:
        """Reset what is open, stop listening and end the thread."""
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result(_CONNECT_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_CONNECT_SECONDS)
        self._loop.close()

    def blackhole(self) -> None:
        """Swallow everything from now on."""
        self._loop.call_soon_threadsafe(self._is_open.clear)

    def cut(self) -> None:
        """Reset all connections and refuse new ones."""
        self._loop.call_soon_threadsafe(self._reset, True)

    def reset(self) -> None:
        """Reset all connections; new ones are served."""
        self._loop.call_soon_threadsafe(self._reset, False)

    def reset_one(self, random: Random) -> bool:
        """Reset one side of a connection; return whether there was one."""
        resetting = asyncio.run_coroutine_threadsafe(self._reset_one(random), self._loop)
        return resetting.result(_CONNECT_SECONDS)

    def heal(self) -> None:
        """Serve again. What was swallowed is lost with its connections."""
        self._loop.call_soon_threadsafe(self._heal)

    async def _listen(self) -> None:
        self._is_open.set()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self._server.close()
        self._reset(True)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _reset(self, is_cut: bool) -> None:
        self._is_cut = is_cut
        for writer in list(self._writers):
            _abort(writer)

    async def _reset_one(self, random: Random) -> bool:
        writers = list(self._writers)
        if writers:
            _abort(random.choice(writers))
        return bool(writers)

    def _heal(self) -> None:
        if not self._is_open.is_set():
            self._reset(False)
        self._is_cut = False
        self._is_open.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writers.add(writer)
        if self._is_cut:
            self._reset(True)
        try:
            await self._is_open.wait()
            upstream_reader, upstream = await asyncio.open_connection("127.0.0.1", self.target_port)
            self._writers.add(upstream)
            try:
                await asyncio.gather(
                    self._pump(reader, upstream, None),
                    self._pump(upstream_reader, writer, self.answer_bytes_max),
                )
            finally:
                self._writers.discard(upstream)
                upstream.close()
        except OSError:
            pass  # One side is gone; so is the other, now.
        finally:
            self._writers.discard(writer)
            self._tasks.discard(task)
            writer.close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, bytes_max: int | None
    ) -> None:
        left = bytes_max
        while data := await reader.read(_CHUNK):
            if self.latency_seconds:
                await asyncio.sleep(self.latency_seconds)
            await self._is_open.wait()
            if left is not None and len(data) >= left:
                writer.write(data[:left])
                await writer.drain()
                if self.is_reset:
                    # What was written is on its way; a reset at once would take it back.
                    await asyncio.sleep(0.005)
                    _abort(writer)
                raise ConnectionAbortedError("as much of the answer as may pass")
            left = None if left is None else left - len(data)
            writer.write(data)
            await writer.drain()
        writer.close()


def _abort(writer: asyncio.StreamWriter) -> None:
    channel: socket.socket = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_OFF)
    writer.transport.abort()
