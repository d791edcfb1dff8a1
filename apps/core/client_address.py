"""Which address a call really came from. No tables, no I/O.

A forwarding header counts only as far as trusted proxies wrote it: it is read from the right, and
the first hop that is not a trusted proxy is the client.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

_HOPS_MAX: Final = 20
# What one subscriber gets of IPv6: whoever has one address of it has them all.
_SUBSCRIBER_BITS: Final = 64


def find_client_address(peer: str, forwarded_for: str, trusted: Sequence[str]) -> str:
    """Return the client's address, or "" when not even the peer has one.

    `trusted` holds addresses and networks; what cannot be read in `forwarded_for` ends the walk.
    """
    networks = _parse(tuple(trusted))
    found = _normalise(peer)
    for hop in reversed(forwarded_for.split(",")[-_HOPS_MAX:]):
        if not found or not any(ipaddress.ip_address(found) in network for network in networks):
            return found
        candidate = _normalise(hop.strip())
        if not candidate:
            return found
        found = candidate
    return found


def network_of(address: str) -> str:
    """Return what is counted as one caller: the address itself, of IPv6 its /64 network."""
    normalised = _normalise(address)
    if ":" not in normalised:
        return normalised
    return str(ipaddress.ip_network((normalised, _SUBSCRIBER_BITS), strict=False))


@lru_cache(maxsize=8)
def _parse(texts: tuple[str, ...]) -> list[ipaddress.IPv4Network | ipaddress.IPv6Network]:
    return [ipaddress.ip_network(text, strict=False) for text in texts]


def _normalise(text: str) -> str:
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
