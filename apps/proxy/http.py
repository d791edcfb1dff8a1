"""ASGI messages: reading bodies, answering JSON and errors, finding the client's address."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Iterable, MutableMapping, Sequence
from io import BytesIO
from typing import Any, Final

from apps.core.client_address import find_client_address
from apps.core.errors import GatewayError, openai_headers
from apps.proxy.dialects.answer_conversion import error_body, error_status

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers = list[tuple[bytes, bytes]]

BODY_BYTES_MAX: Final = 32 << 20
BODY_PIECE_SECONDS: Final = 30.0
BODY_SECONDS: Final = 300.0
# What a body has to bring on average, from BODY_PIECE_SECONDS on: what has come of it is set aside
# all the while, and nobody is to keep that from others with a byte now and then.
BODY_BYTES_PER_SECOND_MIN: Final = 16 << 10
_COMMON: Final = ((b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff"))
_FORWARDED_FOR: Final = b"x-forwarded-for"
_JSON_TYPE: Final = re.compile(rb"\s*application/(?:[a-z.+-]*\+)?json\s*(?:;.*)?", re.IGNORECASE)


class ClientGone(Exception):
    """The client closed the connection before its request was complete."""


def answer_headers(
    request_id: str, content_type: bytes, extra: Iterable[tuple[bytes, bytes]]
) -> Headers:
    """Return the headers of an answer that is not an error."""
    identifier = request_id.encode("ascii")
    return [
        (b"content-type", content_type),
        (b"x-request-id", identifier),
        (b"request-id", identifier),
        *_COMMON,
        *extra,
    ]


async def send_json(
    send: Send, body: bytes, *, request_id: str, extra: Iterable[tuple[bytes, bytes]] = ()
) -> None:
    """Answer 200 with JSON."""
    headers = answer_headers(request_id, b"application/json; charset=utf-8", extra)
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def send_error(
    send: Send,
    error: GatewayError,
    *,
    request_id: str,
    dialect: str = "openai",
    extra: Iterable[tuple[bytes, bytes]] = (),
    is_head: bool = False,
) -> None:
    """Answer with an error, in the dialect that was called."""
    body, status = error_body(dialect, error, request_id), error_status(dialect, error)
    headers = [*openai_headers(error, request_id), *extra, (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if is_head else body})


def header_map(scope: Scope) -> dict[bytes, bytes]:
    """Return the request's headers by name; of several with one name the first counts."""
    found: dict[bytes, bytes] = {}
    for name, value in scope["headers"]:
        found.setdefault(name, value)
    return found


def check_may_stream(scope: Scope) -> None:
    """Raise E13 where a stream would have no end that can be told from a cut: in HTTP/1.0."""
    if scope["http_version"] == "1.0":
        message = (
            "Streams need HTTP/1.1. A proxy in between may have to be told so (in nginx: "
            "proxy_http_version 1.1)."
        )
        raise GatewayError("E13", param="stream", message=message)


async def read_body(
    receive: Receive,
    headers: dict[bytes, bytes],
    reserve: Callable[[int, int | None], None],
    take_whole: Callable[[], bytes | None] | None = None,
) -> bytes:
    """Return the request's body. Raises E15, E16, E18, ClientGone, and what `reserve` raises.

    `reserve` is told how many bytes have come and how many there are to be (None: nobody knows)
    before they are taken in, so that bodies under way count as well. `take_whole` returns the body
    where all of it has arrived.
    """
    content_type = headers.get(b"content-type")
    if content_type is not None and _JSON_TYPE.fullmatch(content_type) is None:
        raise GatewayError("E16")
    if headers.get(b"content-encoding", b"identity").strip().lower() not in (b"", b"identity"):
        raise GatewayError("E16")
    announced = headers.get(b"content-length", b"")
    length = int(announced) if announced.isdigit() else None
    if length is not None and length > BODY_BYTES_MAX:
        raise GatewayError("E15")
    whole = take_whole() if take_whole is not None else None
    if whole is not None:
        if len(whole) > BODY_BYTES_MAX:
            raise GatewayError("E15")
        reserve(len(whole), len(whole))
        return whole  # The usual request.
    reserve(0, length)
    # It gives away what it holds: to join pieces would take the size of the body once more.
    body = BytesIO()
    size, has_more = 0, True
    loop = asyncio.get_running_loop()
    begun = loop.time()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while has_more:
                message = await _receive(receive)
                piece: bytes = message.get("body", b"")
                has_more = message.get("more_body", False)
                size += len(piece)
                if size > BODY_BYTES_MAX:
                    raise GatewayError("E15")
                if loop.time() - begun > BODY_PIECE_SECONDS + size / BODY_BYTES_PER_SECOND_MIN:
                    raise GatewayError("E18")
                reserve(size, length if has_more else size)
                body.write(piece)
    except TimeoutError as error:
        raise GatewayError("E18") from error
    return body.getvalue()


async def _receive(receive: Receive) -> MutableMapping[str, Any]:
    try:
        async with asyncio.timeout(BODY_PIECE_SECONDS):
            message = await receive()
    except TimeoutError as error:
        raise GatewayError("E18") from error
    if message["type"] == "http.disconnect":
        raise ClientGone
    return message


def client_address(scope: Scope, headers: dict[bytes, bytes], trusted: Sequence[str]) -> str:
    """Return the client's address; forwarded ones count only from trusted proxies."""
    peer = scope.get("client")
    address = str(peer[0]) if peer else ""
    if not trusted or _FORWARDED_FOR not in headers:
        # A socket for both kinds of addresses writes those of IPv4 in the form of IPv6.
        return find_client_address(address, "", ()) if ":" in address else address
    # Some proxies add a header of their own behind the one that their client made up.
    hops = [value for name, value in scope["headers"] if name == _FORWARDED_FOR]
    return find_client_address(address, b",".join(hops).decode("latin-1"), trusted)
