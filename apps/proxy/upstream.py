"""The connection pool to providers: aiohttp over HTTP/1.1, one session a process.

Only addresses that the SSRF policy allows are connected to: names are resolved here, every
address is checked, and the checked one is used. No redirects, no cookies, no proxies from the
environment, no decompression: a compressed answer that nobody asked for is refused.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Mapping
from typing import Final

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from multidict import CIMultiDict
from yarl import URL

from apps.core.addresses import AllowedNetwork, is_address_allowed
from apps.core.errors import GatewayError
from apps.proxy.endings import AttemptFailed
from apps.proxy.snapshot import Credential, Provider, Route

ANSWER_BYTES_MAX: Final = 32 << 20
ERROR_BYTES_MAX: Final = 64 << 10
# aiohttp pauses reading from the socket at twice this: the most that waits here for a slow client.
READ_BUFFER_BYTES: Final = 16 << 10
_KEEPALIVE_SECONDS: Final = 30.0
_DNS_SECONDS: Final = 5.0
_ID_HEADERS: Final = ("x-request-id", "request-id")


class AddressRefused(OSError):
    """A provider's name resolves to an address that must not be connected to."""


class GuardedResolver(AbstractResolver):
    """Resolves names and lets only allowed addresses through.

    One forbidden address refuses the name.
    """

    def __init__(self, private: tuple[AllowedNetwork, ...]) -> None:
        self._private = private
        self.plain_http: set[tuple[str, int]] = set()  # hosts and ports that must be private

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        """Return the addresses of `host`. Raises AddressRefused."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(_DNS_SECONDS):
            found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM, family=family)
        results: list[ResolveResult] = []
        for address_family, _, proto, _, address in found:
            ip = str(address[0])
            is_plain = (host, port) in self.plain_http
            if not is_address_allowed(ip, port, self._private, is_private_only=is_plain):
                raise AddressRefused(f"an address of {host} is not allowed")
            results.append(
                ResolveResult(
                    hostname=host,
                    host=ip,
                    port=port,
                    family=address_family,
                    proto=proto,
                    flags=socket.AI_NUMERICHOST,
                )
            )
        return results

    async def close(self) -> None:
        """Do nothing: there is nothing to close."""


class Upstream:
    """Sends requests to providers."""

    def __init__(self, private: tuple[AllowedNetwork, ...]) -> None:
        self._private = private
        self._resolver = GuardedResolver(private)
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=0,  # admission bounds the calls in flight, not the pool
                resolver=self._resolver,
                ttl_dns_cache=10,
                keepalive_timeout=_KEEPALIVE_SECONDS,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            read_bufsize=READ_BUFFER_BYTES,
            timeout=aiohttp.ClientTimeout(total=None),
            skip_auto_headers=("user-agent", "content-type"),
        )
        self._urls: dict[str, URL] = {}
        self._timeouts: dict[float, aiohttp.ClientTimeout] = {}

    async def send(
        self, route: Route, credential: Credential, *, path: str, body: bytes, request_id: str
    ) -> aiohttp.ClientResponse:
        """Send a request and return the answer when its head has arrived.

        The caller bounds the wait and closes the response. Raises what aiohttp raises.
        """
        provider = route.provider
        if provider.url.address is not None and not is_address_allowed(
            provider.url.address,
            provider.url.port,
            self._private,
            is_private_only=provider.url.is_private_only,
        ):
            raise AddressRefused("the provider's address is not allowed")
        return await self._session.post(
            self._url(provider, path),
            data=body,
            headers={
                "authorization": f"Bearer {credential.secret}",
                "content-type": "application/json",
                "accept-encoding": "identity",
                "x-request-id": request_id,
            },
            allow_redirects=False,
            timeout=self._timeout(provider.connect_timeout_seconds),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()

    def _url(self, provider: Provider, path: str) -> URL:
        text = f"{provider.base_url}/{path}"
        url = self._urls.get(text)
        if url is None:
            if len(self._urls) > 10_000:
                self._urls.clear()
            if provider.url.is_private_only:
                self._resolver.plain_http.add((provider.url.host, provider.url.port))
            url = self._urls[text] = URL(text)
        return url

    def _timeout(self, connect_seconds: float) -> aiohttp.ClientTimeout:
        timeout = self._timeouts.get(connect_seconds)
        if timeout is None:
            timeout = self._timeouts[connect_seconds] = aiohttp.ClientTimeout(
                total=None, sock_connect=connect_seconds
            )
        return timeout


def failure_of(error: BaseException, status: int | None) -> AttemptFailed:
    """Return what a broken attempt means; `status` is that of the head, None where none came.

    E47 unreachable, E48 too late, E46 broken off; "stale" where an idle connection had been closed.
    """
    if status is not None:
        return AttemptFailed(GatewayError("E46"), status, type(error).__name__)
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return AttemptFailed(GatewayError("E47"), None, "stale")
    is_late = isinstance(error, TimeoutError) and not isinstance(
        error, aiohttp.ConnectionTimeoutError
    )
    return AttemptFailed(GatewayError("E48" if is_late else "E47"), None, type(error).__name__)


async def read_limited(response: aiohttp.ClientResponse, limit: int) -> bytes:
    """Return the body. Raises GatewayError E52 where it is longer than `limit` bytes."""
    announced = response.content_length
    if announced is not None and announced > limit:
        raise GatewayError("E52")
    parts = []
    size = 0
    async for part in response.content.iter_any():
        size += len(part)
        if size > limit:
            raise GatewayError("E52")
        parts.append(part)
    return b"".join(parts)


def encoding_of(headers: Mapping[str, str] | CIMultiDict[str]) -> str:
    """Return the content encoding of an answer, "" for none."""
    encoding = headers.get("content-encoding", "").strip().lower()
    return "" if encoding == "identity" else encoding


def request_id_of(response: aiohttp.ClientResponse) -> str:
    """Return the provider's own id of a request, "" where it gave none."""
    for name in _ID_HEADERS:
        value = response.headers.get(name)
        if value:
            return value[:128]
    return ""


def let_go(response: aiohttp.ClientResponse) -> None:
    """Keep the connection where the answer was read to its end, else close it.

    Closing stops the provider.
    """
    if response.content.at_eof():
        response.release()
    else:
        response.close()
