"""A server on loopback that says given bytes to whoever connects, and remembers what it heard."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from typing import Final, Self

_WAIT_SECONDS: Final = 0.02
_HEAD_BYTES_MAX: Final = 64 << 10

# What is said on a connection; the event tells that the listener stops.
Script = Callable[[socket.socket, threading.Event], None]


def response(
    body: bytes = b'{"object":"list","data":[]}', status: str = "200 OK", *headers: str
) -> bytes:
    """Return a whole HTTP answer."""
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def drip(data: bytes) -> Script:
    """Return a script that says one byte at a time, without end."""

    def say(connection: socket.socket, stopped: threading.Event) -> None:
        position = 0
        while not stopped.wait(_WAIT_SECONDS):
            connection.sendall(data[position : position + 1] or b"x")
            position += 1

    return say


class Listener:
    """Serves one connection after the other until it is stopped."""

    def __init__(
        self,
        answer: bytes | Script,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        context: ssl.SSLContext | None = None,
    ) -> None:
        self.heard: list[bytes] = []  # the head of each request
        self.bodies: list[bytes] = []
        self.connections = 0
        self.answer = answer
        self._context = context
        self._stopped = threading.Event()
        self._socket = socket.create_server((host, port))
        self._socket.settimeout(_WAIT_SECONDS)
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)

    @property
    def base_url(self) -> str:
        """What a provider's row holds."""
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        self._thread.join(5)
        self._socket.close()

    def _serve(self) -> None:
        while not self._stopped.is_set():
            try:
                connection, _ = self._socket.accept()
            except TimeoutError:
                continue
            self.connections += 1
            # Whoever leaves early ends only the own connection.
            with contextlib.suppress(OSError), connection:
                connection.settimeout(5)
                if self._context is None:
                    self._talk(connection)
                else:
                    with self._context.wrap_socket(connection, server_side=True) as secured:
                        self._talk(secured)

    def _talk(self, connection: socket.socket) -> None:
        data = b""
        while b"\r\n\r\n" not in data and len(data) < _HEAD_BYTES_MAX:
            piece = connection.recv(4096)
            if not piece:
                return
            data += piece
        head, _, body = data.partition(b"\r\n\r\n")
        length = next(
            (
                int(line.partition(b":")[2])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length:")
            ),
            0,
        )
        while len(body) < length:
            body += connection.recv(4096)
        self.heard.append(head)
        self.bodies.append(body)
        if isinstance(self.answer, bytes):
            connection.sendall(self.answer)
        else:
            self.answer(connection, self._stopped)


@contextlib.contextmanager
def closed_port() -> Iterator[int]:
    """Give a port of loopback that nobody listens at."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]
