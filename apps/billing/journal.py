"""Settlements that could not reach the database, kept on disk until they can.

One file a process in `DATA_DIR/journal`, one JSON line a settlement with its checksum, fsynced
before the client is told that its answer is complete. A file whose owner is gone (its lock is free)
is adopted by the next process that looks. Replaying is safe at any time: a settlement that had been
committed before adds nothing. What the database will never take goes to the file `quarantine`
beside them. While a backup is being made nothing is removed, see `keep_all`.
"""

from __future__ import annotations

import base64
import fcntl
import itertools
import logging
import os
import threading
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, BinaryIO, Final
from uuid import UUID

import orjson

from apps.billing.chains import ADDED_FIELDS
from apps.billing.ledger.commands import (
    Claim,
    ClaimEnd,
    PayloadRecord,
    RepeatAnswer,
    Resolve,
    Row,
    StoredRecord,
)
from apps.core.folders import sync_folder

BYTES_MAX: Final = 1 << 30
READ_BYTES: Final = 4 << 20
_ADOPTED_AT_ONCE: Final = 100
# What an older gateway left has no value in these columns of an attempt.
_ADDED_TO_ATTEMPTS: Final[Row] = {"changes": "", "cost_nanos": None}

logger = logging.getLogger(__name__)


class JournalFull(Exception):
    """The journal has reached its bound or its disk is full; nothing was written."""


class Journal:
    """A file of settlements. Appending and replaying may happen in different threads.

    What counts are the bytes from `_start` to `_end`. Before them lies what has been replayed;
    behind them at most the rest of a write that failed, which the next one overwrites.
    """

    def __init__(self, folder: Path, *, bytes_max: int = BYTES_MAX) -> None:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._path, self._file = _create_locked(folder)
        sync_folder(folder)
        self._folder_descriptor = _open_folder(folder)
        self._start = self._end = self._count = 0

    def __len__(self) -> int:
        return self._count

    @property
    def size_bytes(self) -> int:
        """What the settlements take that are not in the database."""
        return self._end - self._start

    def append(self, resolves: Sequence[Resolve]) -> None:
        """Write settlements and fsync them. Raises JournalFull; then none of them counts."""
        self._append([_encode(resolve) for resolve in resolves])

    def read(self, limit: int, bytes_max: int = READ_BYTES) -> list[Resolve]:
        """Return the oldest settlements: at most `limit`, and none after `bytes_max` is passed."""
        found: list[Resolve] = []
        size = 0
        with self._lock:
            for _, line in itertools.islice(self._lines(), limit):
                found.append(_decode(orjson.loads(_body(line))))
                size += len(line)
                if size >= bytes_max:
                    break
        return found

    def discard(self, count: int) -> None:
        """Drop the oldest `count` settlements: they are in the database.

        The file shrinks when it is empty. Until then a crash brings them back, which does no harm;
        to rewrite it would put those at risk that are not in the database yet.
        """
        with self._lock:
            for end, _ in itertools.islice(self._lines(), count):
                self._start = end
                self._count -= 1
            self._shrink()

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
            except OSError as error:
                logger.error("the journal %s cannot be opened: %s", path.name, error)
                continue
            with file:
                lines = (line for _, line in _read_lines(file, 0))
                try:
                    while part := list(itertools.islice(lines, _ADOPTED_AT_ONCE)):
                        self._append(part)
                        adopted += len(part)
                except JournalFull:
                    logger.error(
                        "the journal of a process that is gone cannot be adopted: disk full"
                    )
                    return adopted
                with self._lock, self._removing() as is_allowed:
                    if is_allowed:
                        path.unlink(missing_ok=True)
        return adopted

    def quarantine(self, resolve: Resolve) -> None:
        """Keep a settlement that the database takes in no form, for an operator."""
        try:
            flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
            descriptor = os.open(self._folder / "quarantine", flags, 0o600)
            try:
                _write_at(descriptor, _encode(resolve), None)
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            logger.critical("settlement %s cannot be quarantined: %s", resolve.request_id, error)

    def close(self) -> None:
        """Close the file, and remove it where it is empty."""
        with self._lock:
            with self._removing() as is_allowed:
                if self._count == 0 and (is_allowed or not self._end):
                    self._path.unlink(missing_ok=True)
            self._file.close()
            os.close(self._folder_descriptor)

    def _append(self, lines: Sequence[bytes]) -> None:
        data = b"".join(lines)
        with self._lock:
            self._shrink()  # Where a backup was being made when the last one was discarded.
            if self._end + len(data) > self._bytes_max:
                raise JournalFull(f"over {self._bytes_max} bytes")
            try:
                _write_at(self._file.fileno(), data, self._end)
                os.fsync(self._file.fileno())
            except OSError as error:
                raise JournalFull(str(error)) from error
            self._end += len(data)
            self._count += len(lines)

    def _shrink(self) -> None:
        if self._count or not self._end:
            return
        with self._removing() as is_allowed:
            if is_allowed:
                os.ftruncate(self._file.fileno(), 0)
                self._start = self._end = 0

    @contextmanager
    def _removing(self) -> Iterator[bool]:
        """Yield whether settlements that are in the database may be removed: not during a backup.

        What stays is replayed another time, which adds nothing. The caller holds `_lock`.
        """
        is_allowed = _try_lock(self._folder_descriptor, fcntl.LOCK_SH)
        try:
            yield is_allowed
        finally:
            fcntl.flock(self._folder_descriptor, fcntl.LOCK_UN)

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        for end, line in _read_lines(self._file, self._start):
            if end > self._end:
                return
            yield end, line


@contextmanager
def keep_all(folder: Path, *, seconds_max: float) -> Iterator[None]:
    """Keep every process from removing settlements from its journal in `folder`.

    So who looks into the database first and then at the journals misses none: what had been removed
    before is in the database, and nothing is removed now. They go on being written and replayed.
    Raises TimeoutError where they are being removed all the time.
    """
    if not folder.is_dir():
        yield  # No gateway has been here yet.
        return
    descriptor = _open_folder(folder)
    try:
        deadline = time.monotonic() + seconds_max
        while not _try_lock(descriptor, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{folder} stays locked; try again")
            time.sleep(0.005)
        yield
    finally:
        os.close(descriptor)


def _open_folder(folder: Path) -> int:
    return os.open(folder, os.O_RDONLY | os.O_DIRECTORY)


def _try_lock(descriptor: int, kind: int) -> bool:
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _create_locked(folder: Path) -> tuple[Path, BinaryIO]:
    """Make a file that is this process's own.

    Between its making and its lock another process may take it for one whose owner is gone, and
    remove it: then another one is made.
    """
    while True:
        path = folder / f"{os.getpid()}-{os.urandom(4).hex()}.jsonl"
        try:
            file = _open_locked(path)
        except BlockingIOError:
            continue
        if os.fstat(file.fileno()).st_nlink:
            return path, file
        file.close()


def _open_locked(path: Path) -> BinaryIO:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "r+b")


def _write_at(descriptor: int, data: bytes, offset: int | None) -> None:
    """Write all of `data`, at `offset` or at the end."""
    view = memoryview(data)
    while view:
        if offset is None:
            written = os.write(descriptor, view)
        else:
            written = os.pwrite(descriptor, view, offset)
            offset += written
        view = view[written:]


def _read_lines(file: BinaryIO, start: int) -> Iterator[tuple[int, bytes]]:
    """Yield each whole line with the offset of its end.

    A torn last line was never acknowledged and is passed over; any other damage is reported.
    """
    # With a buffer of its own: one that was read before may hold what the file does no longer, and
    # a seek within it would not empty it.
    with open(file.fileno(), "rb", closefd=False) as reader:
        reader.seek(start)
        end = start
        for line in reader:
            end += len(line)
            if line.startswith(b"%08x " % zlib.crc32(_body(line))) and line.endswith(b"\n"):
                yield end, line
            elif line.endswith(b"\n"):
                logger.error("a line of the settlement journal is damaged and cannot be replayed")


def _body(line: bytes) -> bytes:
    return line.rstrip(b"\n").partition(b" ")[2]


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
            **_encode_end(resolve.claim_end),
            **_encode_stored(resolve.stored),
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
        # What an older gateway left has no value in columns that were added since.
        row=dict.fromkeys(ADDED_FIELDS, "") | _decode_row(value["row"]),
        attempts=tuple(_decode_row({**_ADDED_TO_ATTEMPTS, **row}) for row in value["attempts"]),
        payload=None if payload is None else PayloadRecord(**_decode_row(payload)),
        claim_end=_decode_end(value),
        stored=_decode_stored(value),
    )


def _encode_end(end: ClaimEnd | None) -> Row:
    if end is None:
        return {}
    return {
        "claim": None if end.claim is None else end.claim._asdict(),
        "answer": None if end.answer is None else end.answer._asdict(),
    }


def _decode_end(value: Row) -> ClaimEnd | None:
    """Return how a claim ends; lines of calls without an idempotency key have nothing of it."""
    if "claim" not in value:
        return None
    claim, answer = value["claim"], value["answer"]
    return ClaimEnd(
        None if claim is None else Claim(**_decode_row(claim)),
        None if answer is None else RepeatAnswer(**_decode_row(answer)),
    )


def _encode_stored(stored: StoredRecord | None) -> Row:
    return {} if stored is None else {"stored": stored._asdict()}


def _decode_stored(value: Row) -> StoredRecord | None:
    """Return where an answer lies; lines of calls whose answers nobody keeps have nothing of it."""
    stored = value.get("stored")
    if stored is None:
        return None
    for name in ("created_at", "expires_at"):
        stored[name] = datetime.fromisoformat(stored[name])
    stored["digests"] = tuple(base64.b64decode(one["base64"]) for one in stored["digests"])
    return StoredRecord(**stored)


def _decode_row(row: Row) -> Row:
    for name, value in row.items():
        if name in ("id", "request_id"):
            row[name] = UUID(value)
        elif name == "started_at":
            row[name] = datetime.fromisoformat(value)
        elif isinstance(value, dict) and "base64" in value:
            row[name] = base64.b64decode(value["base64"])
    return row
