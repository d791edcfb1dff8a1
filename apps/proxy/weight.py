"""The memory that is set aside for requests, and for large answers, each with a bound of its own.

A request for which there is no room is refused before anybody is asked. Of its body what has come
is set aside while more is to come, and one user has a quarter of all under way at most: who has no
money could else take everybody's room with what he only announces. An answer waits instead: its
provider has done the work and bills for it, and sends no more than sockets hold until it is read.
What a client has been sent and not yet taken when its call has ended is not counted.
"""

from __future__ import annotations

import asyncio
from typing import Final

from apps.core.errors import GatewayError
from apps.proxy.gateway import BYTES_IN_FLIGHT_MAX, Gateway

# Beside the body itself: its parsed form, what goes upstream, and the buffers of a stream.
_BYTES_PER_CALL: Final = 64 << 10
_BODY_COPIES: Final = 4
# What has come of one user's bodies that are not complete yet: two of the largest there may be.
ARRIVING_BYTES_MAX: Final = BYTES_IN_FLIGHT_MAX // 4
# Of an answer: its body, what it is parsed into, and what goes out. Vectors take three to five
# times their text while they are parsed, two to three later; texts and images once.
_ANSWER_COPIES: Final = 6
# What is set aside for all answers together before others wait: two of the largest there may be.
ANSWER_BYTES_IN_FLIGHT_MAX: Final = 384 << 20
# What an answer may come to that does not announce its length: so much is set aside at once.
_UNANNOUNCED_BYTES: Final = 4 << 20
# How long an answer waits for room.
ROOM_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.02


class Weight:
    """The memory that is set aside for one request and its answer."""

    def __init__(self, gateway: Gateway, user_id: int) -> None:
        self._gateway = gateway
        self._user_id = user_id
        self._bytes = 0
        self._arriving_bytes = 0
        self._answer_bytes = 0

    def reserve(self, size: int, length: int | None) -> None:
        """Set aside what a body needs of which so much has come of `length` (None: nobody knows).

        Under way that is what has come; all of it takes _BODY_COPIES times as much. Raises E37
        where there is no room, none for all of a body that begins, or where more than
        ARRIVING_BYTES_MAX of its user's is under way.
        """
        gateway = self._gateway
        is_whole = size == length
        taken = _BYTES_PER_CALL + (size * _BODY_COPIES if is_whole else size)
        wanted = taken if self._bytes else _BYTES_PER_CALL + (length or 0) * _BODY_COPIES
        if gateway.bytes_in_flight - self._bytes + max(taken, wanted) > BYTES_IN_FLIGHT_MAX:
            raise GatewayError("E37")
        if self._arriving_bytes or not is_whole:
            self._note_arriving(0 if is_whole else size)
        gateway.bytes_in_flight += taken - self._bytes
        self._bytes = taken

    async def reserve_answer(self, size: int, announced: int) -> None:
        """Set aside what an answer needs of which so much has come; it waits until there is room.

        Raises E37 where there is none for ROOM_SECONDS, or never can be. What one before it took,
        of an attempt that failed, is free for the next.
        """
        gateway = self._gateway
        if not self._answer_bytes:
            wanted = (announced or max(size, _UNANNOUNCED_BYTES)) * _ANSWER_COPIES
            until = gateway.monotonic() + ROOM_SECONDS
            while gateway.answer_bytes_in_flight + wanted > ANSWER_BYTES_IN_FLIGHT_MAX:
                if wanted > ANSWER_BYTES_IN_FLIGHT_MAX or gateway.monotonic() > until:
                    raise GatewayError("E37")
                await asyncio.sleep(_LOOK_SECONDS)
            self._add_answer(wanted)
        # Who has room already waits for no more: several that did would wait for each other.
        more = size * _ANSWER_COPIES - self._answer_bytes
        if more > 0:
            if gateway.answer_bytes_in_flight + more > 2 * ANSWER_BYTES_IN_FLIGHT_MAX:
                raise GatewayError("E37")
            self._add_answer(more)

    def give_back(self) -> None:
        """End this."""
        self._note_arriving(0)
        self._gateway.bytes_in_flight -= self._bytes
        self._gateway.answer_bytes_in_flight -= self._answer_bytes
        self._bytes = self._answer_bytes = 0

    def _note_arriving(self, size: int) -> None:
        """Count what is under way for its user. Raises E37."""
        if size == self._arriving_bytes:
            return
        arriving = self._gateway.arriving_bytes
        of_user = arriving.get(self._user_id, 0) - self._arriving_bytes + size
        if of_user > ARRIVING_BYTES_MAX and size:
            raise GatewayError("E37")
        self._arriving_bytes = size
        if of_user:
            arriving[self._user_id] = of_user
        else:
            del arriving[self._user_id]

    def _add_answer(self, added: int) -> None:
        self._answer_bytes += added
        self._gateway.answer_bytes_in_flight += added
