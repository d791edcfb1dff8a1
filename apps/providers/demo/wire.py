"""HTTP/1.1 on the wire, without I/O: bytes in, requests out; response heads and chunks as bytes.

Source: https://www.rfc-editor.org/rfc/rfc9112
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from http import HTTPStatus

HEAD_BYTES_MAX = 64 * 1024
BODY_BYTES_MAX = 64 * 1024 * 1024
CHUNK_LINE_BYTES_MAX = 1024

LAST_CHUNK = b"0\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"

TYPE_JSON = "application/json"
TYPE_EVENTS = "text/event-stream; charset=utf-8"


class BadRequest(Exception):
    """What arrived is not an HTTP/1.1 request this server takes; the connection must end."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class Request:
    """One complete request; header names are in lower case, repeated ones joined by a comma."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes
    keeps_alive: bool

    @property
    def path(self) -> str:
        """Return the target without query and trailing slash."""
        return self.target.partition("?")[0].rstrip("/") or "/"

    @property
    def query(self) -> str:
        """Return what follows the question mark."""
        return self.target.partition("?")[2]


@dataclass(frozen=True, slots=True)
class _Head:
    method: str
    target: str
    headers: dict[str, str]
    keeps_alive: bool
    body_bytes: int  # -1: chunked


class RequestReader:
    """Cuts a byte stream into requests, pipelined ones too."""

    __slots__ = ("_body", "_buffer", "_has_continued", "_head")

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._head: _Head | None = None
        self._body = bytearray()
        self._has_continued = False

    @property
    def buffered_bytes(self) -> int:
        """Return how much was received and belongs to no finished request."""
        return len(self._buffer)

    def feed(self, data: bytes) -> None:
        """Take what arrived."""
        self._buffer += data

    def take_continue(self) -> bool:
        """Return True once for a request whose client waits for `100 Continue`."""
        head = self._head
        if head is None or self._has_continued:
            return False
        self._has_continued = True
        return head.headers.get("expect", "").lower() == "100-continue"

    def next_request(self) -> Request | None:
        """Return the next complete request, or None until more arrives. Raises BadRequest."""
        if self._head is None:
            self._head = self._read_head()
        head = self._head
        if head is None:
            return None
        body = self._read_sized(head.body_bytes) if head.body_bytes >= 0 else self._read_chunked()
        if body is None:
            return None
        self._head = None
        self._has_continued = False
        return Request(head.method, head.target, head.headers, body, head.keeps_alive)

    def _read_head(self) -> _Head | None:
        while self._buffer.startswith(b"\r\n"):
            del self._buffer[:2]
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self._buffer) > HEAD_BYTES_MAX:
                raise BadRequest(431, "The request head is too large.")
            return None
        text = self._buffer[:end].decode("latin-1")
        del self._buffer[: end + 4]
        return _parse_head(text)

    def _read_sized(self, size: int) -> bytes | None:
        if len(self._buffer) < size:
            return None
        body = bytes(self._buffer[:size])
        del self._buffer[:size]
        return body

    def _read_chunked(self) -> bytes | None:
        # Each turn consumes a chunk or returns, so the received bytes bound the loop.
        while True:
            line_end = self._buffer.find(b"\r\n")
            if line_end < 0 or line_end > CHUNK_LINE_BYTES_MAX:
                if len(self._buffer) > CHUNK_LINE_BYTES_MAX:
                    raise BadRequest(400, "A chunk has no size.")
                return None
            size = _parse_chunk_size(bytes(self._buffer[:line_end]))
            if len(self._body) + size > BODY_BYTES_MAX:
                raise BadRequest(413, "The request body is too large.")
            if size == 0:
                return self._read_trailers(line_end)
            end = line_end + 2 + size
            if len(self._buffer) < end + 2:
                return None
            if self._buffer[end : end + 2] != b"\r\n":
                raise BadRequest(400, "A chunk does not end where it says.")
            self._body += self._buffer[line_end + 2 : end]
            del self._buffer[: end + 2]

    def _read_trailers(self, line_end: int) -> bytes | None:
        # The empty line may follow the last chunk's line at once: look from that line's own end.
        end = self._buffer.find(b"\r\n\r\n", line_end)
        if end < 0:
            if len(self._buffer) > HEAD_BYTES_MAX:
                raise BadRequest(431, "The trailers are too large.")
            return None
        del self._buffer[: end + 4]
        body = bytes(self._body)
        self._body.clear()
        return body


def _parse_head(text: str) -> _Head:
    lines = text.split("\r\n")
    words = lines[0].split(" ")
    if len(words) != 3 or not words[2].startswith("HTTP/"):
        raise BadRequest(400, "The request line cannot be read.")
    method, target, version = words
    if version != "HTTP/1.1":
        raise BadRequest(505, "Only HTTP/1.1 is spoken here.")
    headers: dict[str, str] = {}
    for line in lines[1:]:
        name, colon, value = line.partition(":")
        if not colon or not name or name != name.strip():
            raise BadRequest(400, "A header line cannot be read.")
        name = name.lower()
        value = value.strip()
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    keeps_alive = "close" not in headers.get("connection", "").lower()
    return _Head(method, target, headers, keeps_alive, _read_body_size(headers))


def _read_body_size(headers: dict[str, str]) -> int:
    encoding = headers.get("transfer-encoding")
    length = headers.get("content-length")
    if encoding is not None:
        if length is not None or encoding.lower() != "chunked":
            raise BadRequest(400, "The length of the body is ambiguous.")
        return -1
    if length is None:
        return 0
    if not (length.isascii() and length.isdigit()):
        raise BadRequest(400, "The content-length is not a number.")
    if len(length) > 12 or int(length) > BODY_BYTES_MAX:
        raise BadRequest(413, "The request body is too large.")
    return int(length)


def _parse_chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not digits or len(digits) > 8 or digits.strip(b"0123456789abcdefABCDEF"):
        raise BadRequest(400, "A chunk's size is not a number.")
    return int(digits, 16)


def render_head(status: int, headers: Iterable[tuple[str, str]]) -> bytes:
    """Return status line and headers, ready to be sent."""
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = "Overloaded" if status == 529 else "Unassigned"
    lines = [f"HTTP/1.1 {status} {phrase}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join([*lines, "", ""]).encode("latin-1", "replace")


def render_chunk(data: bytes) -> bytes:
    """Return the bytes as one chunk of a chunked body."""
    return b"%x\r\n%b\r\n" % (len(data), data)
