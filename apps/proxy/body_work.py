"""What is done with bodies before a call has a hold: they are parsed, checked and converted.

Large bodies are worked on in threads, so that small calls go on beside them. A thread that works
takes half of the interpreter all the same, and nobody has been asked for money yet: so there are
THREADS, a user has one of them at a time, and WAITING_BYTES_MAX of his bodies wait. Whoever sends
what takes long keeps the large bodies of others waiting for one of his own, and no longer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from apps.core.errors import GatewayError
from apps.proxy.http import BODY_BYTES_MAX

T = TypeVar("T")

# The smallest parts of a body take some ten microseconds each: a larger one must not keep the calls
# beside it waiting.
IN_LOOP_BYTES_MAX: Final = 64 << 10
THREADS: Final = 2
# One of the largest, or many smaller ones: four times as much is set aside for them, half of all.
WAITING_BYTES_MAX: Final = BODY_BYTES_MAX


@dataclass(slots=True)
class _OfUser:
    turn: asyncio.Lock = field(default_factory=asyncio.Lock)
    waiting_bytes: int = 0  # also of the one that is worked on


class BodyWork:
    """The threads of one process for large bodies. Belongs to the event loop."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="bodies")
        self._users: dict[int, _OfUser] = {}

    async def run(self, user_id: int, size: int, function: Callable[..., T], *arguments: Any) -> T:
        """Return what a function makes of a body of so many bytes, at once where that is small.

        Raises E37 where too much of its user's waits, and what the function raises.
        """
        if size <= IN_LOOP_BYTES_MAX:
            return function(*arguments)
        of_user = self._users.setdefault(user_id, _OfUser())
        if of_user.waiting_bytes + size > WAITING_BYTES_MAX:
            raise GatewayError("E37")
        of_user.waiting_bytes += size
        try:
            async with of_user.turn:
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(self._threads, function, *arguments)
        finally:
            of_user.waiting_bytes -= size
            if not of_user.waiting_bytes:
                del self._users[user_id]

    def close(self) -> None:
        """Take no more work."""
        self._threads.shutdown(wait=False, cancel_futures=True)
