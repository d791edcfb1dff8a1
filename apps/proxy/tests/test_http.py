"""Bodies count before they are taken in."""

from __future__ import annotations

import asyncio
from collections.abc import MutableMapping
from typing import Any, Final

import pytest

from apps.core.errors import GatewayError
from apps.proxy import http
from apps.proxy.http import (
    BODY_BYTES_MAX,
    ClientGone,
    client_address,
    header_map,
    read_body,
)


class Client:
    """Sends pieces of a body, as a server hands them on, and counts how many were asked for."""

    def __init__(self, *pieces: bytes, leaves: bool = False) -> None:
        self._pieces = list(pieces)
        self._leaves = leaves
        self.asked = 0

    async def receive(self) -> MutableMapping[str, Any]:
        """Return the next piece."""
        self.asked += 1
        if not self._pieces and self._leaves:
            return {"type": "http.disconnect"}
        body = self._pieces.pop(0)
        more = bool(self._pieces) or self._leaves
        return {"type": "http.request", "body": body, "more_body": more}


Reserved = list[tuple[int, int | None]]


@pytest.mark.parametrize("length", [5, None])
async def test_a_body_is_reserved_as_it_comes(length: int | None) -> None:
    client, reserved = Client(b"123", b"45", b""), Reserved()
    headers = {} if length is None else {b"content-length": b"%d" % length}

    body = await read_body(client.receive, headers, lambda *told: reserved.append(told))

    assert body == b"12345"
    assert reserved == [(0, length), (3, length), (5, length), (5, 5)]


async def test_a_body_that_has_arrived_is_reserved_whole() -> None:
    client, reserved = Client(), Reserved()

    body = await read_body(
        client.receive,
        {b"content-length": b"5"},
        lambda *told: reserved.append(told),
        lambda: b"12345",
    )

    assert (body, reserved, client.asked) == (b"12345", [(5, 5)], 0)


async def test_what_cannot_be_reserved_is_not_read() -> None:
    client = Client(b"12345")

    def reserve(size: int, length: int | None) -> None:
        raise GatewayError("E37")

    with pytest.raises(GatewayError) as raised:
        await read_body(client.receive, {b"content-length": b"5"}, reserve)

    assert raised.value.row == "E37"
    assert client.asked == 0


@pytest.mark.parametrize(
    "headers", [{b"content-length": str(BODY_BYTES_MAX + 1).encode()}, {}], ids=["told", "chunked"]
)
async def test_a_body_that_is_too_large_is_refused(headers: dict[bytes, bytes]) -> None:
    client = Client(b"x" * BODY_BYTES_MAX, b"x")

    with pytest.raises(GatewayError) as raised:
        await read_body(client.receive, headers, lambda size, length: None)

    assert raised.value.row == "E15"


async def test_a_client_that_leaves_in_its_body_ends_the_call() -> None:
    client, reserved = Client(b"123", leaves=True), Reserved()

    with pytest.raises(ClientGone):
        await read_body(client.receive, {}, lambda *told: reserved.append(told))

    assert reserved == [(0, None), (3, None)]


@pytest.mark.parametrize(("pieces", "row"), [(1, "E18"), (20_000, None)])
async def test_a_body_has_to_bring_something_and_not_only_signs_of_life(
    monkeypatch: pytest.MonkeyPatch, pieces: int, row: str | None
) -> None:
    client = Client(*[b"x" * pieces] * 5, b"")
    monkeypatch.setattr(http, "BODY_PIECE_SECONDS", 0.3)

    async def receive() -> MutableMapping[str, Any]:
        await asyncio.sleep(0.1)
        return await client.receive()

    found = None
    try:
        headers = {b"content-length": b"%d" % (5 * pieces)}
        await read_body(receive, headers, lambda size, length: None)
    except GatewayError as error:
        found = error.row

    assert found == row


TRUSTED: Final = ("127.0.0.1", "10.0.0.0/8")


@pytest.mark.parametrize(
    ("peer", "forwarded", "trusted", "address"),
    [
        ("192.0.2.7", (), (), "192.0.2.7"),
        # How a socket for both kinds of addresses writes those of the older one.
        ("::ffff:192.0.2.7", (), (), "192.0.2.7"),
        ("::ffff:192.0.2.7", (), TRUSTED, "192.0.2.7"),
        ("2001:db8::7", (), (), "2001:db8::7"),
        # Whom nobody trusts tells nothing of others.
        ("192.0.2.7", (b"198.51.100.1",), (), "192.0.2.7"),
        ("192.0.2.7", (b"198.51.100.1",), TRUSTED, "192.0.2.7"),
        ("127.0.0.1", (b"198.51.100.1",), TRUSTED, "198.51.100.1"),
        ("127.0.0.1", (b"203.0.113.9, 198.51.100.1",), TRUSTED, "198.51.100.1"),
        # Some proxies add a header of their own and leave the client's where it is.
        ("127.0.0.1", (b"203.0.113.9", b"198.51.100.1"), TRUSTED, "198.51.100.1"),
        ("127.0.0.1", (b"203.0.113.9", b"198.51.100.1", b"10.0.0.2"), TRUSTED, "198.51.100.1"),
        ("127.0.0.1", (b"203.0.113.9", b""), TRUSTED, "127.0.0.1"),
    ],
)
def test_where_a_call_comes_from(
    peer: str, forwarded: tuple[bytes, ...], trusted: tuple[str, ...], address: str
) -> None:
    headers = [(b"x-forwarded-for", value) for value in forwarded]
    scope = {"client": (peer, 4711), "headers": headers}

    assert client_address(scope, header_map(scope), trusted) == address
