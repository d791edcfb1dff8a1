"""Frames as Amazon sends them, written from its documentation: not with the reader's library.

Source: https://docs.aws.amazon.com/lexv2/latest/dg/event-stream-encoding.html
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Mapping

import orjson

_STRING = 7


def frame(headers: Mapping[str, str], payload: bytes) -> bytes:
    """Return one frame with its checksums."""
    told = b"".join(
        bytes([len(name)])
        + name.encode()
        + bytes([_STRING])
        + len(value).to_bytes(2, "big")
        + value.encode()
        for name, value in headers.items()
    )
    prelude = (16 + len(told) + len(payload)).to_bytes(4, "big") + len(told).to_bytes(4, "big")
    whole = prelude + zlib.crc32(prelude).to_bytes(4, "big") + told + payload
    return whole + zlib.crc32(whole).to_bytes(4, "big")


def chunk(event: object) -> bytes:
    """Return the frame of an event of a model."""
    return raw_chunk(orjson.dumps(event))


def raw_chunk(event: bytes) -> bytes:
    """Return the frame of what is to be an event of a model."""
    payload = orjson.dumps({"bytes": base64.b64encode(event).decode(), "p": "abcdefghi"})
    headers = {":event-type": "chunk", ":content-type": "application/json"}
    return frame({**headers, ":message-type": "event"}, payload)


def exception(name: str, message: str) -> bytes:
    """Return the frame by which a stream ends with an exception."""
    headers = {":exception-type": name, ":content-type": "application/json"}
    return frame({**headers, ":message-type": "exception"}, orjson.dumps({"message": message}))
