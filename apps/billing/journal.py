"""Settlements that could not reach the database, kept on disk until they can.

One file a process in `DATA_DIR/journal`, one JSON line a settlement with its checksum, fsynced
before the client is told that its answer is complete. A file whose owner is gone (its lock is
free) is adopted by the next process that starts. Replaying is safe at any time: a settlement that
had been committed before adds nothing.
"""

from __future__ import annotations

import base64
import fcntl
import os
import threading
import zlib
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Any
from uuid import UUID

import orjson

from apps.billing.ledger.commands import PayloadRecord, Resolve, Row

BYTES_MAX = 1 << 30


class JournalFull(Exception):
    """The journal has reached its bound or its disk is full; nothing was written."""


class Journal:
    """An append-only file of settlements. Appending and replaying may happen in different
    threads.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._lock = threading.Lock()
        self._path = folder / f"{os.getpid()}-{os.urandom(4).hex()}.jsonl"
        self._file = _open_locked(self._path)
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def append(self, resolves: Sequence[Resolve]) -> None:
        """Write settlements and fsync them. Raises JournalFull; then none of them counts."""
        lines = b"".join(_encode(resolve) for resolve in resolves)
        with self._lock:
            start = self._file.seek(0, os.SEEK_END)
            try:
                if start + len(lines) > BYTES_MAX:
                    raise OSError(f"over {BYTES_MAX} bytes")
                self._file.write(lines)
                self._file.flush()
                os.fsync(self._file.fileno())
            except OSError as error:
                self._file.truncate(start)
                raise JournalFull(str(error)) from error
            self._count += len(resolves)

    def read(self) -> list[Resolve]:
        """Return all settlements in the file."""
        with self._lock:
            return list(_read(self._path))

    def discard(self, count: int) -> None:
        """Drop the first `count` settlements: they are in the database."""
        with self._lock:
            rest = list(_read_lines(self._path))[count:]
            self._file.seek(0)
            self._file.truncate(0)
            self._file.write(b"".join(line for line, _ in rest))
            self._file.flush()
            os.fsync(self._file.fileno())
            self._count = len(rest)

    def adopt_abandoned(self) -> int:
        """Take over the settlements of processes that are gone and return how many there were."""
        adopted = 0
        for path in sorted(self._folder.glob("*.jsonl")):
            if path == self._path:
                continue
            try:
                file = _open_locked(path)
            except (BlockingIOError, FileNotFoundError):
                continue  # Its owner lives, or somebody else has just adopted it.
            with file:
                found = list(_read(path))
                if found:
                    self.append(found)
                path.unlink(missing_ok=True)
                adopted += len(found)
        return adopted

    def close(self) -> None:
        """Close the file, and remove it where it is empty."""
        with self._lock:
            if self._count == 0:
                self._path.unlink(missing_ok=True)
            self._file.close()


def _open_locked(path: Path) -> IO[bytes]:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "r+b")


def _read(path: Path) -> Iterator[Resolve]:
    for _, body in _read_lines(path):
        yield _decode(orjson.loads(body))


def _read_lines(path: Path) -> Iterator[tuple[bytes, bytes]]:
    """Yield each whole line and its body.

    A torn last line was never acknowledged and is passed over.
    """
    with path.open("rb") as file:
        for line in file:
            checksum, _, body = line.rstrip(b"\n").partition(b" ")
            if line.endswith(b"\n") and checksum == b"%08x" % zlib.crc32(body):
                yield line, body


def _encode(resolve: Resolve) -> bytes:
    payload = resolve.payload
    body = orjson.dumps(
        {
            "request_id": resolve.request_id,
            "wallet_id": resolve.wallet_id,
            "receivable_id": resolve.receivable_id,
            "legs": resolve.legs,
            "counters": resolve.counters,
            "charge_nanos": resolve.charge_nanos,
            "row": resolve.row,
            "attempts": resolve.attempts,
            "payload": None
            if payload is None
            else {
                "salt": payload.salt,
                "request_body": payload.request_body,
                "response_body": payload.response_body,
                "is_request_truncated": payload.is_request_truncated,
                "is_response_truncated": payload.is_response_truncated,
            },
        },
        default=lambda value: {"base64": base64.b64encode(value).decode()},
    )
    return b"%08x %s\n" % (zlib.crc32(body), body)


def _decode(value: dict[str, Any]) -> Resolve:
    payload = value["payload"]
    return Resolve(
        request_id=UUID(value["request_id"]),
        wallet_id=value["wallet_id"],
        receivable_id=value["receivable_id"],
        legs=tuple((leg[0], leg[1]) for leg in value["legs"]),
        counters=tuple(value["counters"]),
        charge_nanos=value["charge_nanos"],
        row=_decode_row(value["row"]),
        attempts=tuple(_decode_row(row) for row in value["attempts"]),
        payload=None if payload is None else PayloadRecord(**_decode_row(payload)),
    )


def _decode_row(row: Row) -> Row:
    for name, value in row.items():
        if name in ("id", "request_id"):
            row[name] = UUID(value)
        elif name == "started_at":
            row[name] = datetime.fromisoformat(value)
        elif isinstance(value, dict) and "base64" in value:
            row[name] = base64.b64decode(value["base64"])
    return row
