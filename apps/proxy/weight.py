"""The memory that is set aside for requests and their answers, of which there is so much.

What a client has been sent and not yet taken when its call has ended is not counted.
"""

from __future__ import annotations

from typing import Final

from apps.core.errors import GatewayError
from apps.proxy.gateway import BYTES_IN_FLIGHT_MAX, Gateway

# Beside the body itself: its parsed form, what goes upstream, and the buffers of a stream.
_BYTES_PER_CALL: Final = 64 << 10
_BODY_COPIES: Final = 4
# Of an answer: its body, what it is parsed into, and what goes out. Vectors take three to five
# times their text while they are parsed, two to three later; texts and images once. So the largest
# answer there may be has room in a gateway that does nothing else.
_ANSWER_COPIES: Final = 6


class Weight:
    """The memory that is set aside for one request and its answer."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._bytes = 0
        self._answer_bytes = 0  # of them, for an answer

    def reserve(self, size: int) -> None:
        """Set aside what a piece of the body needs. Raises E37."""
        self._add(size * _BODY_COPIES + (0 if self._bytes else _BYTES_PER_CALL))

    def reserve_answer(self, size: int) -> None:
        """Set aside what an answer needs of which so much has come. Raises E37.

        What one before it took, of an attempt that failed, is free for the next.
        """
        added = size * _ANSWER_COPIES - self._answer_bytes
        if added > 0:
            self._add(added)
            self._answer_bytes += added

    def give_back(self) -> None:
        """End this."""
        self._gateway.bytes_in_flight -= self._bytes
        self._bytes = self._answer_bytes = 0

    def _add(self, added: int) -> None:
        if self._gateway.bytes_in_flight + added > BYTES_IN_FLIGHT_MAX:
            raise GatewayError("E37")
        self._bytes += added
        self._gateway.bytes_in_flight += added
