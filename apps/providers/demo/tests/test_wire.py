"""Requests cut out of a byte stream."""

from __future__ import annotations

import pytest

from apps.providers.demo.wire import BadRequest, RequestReader


def test_requests_are_read_alike_however_the_bytes_are_cut() -> None:
    sized = b"POST /a HTTP/1.1\r\ncontent-length: 3\r\nX: 1\r\nx: 2\r\n\r\nabc"
    chunked = (
        b"POST /b/?q HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nde\r\n1\r\nf\r\n0\r\n\r\n"
    )
    wire = sized + chunked + b"GET /c HTTP/1.1\r\nconnection: close\r\n\r\n"

    for size in range(1, len(wire) + 1):
        reader = RequestReader()
        found = []
        for at in range(0, len(wire), size):
            reader.feed(wire[at : at + size])
            while (request := reader.next_request()) is not None:
                found.append(request)

        assert [(r.method, r.path, r.body) for r in found] == [
            ("POST", "/a", b"abc"),
            ("POST", "/b", b"def"),
            ("GET", "/c", b""),
        ]
        assert found[0].headers["x"] == "1, 2"
        assert [r.keeps_alive for r in found] == [True, True, False]


@pytest.mark.parametrize(
    ("head", "status"),
    [
        (b"POST / HTTP/1.1\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: -1\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\ncontent-length: 99999999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nfffffff\r\n", 413),
        (b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n", 400),
        (b"GET / HTTP/1.0\r\n\r\n", 505),
        (b"nonsense\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nfolded : x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nx: " + b"a" * 65536, 431),
    ],
)
def test_requests_that_cannot_be_read_are_refused(head: bytes, status: int) -> None:
    reader = RequestReader()
    reader.feed(head)

    with pytest.raises(BadRequest) as caught:
        reader.next_request()

    assert caught.value.status == status
