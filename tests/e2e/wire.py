"""A client without an HTTP library: what came over the wire, to the byte."""

from __future__ import annotations

import select
import socket
import struct
from typing import Any, Final, Self

import orjson

from tests.support.bench import Caller, Stage

WAIT_SECONDS_MAX: Final = 10.0
LAST_CHUNK: Final = b"0\r\n\r\n"


class RawConnection:
    """A TCP connection to the gateway. Use it as a context manager."""

    def __init__(
        self,
        port: int,
        *,
        receive_buffer: int | None = None,
        wait_seconds: float = WAIT_SECONDS_MAX,
    ) -> None:
        self._socket = socket.socket()
        if receive_buffer is not None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self._socket.settimeout(wait_seconds)
        self._socket.connect(("127.0.0.1", port))
        self.received = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def send(self, data: bytes) -> None:
        """Send bytes; that the gateway has closed meanwhile shows when reading."""
        self.send_some(data)

    def send_some(self, data: bytes) -> bool:
        """Send bytes and return whether the gateway took them in."""
        try:
            self._socket.sendall(data)
        except (BrokenPipeError, ConnectionResetError):
            return False
        return True

    def read_until(self, mark: bytes) -> bytes:
        """Read until `mark` has come and return everything so far."""
        while mark not in self.received:  # bounded by the socket's timeout
            if not self.read_more():
                raise EOFError(f"the connection ended before {mark!r}: {self.received!r}")
        return self.received

    def read_what_came(self) -> bytes:
        """Read without waiting and return everything so far."""
        while select.select([self._socket], [], [], 0)[0]:
            part = self._socket.recv(65_536)
            if not part:
                break
            self.received += part
        return self.received

    def read_more(self) -> bool:
        """Read what comes next and return whether there was anything before the end."""
        part = self._socket.recv(65_536)
        self.received += part
        return bool(part)

    def read_all(self) -> bytes:
        """Read until the gateway closes and return everything."""
        try:
            while part := self._socket.recv(65_536):
                self.received += part
        except ConnectionResetError:
            pass
        return self.received

    def end_sending(self) -> None:
        """Send FIN and go on reading."""
        self._socket.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close with FIN."""
        self._socket.close()

    def reset(self) -> None:
        """Close with RST."""
        linger = struct.pack("ii", 1, 0)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._socket.close()


def post(caller: Caller, body: dict[str, Any], path: str = "/v1/chat/completions") -> bytes:
    """Return a request as it goes over the wire."""
    return post_bytes(caller, orjson.dumps(body), path)


def post_bytes(
    caller: Caller, body: bytes, path: str = "/v1/chat/completions", extra: str = ""
) -> bytes:
    """Return a request with any body as it goes over the wire; `extra` are header lines."""
    return post_with(caller.raw, body, path, extra)


def post_with(key: str, body: bytes, path: str = "/v1/chat/completions", extra: str = "") -> bytes:
    """Return a request with a key and any body; `extra` are header lines."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: gateway\r\nAuthorization: Bearer {key}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n{extra}\r\n"
    )
    return head.encode("latin-1") + body


def open_stream(stage: Stage, **values: Any) -> RawConnection:
    """Start a streamed chat."""
    connection = RawConnection(stage.bench.gateway.port)
    connection.send(post(stage.caller, stage.body(stream=True, **values)))
    return connection


def head_of(received: bytes) -> tuple[int, dict[str, str]]:
    """Return status and headers, names in lower case."""
    head = received.partition(b"\r\n\r\n")[0].decode("latin-1")
    status, *lines = head.split("\r\n")
    pairs = (line.partition(": ") for line in lines)
    return int(status.split(" ")[1]), {name.lower(): value for name, _, value in pairs}


def body_of(received: bytes) -> bytes:
    """Return the body, taken out of its chunks; the end may be missing."""
    _, headers = head_of(received)
    rest = received.partition(b"\r\n\r\n")[2]
    if headers.get("transfer-encoding") != "chunked":
        return rest
    body = b""
    while rest:  # each turn takes a chunk off
        size_text, _, rest = rest.partition(b"\r\n")
        size = int(size_text, 16)
        if size == 0:
            break
        body, rest = body + rest[:size], rest[size + 2 :]
    return body


def events_of(received: bytes) -> list[Any]:
    """Return the data of the events, parsed; `[DONE]` as that text."""
    events = body_of(received).split(b"\n\n")
    found = [event.removeprefix(b"data: ") for event in events if event]
    return ["[DONE]" if data == b"[DONE]" else orjson.loads(data) for data in found]


def text_of(events: list[Any]) -> str:
    """Return the text of the deltas."""
    choices = [event["choices"] for event in events if event != "[DONE]" and "choices" in event]
    return "".join(found[0]["delta"].get("content") or "" for found in choices if found)
