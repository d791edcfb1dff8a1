"""Settlements that could not reach the database, kept on disk until they can.

One file a process in `DATA_DIR/journal`, one JSON line a settlement with its checksum, fsynced
before the client is told that its answer is complete. A file whose owner is gone (its lock is free)
is adopted by the next process that looks, and replayed where it lies, which takes no room on the
disk. Replaying is safe at any time: a settlement that had been committed before adds nothing. What
the database will never take, and what cannot be read, goes to the file `quarantine` beside them.
While a backup is being made nothing is removed, see `keep_all`.
"""

from __future__ import annotations

import fcntl
import logging
import os
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Final

from apps.billing.journal_lines import LineUnreadable, decode, encode, find_request_id
from apps.billing.ledger.commands import Resolve
from apps.core.folders import sync_folder

BYTES_MAX: Final = 1 << 30
READ_BYTES: Final = 4 << 20
_ADOPTED_MAX: Final = 100  # files at once: each takes a descriptor

logger = logging.getLogger(__name__)


class JournalFull(Exception):
    """The journal has reached its bound or its disk is full; nothing was written."""


class _JournalFile:
    """One file, locked by this process.

    What counts are the bytes from `start` to `end`. Before them lies what has been replayed; behind
    them at most the rest of a write that failed, which the next one overwrites. Lines that end at
    one of `aside` are in the quarantine.
    """

    def __init__(self, path: Path, file: BinaryIO) -> None:
        self.path = path
        self._file = file
        self.start = self.end = self.count = 0  # how many lines there are from start to end
        self.aside: set[int] = set()

    @property
    def is_replayed(self) -> bool:
        """Whether nothing waits in it any more."""
        return self.start == self.end

    def measure(self) -> None:
        """Let all count that its last owner has left.

        A torn last line was never acknowledged.
        """
        for end, _ in _read_lines(self._file, 0):
            self.end = end
            self.count += 1

    def append(self, lines: Sequence[bytes]) -> None:
        """Write lines and fsync them. Raises OSError; then none of them counts."""
        data = b"".join(lines)
        try:
            _write_at(self._file.fileno(), data, self.end)
            os.fsync(self._file.fileno())
        except OSError:
            # Else the next one, where it is shorter, has a piece of this one behind it.
            with suppress(OSError):
                os.ftruncate(self._file.fileno(), self.end)
            raise
        self.end += len(data)
        self.count += len(lines)

    def lines(self) -> Iterator[tuple[int, bytes]]:
        """Yield each line that counts, with the offset of its end."""
        for end, line in _read_lines(self._file, self.start):
            if end > self.end:
                return
            yield end, line

    def discard(self, count: int) -> int:
        """Drop the oldest `count` settlements, or all, and return how many these were.

        Lines in the quarantine that stand before or behind these are passed over.
        """
        dropped = 0
        if not count and not self.aside:
            return dropped
        for end, _ in self.lines():
            if end not in self.aside:
                if dropped == count:
                    break
                dropped += 1
            self.start = end
            self.count -= 1
        return dropped

    def empty(self) -> None:
        """Give back its room."""
        os.ftruncate(self._file.fileno(), 0)
        self.start = self.end = self.count = 0
        self.aside.clear()

    def close(self) -> None:
        """Close it. Others may lock it then."""
        self._file.close()


class Journal:
    """Our own file of settlements, and those that were adopted, which are replayed before it.

    Appending and replaying may happen in different threads.
    """

    def __init__(self, folder: Path, *, bytes_max: int = BYTES_MAX) -> None:
        """`bytes_max`: of our own file."""
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._folder = folder
        self._bytes_max = bytes_max
        self._lock = threading.Lock()
        self._own = _create_locked(folder)
        # Our own is the last one. Any thread may count what waits: this is replaced, never changed.
        self._files: tuple[_JournalFile, ...] = (self._own,)
        sync_folder(folder)
        self._folder_descriptor = _open_folder(folder)
        self.unreadable_count = 0  # lines that went to the quarantine, since the start

    def __len__(self) -> int:
        return sum(file.count for file in self._files)

    @property
    def size_bytes(self) -> int:
        """What the settlements take that are not in the database."""
        return sum(file.end - file.start for file in self._files)

    def append(self, resolves: Sequence[Resolve]) -> None:
        """Write settlements and fsync them. Raises JournalFull; then none of them counts."""
        lines = [encode(resolve) for resolve in resolves]
        with self._lock:
            try:
                self._remove_replayed()  # A backup may have been made when they were discarded.
                if self._own.end + sum(map(len, lines)) > self._bytes_max:
                    raise JournalFull(f"over {self._bytes_max} bytes")
                self._own.append(lines)
            except OSError as error:
                raise JournalFull(str(error)) from error

    def read(self, limit: int, bytes_max: int = READ_BYTES) -> list[Resolve]:
        """Return the oldest settlements: at most `limit`, and none after `bytes_max` is passed.

        Lines that cannot be read go to the quarantine. Raises JournalFull where that has no room
        for the first one.
        """
        found: list[Resolve] = []
        size = 0
        with self._lock:
            for file, end, line in self._waiting():
                try:
                    found.append(decode(line))
                except LineUnreadable as error:
                    if self._set_aside(file, end, line, error):
                        continue
                    if not found:
                        raise JournalFull("there is no room for the quarantine") from error
                    break
                size += len(line)
                if len(found) == limit or size >= bytes_max:
                    break
            self._drop(0)
        return found

    def discard(self, count: int) -> None:
        """Drop the oldest `count` settlements: they are in the database.

        Their file is removed, or our own emptied, when none is left in it. Until then a crash
        brings them back, which does no harm; to rewrite it would put those at risk that are not in
        the database yet.
        """
        with self._lock:
            self._drop(count)

    def adopt_abandoned(self) -> int:
        """Take over the files of processes that are gone and return how many settlements are in
        them.
        """
        adopted: list[_JournalFile] = []
        ours = {file.path for file in self._files}
        for path in sorted(self._folder.glob("*.jsonl")):
            if len(ours) + len(adopted) > _ADOPTED_MAX:
                break
            if path in ours:
                continue
            try:
                file = _adopt(path)
            except (BlockingIOError, FileNotFoundError):
                continue  # Its owner lives, or somebody else has just replayed it.
            except OSError as error:
                logger.error("the journal %s cannot be read: %s", path.name, error)
                continue
            adopted.append(file)
        with self._lock:
            self._files = (*self._files[:-1], *adopted, self._own)
            self._remove_replayed()
        return sum(file.count for file in adopted)

    def quarantine(self, resolve: Resolve) -> None:
        """Keep a settlement that the database takes in no form, for an operator."""
        try:
            self._keep(encode(resolve))
        except OSError as error:
            logger.critical("settlement %s cannot be quarantined: %s", resolve.request_id, error)

    def close(self) -> None:
        """Close the files, and remove our own where nothing is in it."""
        with self._lock:
            self._remove_replayed()
            if not self._own.end:
                self._own.path.unlink(missing_ok=True)
            for file in self._files:
                file.close()
            os.close(self._folder_descriptor)

    def _waiting(self) -> Iterator[tuple[_JournalFile, int, bytes]]:
        for file in self._files:
            for end, line in file.lines():
                if end not in file.aside:
                    yield file, end, line

    def _set_aside(self, file: _JournalFile, end: int, line: bytes, error: LineUnreadable) -> bool:
        """Put a line into the quarantine and return whether that had room for it."""
        name = f"{find_request_id(line)} at byte {end - len(line)} of the journal {file.path.name}"
        try:
            self._keep(line)
        except OSError as full:
            logger.critical("settlement %s cannot be quarantined: %s", name, full)
            return False
        logger.critical("settlement %s is quarantined: its line %s", name, error)
        file.aside.add(end)
        self.unreadable_count += 1
        return True

    def _keep(self, line: bytes) -> None:
        """Append a line to the quarantine. Raises OSError where it is not on the disk then."""
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
        descriptor = os.open(self._folder / "quarantine", flags, 0o600)
        try:
            size = os.fstat(descriptor).st_size
            if size and os.pread(descriptor, 1, size - 1) != b"\n":
                line = b"\n" + line  # A write that failed has left a piece of another one.
            _write_at(descriptor, line, None)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        sync_folder(self._folder)

    def _drop(self, count: int) -> None:
        for file in self._files:
            count -= file.discard(count)
        self._remove_replayed()

    def _remove_replayed(self) -> None:
        """Remove the adopted files in which nothing waits any more, and empty our own.

        The caller holds `_lock`.
        """
        replayed = [
            file for file in self._files if file.is_replayed and (file.end or file is not self._own)
        ]
        if not replayed:
            return
        with self._removing() as is_allowed:
            for file in replayed if is_allowed else ():
                if file is self._own:
                    file.empty()
                    continue
                file.path.unlink(missing_ok=True)
                self._files = tuple(other for other in self._files if other is not file)
                file.close()

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


def _create_locked(folder: Path) -> _JournalFile:
    """Make a file that is this process's own.

    Between its making and its lock another process may take it for one whose owner is gone, and
    remove it: then another one is made.
    """
    while True:
        path = folder / f"{os.getpid()}-{os.urandom(4).hex()}.jsonl"
        try:
            return _open_locked(path, os.O_RDWR | os.O_CREAT)
        except BlockingIOError:
            continue


def _adopt(path: Path) -> _JournalFile:
    """Lock a file that another process has left. Raises as `_open_locked`."""
    file = _open_locked(path, os.O_RDWR)
    try:
        file.measure()
    except BaseException:
        file.close()
        raise
    return file


def _open_locked(path: Path, flags: int) -> _JournalFile:
    """Raises BlockingIOError where somebody else has it, or had it in between and removed it."""
    file = os.fdopen(os.open(path, flags, 0o600), "r+b")
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.fstat(file.fileno()).st_nlink:
            raise BlockingIOError(f"{path.name} has been removed")
    except BaseException:
        file.close()
        raise
    return _JournalFile(path, file)


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
    """Yield each line that has an end, with the offset of that."""
    # With a buffer of its own: one that was read before may hold what the file does no longer, and
    # a seek within it would not empty it.
    with open(file.fileno(), "rb", closefd=False) as reader:
        reader.seek(start)
        end = start
        for line in reader:
            if line.endswith(b"\n"):
                end += len(line)
                yield end, line
