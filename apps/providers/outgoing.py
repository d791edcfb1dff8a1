"""Calls of the control plane to other servers: the one way out, guarded against request forgery.

A name is resolved once, every address it has is checked, and a checked one is connected to, with
the name kept for TLS and Host. No redirects, no cookies, no proxies from the environment, no
decompression; bounded in bytes and in time as a whole. What failed is told by its class only:
never the body, a header or the address of an answer. (Calls of the data plane: `proxy/upstream`.)
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import socket
import ssl
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

import httpx

from apps.core.addresses import (
    AllowedNetwork,
    ParsedUrl,
    UrlRefused,
    check_upstream_url,
    is_address_allowed,
)

TIMEOUT_SECONDS: Final = 10.0
BODY_BYTES_MAX: Final = 4 << 20
# Of a name's addresses; each is tried for at most the seconds below.
_ADDRESSES_TRIED_MAX: Final = 4
_CONNECT_SECONDS: Final = 5.0
_HEADERS: Final = {
    "accept": "application/json",
    "accept-encoding": "identity",
    "user-agent": "llm-audit-gateway",
}

# Host and port → addresses. Raises OSError or UnicodeError for a name that has none.
Resolve = Callable[[str, int], Sequence[str]]


class Failure(StrEnum):
    """Why there is no answer, in words for people."""

    NOT_ALLOWED = "This URL is not allowed."
    NAME_UNKNOWN = "The server's name cannot be resolved."
    NOT_CONNECTED = "The connection was refused or could not be made."
    TLS = "The server's certificate or encryption was not accepted."
    TIMEOUT = "The server did not answer in time."
    TOO_LARGE = "The answer is too large."
    BROKEN = "The answer broke off or cannot be understood."


class OutgoingFailed(Exception):
    """There is no answer."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure
        super().__init__(failure.value)


@dataclass(frozen=True, slots=True)
class Ask:
    """What is asked of a server."""

    url: str
    target: str = ""  # path and query, where not the URL's own: sent as they are, not judged
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    body: bytes = field(default=b"", repr=False)
    timeout_seconds: float = TIMEOUT_SECONDS
    body_bytes_max: int = BODY_BYTES_MAX


@dataclass(frozen=True, slots=True)
class Answer:
    """What the server said, whatever its status. A redirect is an answer like others."""

    status_code: int
    body: bytes = field(repr=False)


def resolve_name(host: str, port: int) -> list[str]:
    """Return all addresses of a name."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(address[0]) for *_, address in found))


def fetch(
    ask: Ask, *, private: tuple[AllowedNetwork, ...], resolve: Resolve = resolve_name
) -> Answer:
    """Return the answer of a server. Raises OutgoingFailed.

    Not for code that runs on an event loop, and not for inside a transaction: it takes its time.
    """
    # A loop of its own for each call, since only that bounds all of its steps together.
    return asyncio.run(_fetch(ask, private, resolve))


async def _fetch(ask: Ask, private: tuple[AllowedNetwork, ...], resolve: Resolve) -> Answer:
    try:
        url = check_upstream_url(ask.url, private)
    except UrlRefused as error:
        raise OutgoingFailed(Failure.NOT_ALLOWED) from error
    try:
        async with asyncio.timeout(ask.timeout_seconds):
            addresses = await _get_addresses(url, resolve)
            # One forbidden address refuses the name: it may be the next one to be tried.
            if not addresses or not all(
                is_address_allowed(address, url.port, private, is_private_only=url.is_private_only)
                for address in addresses
            ):
                raise OutgoingFailed(Failure.NOT_ALLOWED)
            return await _ask_first_reached(ask, url, addresses[:_ADDRESSES_TRIED_MAX])
    except TimeoutError as error:
        raise OutgoingFailed(Failure.TIMEOUT) from error


async def _get_addresses(url: ParsedUrl, resolve: Resolve) -> Sequence[str]:
    if url.address is not None:
        return [str(url.address)]
    loop = asyncio.get_running_loop()
    found: asyncio.Future[Sequence[str]] = loop.create_future()

    def give(addresses: Sequence[str]) -> None:
        if not found.done():
            found.set_result(addresses)

    def fail(error: Exception) -> None:
        if not found.done():
            found.set_exception(error)

    def look_up() -> None:
        tell: Callable[[], None]
        try:
            addresses = resolve(url.host, url.port)
            tell = functools.partial(give, addresses)
        except (OSError, UnicodeError) as error:
            tell = functools.partial(fail, error)
        # The loop is closed where nobody waits for this name any more.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(tell)

    # Not the loop's own pool: the end of the loop would wait for a resolver that hangs.
    threading.Thread(target=look_up, daemon=True, name="name lookup").start()
    try:
        return await found
    except TimeoutError:
        raise
    except (OSError, UnicodeError) as error:
        raise OutgoingFailed(Failure.NAME_UNKNOWN) from error


async def _ask_first_reached(ask: Ask, url: ParsedUrl, addresses: Sequence[str]) -> Answer:
    """Return the answer of the first address that a connection can be made to."""
    transport = httpx.AsyncHTTPTransport(
        # The machine's own list of authorities, as the data plane uses it.
        verify=ssl.create_default_context(),
        trust_env=False,
        retries=0,
    )
    async with httpx.AsyncClient(
        transport=transport,
        trust_env=False,
        follow_redirects=False,
        timeout=httpx.Timeout(None, connect=_CONNECT_SECONDS),
    ) as client:
        failure = Failure.NOT_CONNECTED
        for address in addresses:
            try:
                return await _exchange(client, ask, url, address)
            except (httpx.HTTPError, OSError) as error:
                failure = _failure_of(error)
                if failure is Failure.TLS or not isinstance(
                    error, httpx.ConnectError | httpx.ConnectTimeout
                ):
                    break
    raise OutgoingFailed(failure)


async def _exchange(client: httpx.AsyncClient, ask: Ask, url: ParsedUrl, address: str) -> Answer:
    literal = f"[{address}]" if ":" in address else address
    async with client.stream(
        ask.method,
        f"{url.scheme}://{literal}:{url.port}{ask.target or url.target}",
        headers={**_HEADERS, **ask.headers, "host": url.origin.partition("://")[2]},
        content=ask.body or None,
        extensions={"sni_hostname": url.host},
    ) as response:
        # Nobody asked for compression: a few bytes could unfold without end.
        if response.headers.get("content-encoding", "identity").strip().lower() != "identity":
            raise OutgoingFailed(Failure.BROKEN)
        parts = []
        size = 0
        async for part in response.aiter_raw():
            size += len(part)
            if size > ask.body_bytes_max:
                raise OutgoingFailed(Failure.TOO_LARGE)
            parts.append(part)
    return Answer(response.status_code, b"".join(parts))


def _failure_of(error: BaseException) -> Failure:
    if isinstance(error, httpx.TimeoutException):
        return Failure.TIMEOUT
    if not isinstance(error, httpx.ConnectError):
        return Failure.BROKEN
    cause: BaseException | None = error
    for _ in range(10):  # Deeper chains do not come up.
        if cause is None:
            break
        if isinstance(cause, ssl.SSLError):
            return Failure.TLS
        cause = cause.__cause__ or cause.__context__
    return Failure.NOT_CONNECTED
