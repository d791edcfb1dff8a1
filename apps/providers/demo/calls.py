"""The log of calls: what arrived, what was sent, how it ended. One record per call, never more.

In memory: the last `CALLS_MAX` records, with bodies up to `BODIES_BYTES_MAX` in total (the oldest
lose theirs first). In the file, if one is given: one JSON line when a call has ended. Times are
Unix seconds.
"""

from __future__ import annotations

import hashlib
import os
import time
from collections import OrderedDict, deque
from typing import Any, TypedDict

import orjson

from apps.providers.demo.wire import Request

CALLS_MAX = 20_000
BODY_BYTES_MAX = 1024 * 1024
BODIES_BYTES_MAX = 64 * 1024 * 1024
COUNTED_MODELS_MAX = 10_000
# What may carry a key: none of them is kept.
KEY_HEADERS = ("authorization", "x-api-key", "x-goog-api-key")


class Call(TypedDict):
    """One call. `ended` is None while it runs, then done, client_closed or fault.

    `events_sent` counts whole server-sent events, `[DONE]` included. `bytes_sent` counts what was
    handed to the network, heads and framing included. `output_tokens` counts what was delivered of
    the answer; `input_tokens` is 0 where the call was refused. `authorization_sha256` is of the
    whole value of the header with the key, whichever of `KEY_HEADERS` that is.
    """

    call: int
    model: str | None
    stream: bool
    method: str
    path: str
    authorization_sha256: str | None
    request_headers: dict[str, str]
    body_sha256: str
    body_bytes: int
    body: Any
    response_id: str  # the last 29 characters of the answer's id and of its request id
    started_at: float
    status: int | None
    events_sent: int
    bytes_sent: int
    input_tokens: int
    output_tokens: int
    usage_sent: bool
    fault: str
    ended: str | None
    ended_at: float | None
    client_closed_at: float | None


class CallLog:
    """Keeps the records of a provider's calls."""

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self.calls: deque[Call] = deque(maxlen=CALLS_MAX)
        self._next_number = 1
        self._bodies: deque[tuple[Call, int]] = deque()
        self._bodies_bytes = 0
        self._calls_by_model: OrderedDict[str, int] = OrderedDict()
        self._path = path
        self._file: int | None = None

    def open(self) -> None:
        """Open the file, if there is one to write."""
        if self._path is not None and self._file is None:
            # Prompts stand in this file: nobody else may read it.
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            self._file = os.open(self._path, flags, 0o600)

    def start(self, request: Request, body: Any, response_prefix: str) -> Call:
        """Record that a call has arrived."""
        headers = dict(request.headers)
        keys = [headers.pop(name, None) for name in KEY_HEADERS]
        authorization = next((key for key in keys if key is not None), None)
        number = self._next_number
        self._next_number += 1
        size = len(request.body)
        call: Call = {
            "call": number,
            "model": None,
            "stream": False,
            "method": request.method,
            "path": request.path,
            "authorization_sha256": None
            if authorization is None
            else _digest(authorization.encode("latin-1")),
            "request_headers": headers,
            "body_sha256": _digest(request.body),
            "body_bytes": size,
            "body": body if size <= BODY_BYTES_MAX else None,
            "response_id": f"{response_prefix}{number:015d}",
            "started_at": time.time(),
            "status": None,
            "events_sent": 0,
            "bytes_sent": 0,
            "input_tokens": 0,
            "output_tokens": 0,
            "usage_sent": False,
            "fault": "ok",
            "ended": None,
            "ended_at": None,
            "client_closed_at": None,
        }
        self.calls.append(call)
        if 0 < size <= BODY_BYTES_MAX:
            self._keep_body(call, size)
        return call

    def _keep_body(self, call: Call, size: int) -> None:
        self._bodies.append((call, size))
        self._bodies_bytes += size
        while self._bodies_bytes > BODIES_BYTES_MAX or len(self._bodies) > CALLS_MAX:
            oldest, oldest_size = self._bodies.popleft()
            oldest["body"] = None
            self._bodies_bytes -= oldest_size

    def end(self, call: Call, ended: str) -> None:
        """Record how a call ended and write its line."""
        call["ended"] = ended
        call["ended_at"] = time.time()
        if self._file is not None:
            os.write(self._file, orjson.dumps(call) + b"\n")

    def count_model(self, model: str) -> int:
        """Return how often this model name was called, this call included."""
        count = self._calls_by_model.pop(model, 0) + 1
        self._calls_by_model[model] = count
        if len(self._calls_by_model) > COUNTED_MODELS_MAX:
            self._calls_by_model.popitem(last=False)
        return count

    def list_since(self, number: int) -> list[Call]:
        """Return the records of the calls after the numbered one."""
        return [call for call in self.calls if call["call"] > number]

    def clear(self) -> None:
        """Forget all records and the counts behind `flaky`; numbers go on."""
        self.calls.clear()
        self._bodies.clear()
        self._bodies_bytes = 0
        self._calls_by_model.clear()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
