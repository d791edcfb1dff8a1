"""The memory that is set aside for requests, of which a gateway has so much and no more."""

from __future__ import annotations

from typing import Final

from apps.core.errors import GatewayError
from apps.proxy.gateway import BYTES_IN_FLIGHT_MAX, Gateway

# Beside the body itself: its parsed form, what goes upstream, and the buffers of a stream.
_BYTES_PER_CALL: Final = 64 << 10
_BODY_COPIES: Final = 4


class Weight:
    """The memory that is set aside for one request."""

    def __init__(self, gateway: Gateway) -> None:
        self._gateway = gateway
        self._bytes = 0

    def reserve(self, size: int) -> None:
        """Set aside what a piece of the body needs. Raises E37."""
        added = size * _BODY_COPIES + (0 if self._bytes else _BYTES_PER_CALL)
        if self._gateway.bytes_in_flight + added > BYTES_IN_FLIGHT_MAX:
            raise GatewayError("E37")
        self._bytes += added
        self._gateway.bytes_in_flight += added

    def give_back(self) -> None:
        """End this."""
        self._gateway.bytes_in_flight -= self._bytes
        self._bytes = 0
