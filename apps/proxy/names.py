"""Which addresses the names of providers have, and which of them may be connected to.

Bounds: LOOK_UPS_MAX names are looked up at once, each of them once, in threads of their own: a
server for names that does not answer keeps a thread for as long as the system's resolver tries.
"""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

from apps.core.addresses import AllowedNetwork, is_address_allowed

NAME_SECONDS: Final = 10.0
LOOK_UPS_MAX: Final = 32
_DNS_SECONDS: Final = 5.0
# How long a look-up may take before what was found last is used, and for how long that may be.
LATE_SECONDS: Final = 1.0
LAST_SECONDS: Final = 600.0
# Said by a server that answers: what was found last is not true any more.
_NOT_THERE: Final = (socket.EAI_NONAME, socket.EAI_NODATA)
_NAMES_MAX: Final = 10_000

Address = tuple[Any, Any, int, str, tuple[Any, ...]]  # as getaddrinfo returns it


class AddressRefused(OSError):
    """A provider's name resolves to an address that must not be connected to."""


class _Name:
    """What is known of one name."""

    __slots__ = ("addresses", "found_at", "looking")

    def __init__(self) -> None:
        self.addresses: list[Address] = []
        self.found_at = 0.0  # of the loop's clock
        self.looking: asyncio.Task[list[Address]] | None = None


class GuardedNames:
    """Resolves names and lets only allowed addresses through.

    One forbidden address refuses the name. What was found is kept for NAME_SECONDS, where a look-up
    is late or fails for LAST_SECONDS, and checked anew for every connection.
    """

    def __init__(self, private: tuple[AllowedNetwork, ...]) -> None:
        self._private = private
        self._names: dict[tuple[str, int], _Name] = {}
        self._threads = ThreadPoolExecutor(LOOK_UPS_MAX, thread_name_prefix="names")

    async def resolve(self, host: str, port: int, *, is_private_only: bool) -> list[Address]:
        """Return the addresses of `host`, a name or an address. Raises AddressRefused, OSError."""
        found = await self._find(host, port)
        for address in found:
            ip = str(address[4][0])
            if not is_address_allowed(ip, port, self._private, is_private_only=is_private_only):
                raise AddressRefused(f"an address of {host} is not allowed")
        return found

    def close(self) -> None:
        """Look up no more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _find(self, host: str, port: int) -> list[Address]:
        name = self._names.get((host, port))
        if name is None:
            if len(self._names) >= _NAMES_MAX:
                self._names.clear()
            name = self._names[host, port] = _Name()
        loop = asyncio.get_running_loop()
        age = loop.time() - name.found_at
        if name.addresses and age <= NAME_SECONDS:
            return name.addresses
        if name.looking is None:
            name.looking = loop.create_task(self._look_up(name, host, port))
        is_known = bool(name.addresses) and age <= LAST_SECONDS
        try:
            async with asyncio.timeout(LATE_SECONDS if is_known else _DNS_SECONDS):
                # Others wait for the same answer, and those who come later for one that is late.
                return await asyncio.shield(name.looking)
        except (TimeoutError, socket.gaierror) as error:
            if is_known and error.errno not in _NOT_THERE:
                return name.addresses
            raise

    async def _look_up(self, name: _Name, host: str, port: int) -> list[Address]:
        loop = asyncio.get_running_loop()
        ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
        try:
            name.addresses = await loop.run_in_executor(self._threads, ask)
            name.found_at = loop.time()
            return name.addresses
        finally:
            name.looking = None
