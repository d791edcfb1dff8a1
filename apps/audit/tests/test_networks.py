"""Tests that a network becomes a condition that exactly its addresses meet."""

from __future__ import annotations

import ipaddress
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.audit.networks import Network, TextCondition, condition_of, parse_network

# Zeros decide how an IPv6 address is written, so they come often.
_GROUP = st.one_of(st.just(0), st.integers(0, 15), st.integers(0, 0xFFFF))
_IPV6 = st.lists(_GROUP, min_size=8, max_size=8).map(
    lambda groups: int("".join(f"{group:04x}" for group in groups), 16)
)


def is_met(condition: TextCondition, text: str) -> bool:
    """Return whether the text of an address meets the condition."""
    return (
        condition.exact in ("", text)
        and text.startswith(condition.prefix)
        and (not condition.pattern or re.search(condition.pattern, text) is not None)
    )


def _flip(value: int, bit: int | None) -> int:
    return value if bit is None else value ^ (1 << bit)


@given(st.integers(0, 2**32 - 1), st.integers(0, 32), st.integers(0, 2**32 - 1), st.data())
def test_an_ipv4_network_is_met_by_exactly_its_addresses(
    base: int, length: int, other: int, data: st.DataObject
) -> None:
    network = ipaddress.IPv4Network((base, length), strict=False)
    inside = int(network.network_address) | (other & int(network.hostmask))
    changed = _flip(inside, data.draw(st.none() | st.integers(0, 31)))
    address = ipaddress.IPv4Address(data.draw(st.sampled_from([inside, changed, other])))

    assert is_met(condition_of(network), str(address)) == (address in network)


@given(_IPV6, st.integers(0, 128), _IPV6, st.data())
def test_an_ipv6_network_is_met_by_exactly_its_addresses(
    base: int, length: int, other: int, data: st.DataObject
) -> None:
    network = ipaddress.IPv6Network((base, length), strict=False)
    inside = int(network.network_address) | (other & int(network.hostmask))
    changed = _flip(inside, data.draw(st.none() | st.integers(0, 127)))
    address = ipaddress.IPv6Address(data.draw(st.sampled_from([inside, changed, other])))
    # Such addresses are stored as IPv4.
    is_in = address in network and address.ipv4_mapped is None

    if address.ipv4_mapped is None:
        assert is_met(condition_of(network), str(address)) == is_in


@given(st.integers(0, 32), st.integers(0, 2**32 - 1))
def test_no_network_of_one_kind_is_met_by_the_other(length: int, value: int) -> None:
    ipv4 = ipaddress.IPv4Network((value, length), strict=False)
    ipv6 = ipaddress.IPv6Network((value << 96, length), strict=False)

    assert not is_met(condition_of(ipv4), str(ipv6.network_address))
    assert not is_met(condition_of(ipv6), str(ipv4.network_address))
    assert not is_met(condition_of(ipv4), "")
    assert not is_met(condition_of(ipv6), "")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.1.2.3", ipaddress.ip_network("10.1.2.3/32")),
        ("10.1.2.3/8", ipaddress.ip_network("10.0.0.0/8")),
        ("::ffff:10.1.2.3", ipaddress.ip_network("10.1.2.3/32")),
        ("::ffff:10.0.0.0/104", ipaddress.ip_network("10.0.0.0/8")),
        ("2001:DB8::/32", ipaddress.ip_network("2001:db8::/32")),
    ],
)
def test_an_address_is_a_network_of_one(text: str, expected: Network) -> None:
    assert parse_network(text) == expected


@pytest.mark.parametrize("text", ["", "10.1.2", "10.0.0.0/33", "fe80::1%eth0", "x", "1", "::/129"])
def test_what_is_no_network_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_network(text)
