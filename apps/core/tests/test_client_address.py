"""Tests of finding out where a call came from."""

from __future__ import annotations

import pytest

from apps.core.client_address import find_client_address, network_of


@pytest.mark.parametrize(
    ("peer", "forwarded_for", "trusted", "expected"),
    [
        ("203.0.113.7", "", [], "203.0.113.7"),
        ("203.0.113.7", "198.51.100.9", [], "203.0.113.7"),
        ("127.0.0.1", "198.51.100.9", ["127.0.0.1"], "198.51.100.9"),
        ("127.0.0.1", "1.1.1.1, 198.51.100.9", ["127.0.0.1"], "198.51.100.9"),
        ("10.0.0.2", "198.51.100.9, 10.0.0.3", ["10.0.0.0/8"], "198.51.100.9"),
        ("10.0.0.2", "nonsense, 10.0.0.3", ["10.0.0.0/8"], "10.0.0.3"),
        ("10.0.0.2", "", ["10.0.0.0/8"], "10.0.0.2"),
        ("::ffff:10.0.0.2", "198.51.100.9", ["10.0.0.0/8"], "198.51.100.9"),
        ("", "198.51.100.9", ["10.0.0.0/8"], ""),
    ],
)
def test_a_forwarding_header_counts_only_as_far_as_trusted_proxies_wrote_it(
    peer: str, forwarded_for: str, trusted: list[str], expected: str
) -> None:
    assert find_client_address(peer, forwarded_for, trusted) == expected


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("203.0.113.7", "203.0.113.7"),
        ("::ffff:203.0.113.7", "203.0.113.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("", ""),
        ("nonsense", ""),
    ],
)
def test_an_ipv6_address_counts_as_its_network(address: str, network: str) -> None:
    assert network_of(address) == network
