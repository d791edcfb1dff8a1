"""Tests of finding out where a call came from."""

from __future__ import annotations

import pytest

from apps.core.client_address import find_client_address


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
