"""A thread for blocking work that the event loop waits for, but not for ever."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

from django.db import connections

T = TypeVar("T")


class DeadlineThread:
    """Runs one function at a time, on a database connection of its own."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._pool = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def run(self, seconds: float, function: Callable[..., T], *arguments: Any) -> T:
        """Run a function and return what it returns. Raises TimeoutError.

        A thread that hangs on a silent connection is left to its timeouts; the next function gets
        another one.
        """
        loop = asyncio.get_running_loop()
        running = loop.run_in_executor(
            self._pool, with_fresh_connection, partial(function, *arguments)
        )
        try:
            return await asyncio.wait_for(running, seconds)
        except TimeoutError:
            self.close()
            self._pool = ThreadPoolExecutor(1, thread_name_prefix=self._name)
            raise

    def close(self) -> None:
        """Take no more work."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def with_fresh_connection(function: Callable[[], T]) -> T:
    """Run a function on this thread's connection and drop the connection where it broke."""
    try:
        return function()
    except BaseException:
        connections.close_all()
        raise
