"""The way to providers: which addresses may be connected to, and what a request carries.

Only addresses that the SSRF policy allows are connected to: names are resolved here, every
address is checked, and the checked one is used. No redirects, no cookies, no proxies from the
environment, no decompression: a compressed answer that nobody asked for is refused.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from aiohappyeyeballs import start_connection

from apps.core.addresses import AllowedNetwork
from apps.core.errors import GatewayError
from apps.providers.authorisation import Authorisation
from apps.providers.identities import AwsKey, Identity
from apps.providers.questions import join_url
from apps.proxy.endings import AttemptFailed
from apps.proxy.http_client import (
    Answer,
    ClientConnection,
    ConnectFailed,
    ConnectionClosed,
    ConnectionStale,
    Pool,
    Target,
)
from apps.proxy.names import AddressRefused, GuardedNames
from apps.proxy.signing import Signing, SigningFailed
from apps.proxy.snapshot import Credential, Provider, Route

ANSWER_BYTES_MAX: Final = 32 << 20
ERROR_BYTES_MAX: Final = 64 << 10
# Up to here an answer is in what every call has set aside, or as good as.
SMALL_ANSWER_BYTES: Final = 256 << 10
# The process or the machine can open no more connections: no fault of any provider.
_OWN_LIMITS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
# After so long without a connection the next address of a name is tried beside the first.
_SECOND_ADDRESS_SECONDS: Final = 0.25
_HEADS_MAX: Final = 10_000
_ID_HEADERS: Final = (b"x-request-id", b"request-id", b"x-amzn-requestid")

RouteHeaders = tuple[tuple[str, str | None], ...]


class Upstream:
    """Sends requests to providers."""

    def __init__(self, private: tuple[AllowedNetwork, ...]) -> None:
        self._private = private
        self._pool = Pool(self._connect)
        self._tls = ssl.create_default_context()
        self._tls.set_alpn_protocols(["http/1.1"])
        self._names = GuardedNames(private)
        self._signing = Signing(private)
        self._heads: dict[tuple[Authorisation, str, str, str, RouteHeaders], bytes] = {}
        self._private_only: set[Target] = set()

    async def send(
        self,
        route: Route,
        credential: Credential,
        *,
        path: str,
        body: bytes,
        request_id: str,
        headers: tuple[tuple[str, str], ...] = (),
        on_connected: Callable[[], None] | None = None,
        method: str = "POST",
        is_anew: bool = False,
    ) -> Answer:
        """Send a request and return the answer when its head has arrived.

        `headers` are the client's own, as far as they may go on. `on_connected` is called when the
        request is about to be sent. `is_anew`: on a new connection, and what is idle is closed. The
        caller bounds the wait and releases the answer. Raises ConnectFailed, ConnectionClosed,
        BadAnswer and AddressRefused.
        """
        provider = route.provider
        url = provider.url
        target = (url.scheme, url.host, url.port)
        if url.is_private_only:
            self._private_only.add(target)
        more = (*headers, *route.headers) if headers else route.headers
        if "{model}" in provider.url.path:
            path = join_url(provider.url.target, path, upstream_name=route.upstream_name)
        if credential.identity is not None:
            return await self._send_signed(
                provider,
                credential.identity,
                target=_target_of(provider, path),
                headers=_headers_of(provider, more),
                body=body,
                request_id=request_id,
                on_connected=on_connected,
                method=method,
                is_anew=is_anew,
            )
        if method == "POST":
            head = self._head(provider, path, credential.secret, more)
        else:
            # Its path names one thing: not worth to be kept.
            head = _make_head(method, provider, path, credential.secret, more)
        connection = await self._take(target, provider.connect_timeout_seconds, is_anew)
        if on_connected is not None:
            on_connected()
        data = b"%bx-request-id: %b\r\ncontent-length: %d\r\n\r\n%b" % (
            head,
            request_id.encode("ascii"),
            len(body),
            body,
        )
        return await connection.send(data)

    async def _send_signed(
        self,
        provider: Provider,
        identity: Identity,
        *,
        target: str,
        headers: dict[str, str],
        body: bytes,
        request_id: str,
        on_connected: Callable[[], None] | None,
        method: str,
        is_anew: bool,
    ) -> Answer:
        """Send a request that is signed anew; once more where the first signature was outdated."""
        sent = {**headers, "x-request-id": request_id, "content-length": str(len(body))}
        for is_repeated in (False, True):
            prepared = await self._signing.prepare(identity, body)
            url = provider.url
            connection = await self._take(
                (url.scheme, url.host, url.port), provider.connect_timeout_seconds, is_anew
            )
            # After the wait for a connection: a signature holds the moment at which it was made.
            try:
                signed = self._signing.sign(
                    identity,
                    prepared,
                    provider=provider,
                    method=method,
                    target=target,
                    headers=sent,
                )
            except BaseException:
                connection.abort()
                raise
            if on_connected is not None:
                on_connected()
            answer = await connection.send(_write_head(method, target, {**sent, **signed}) + body)
            answer.sent_secret = (
                identity.session_token if isinstance(identity, AwsKey) else prepared
            )
            if is_repeated or not self._signing.learn(
                identity, prepared, host=url.host, answer=answer
            ):
                break
            answer.release()
        return answer

    async def close(self) -> None:
        """Close all connections."""
        self._signing.close()
        self._names.close()
        self._pool.close()

    async def _take(self, target: Target, seconds: float, is_anew: bool) -> ClientConnection:
        if is_anew:
            self._pool.drop(target)
        connection = self._pool.find(target)
        if connection is not None:
            return connection
        try:
            async with asyncio.timeout(seconds):
                return await self._pool.make(target)
        except (OSError, ssl.SSLError, TimeoutError) as error:
            if isinstance(error, AddressRefused):
                raise
            raise ConnectFailed(type(error).__name__) from error

    async def _connect(self, target: Target, factory: Callable[[], ClientConnection]) -> None:
        scheme, host, port = target
        found = await self._names.resolve(host, port, is_private_only=target in self._private_only)
        channel = await start_connection(found, happy_eyeballs_delay=_SECOND_ADDRESS_SECONDS)
        try:
            channel.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            await asyncio.get_running_loop().create_connection(
                factory,
                sock=channel,
                ssl=self._tls if scheme == "https" else None,
                server_hostname=host if scheme == "https" else None,
            )
        except BaseException:
            channel.close()
            raise

    def _head(
        self, provider: Provider, path: str, secret: str, headers: RouteHeaders = ()
    ) -> bytes:
        """Return the head of a call up to what is particular to one. Raises ConnectFailed."""
        key = (provider.authorisation, provider.base_url, path, secret, headers)
        head = self._heads.get(key)
        if head is None:
            if len(self._heads) >= _HEADS_MAX:
                self._heads.clear()
            head = self._heads[key] = _make_head("POST", provider, path, secret, headers)
        return head


def _make_head(
    method: str, provider: Provider, path: str, secret: str, headers: RouteHeaders
) -> bytes:
    if not (secret.isascii() and secret.isprintable()):
        raise ConnectFailed("the provider's key cannot stand in a header")
    known = provider.authorisation
    usual = _headers_of(provider, headers)
    host = usual.pop("host")
    sent = {"host": host, known.header: f"{known.prefix}{secret}", **usual}
    return _write_head(method, _target_of(provider, path), sent, is_whole=False)


def _target_of(provider: Provider, path: str) -> str:
    return path if path.startswith("/") else join_url(provider.url.target, path)


def _headers_of(provider: Provider, headers: RouteHeaders) -> dict[str, str]:
    """Return what all requests carry beside what shows who asks.

    What may stand here was checked when the configuration was loaded, and of the client's own when
    it came.
    """
    more = {"accept": "*/*", **dict(provider.authorisation.fixed), **dict(headers)}
    return {
        "host": provider.url.origin.partition("://")[2],
        "content-type": "application/json",
        **{name: value for name, value in more.items() if value},
        "accept-encoding": "identity",
    }


def _write_head(
    method: str, target: str, headers: Mapping[str, str], *, is_whole: bool = True
) -> bytes:
    lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    end = "\r\n" if is_whole else ""
    return f"{method} {target} HTTP/1.1\r\n{lines}{end}".encode("ascii")


def failure_of(error: BaseException, status: int | None) -> AttemptFailed:
    """Return what a broken attempt means; `status` is that of the head, None where none came.

    E46 broken off, E47 unreachable, E37 where it is this process that can open no more connections,
    E41 where the key got no access token.
    """
    if isinstance(error, SigningFailed):
        return AttemptFailed(GatewayError(error.row), error.status, error.text)
    cause = error.__cause__ if isinstance(error, ConnectFailed) else error
    if isinstance(cause, OSError) and cause.errno in _OWN_LIMITS:
        return AttemptFailed(GatewayError("E37"), None, type(cause).__name__)
    row = "E47" if status is None else "E46"
    return AttemptFailed(GatewayError(row), status, type(cause or error).__name__)


def is_unanswered(failure: AttemptFailed) -> bool:
    """Return whether a connection was closed before the head of an answer was complete."""
    return failure.status_code is None and isinstance(failure.__cause__, ConnectionClosed)


def is_stale(failure: AttemptFailed) -> bool:
    """Return whether a connection that had been idle was closed without a word: most likely before
    the request came, which says nothing of the provider.
    """
    return isinstance(failure.__cause__, ConnectionStale)


def is_free(failure: AttemptFailed) -> bool:
    """Return whether an attempt that failed without a word about usage cost nothing for certain:
    the provider never got it, or refused it (E53: inside an answer that had not begun).
    """
    if failure.status_code is None:
        is_unsent = isinstance(failure.__cause__, ConnectFailed | AddressRefused)
        return is_unsent or failure.error.row == "E37"
    return failure.status_code != 200 or failure.error.row == "E53"


async def read_limited(
    answer: Answer,
    limit: int,
    *,
    on_read: Callable[[], None] | None = None,
    reserve: Callable[[int, int], Awaitable[None]] | None = None,
) -> bytes:
    """Return the body. Raises E52 where it is longer than `limit` bytes, and what `reserve` raises.

    `on_read` is called whenever some of it has come. `reserve` is told how much has come and how
    long it is to be (0: nobody knows), before it is kept, if that is more than SMALL_ANSWER_BYTES.
    """
    length = answer.header(b"content-length")
    announced = int(length) if length.isdecimal() else 0
    if announced > limit:
        raise GatewayError("E52")
    parts = []
    size = 0
    while part := await answer.read():
        size += len(part)
        if size > limit:
            raise GatewayError("E52")
        if reserve is not None and max(size, announced) > SMALL_ANSWER_BYTES:
            await reserve(size, announced)
        parts.append(part)
        if answer.is_read:
            break
        if on_read is not None:
            on_read()
    return parts[0] if len(parts) == 1 else b"".join(parts)


def encoding_of(answer: Answer) -> str:
    """Return the content encoding of an answer, "" for none."""
    encoding = answer.header(b"content-encoding").strip().lower()
    return "" if encoding == "identity" else encoding


def request_id_of(answer: Answer, secret: str) -> str:
    """Return the provider's own id of a request, "" where it gave none or the key it was sent."""
    for name in _ID_HEADERS:
        value = answer.header(name)
        if value:
            return "" if secret in value else value[:128]
    return ""
