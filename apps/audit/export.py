"""Recorded calls as files: CSV (RFC 4180) and JSON lines, written while they are read.

Pages follow one another by start and id, so that each call is in the file once whatever is
recorded meanwhile. A file that could not be finished breaks off: it never ends as if it were whole.
"""

from __future__ import annotations

import asyncio
import csv
import io
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import orjson
from asgiref.sync import sync_to_async
from django.db import close_old_connections, connection
from django.db.models import QuerySet

from apps.audit.models import APIRequest
from apps.audit.pages import Position, older_than
from apps.core.domain_errors import DomainError
from apps.core.money import format_multiplier, format_usd

ROWS_MAX: Final = 1_000_000
PAGE_ROWS: Final = 1_000
# Calls that are recorded while the file is written and began within it go in as well.
PAGES_MAX: Final = ROWS_MAX // PAGE_ROWS + 100
# How long a file may take in all: with ROWS_MAX calls one of half a gigabyte, at 2 Mbit a second.
EXPORT_SECONDS_MAX: Final = 1_800.0
# What one process writes at once: each file keeps a thread and a connection busy. A user has one
# place, and the last ones are kept for who exports the calls of all.
EXPORTS_MAX: Final = 3
EXPORTS_RESERVED: Final = 1
CONTENT_TYPES: Final = {"csv": "text/csv; charset=utf-8", "jsonl": "application/x-ndjson"}
# The longest that a client may take over one page.
_PAGE_SECONDS: Final = 60.0
_BUSY_SECONDS: Final = 10
# Between two pages, so that a long file leaves the processor to calls.
_PAUSE_SECONDS: Final = 0.01
# What makes a spreadsheet take a text for a formula, also in full width.
_FORMULA_STARTS: Final = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
_RENAMED: Final = {
    "charge": "charge_nanos",
    "cost": "cost_nanos",
    "hold": "hold_nanos",
    "late_charges": "late_charges_nanos",
    "multiplier": "multiplier_millionths",
}


class TooManyExports(DomainError):
    """Other files are being written, or one of this user's."""

    status_code = 429
    code = "busy"
    message = "Other exports are running, or one of yours. Try again when it has ended."


class ExportTooLarge(DomainError):
    """More calls match than one file takes."""

    status_code = 400
    code = "export_too_large"
    message = (
        f"More than {ROWS_MAX} calls match. Narrow them down with started_after and started_before."
    )


class ExportUnfinished(Exception):
    """The file would grow beyond its bound, or takes too long: it breaks off."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How an export ended."""

    rows: int
    is_complete: bool


@dataclass(frozen=True, slots=True)
class _Page:
    rows: int
    text: bytes
    position: Position | None  # of its last row; None where there is none


class _Places:
    """Who writes a file at this moment. For any thread."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self.user_ids: set[int] = set()

    def take(self, user_id: int, *, with_reserved: bool) -> None:
        """Take a place. Raises TooManyExports."""
        room = EXPORTS_MAX if with_reserved else EXPORTS_MAX - EXPORTS_RESERVED
        with self._guard:
            if user_id in self.user_ids or len(self.user_ids) >= room:
                raise TooManyExports(retry_after_seconds=_BUSY_SECONDS)
            self.user_ids.add(user_id)

    def give_back(self, user_id: int) -> None:
        """Let the next one in."""
        with self._guard:
            self.user_ids.remove(user_id)


_places: Final = _Places()


@dataclass(slots=True)
class Export:
    """Writes calls as bytes, once. Whoever made it iterates it or closes it.

    `on_end` is called once, in the thread of the database, however it ends.
    """

    rows: QuerySet[APIRequest]
    names: Sequence[str]
    format: str
    user_id: int
    on_end: Callable[[Ended], None]
    _written: int = 0
    _is_complete: bool = False
    _is_open: bool = True
    _guard: threading.Lock = field(default_factory=threading.Lock)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        """Yield the file in pieces."""
        position: Position | None = None
        patience = _Patience()
        loop = asyncio.get_running_loop()
        until = loop.time() + EXPORT_SECONDS_MAX
        try:
            if self.format == "csv":
                yield csv_lines([self.names])
            for _ in range(PAGES_MAX):
                page = await sync_to_async(self._read_page)(position)
                if page.position is None:
                    self._is_complete = True
                    return
                if loop.time() >= until:
                    break
                position = page.position
                with patience:
                    yield page.text
                self._written += page.rows
                await asyncio.sleep(_PAUSE_SECONDS)
            raise ExportUnfinished
        finally:
            patience.end()
            await sync_to_async(self.close)()

    def _read_page(self, position: Position | None) -> _Page:
        """Return the next rows as text, in the database's thread: the loop has calls to serve."""
        columns = [_RENAMED.get(name, name) for name in self.names]
        wanted = older_than(self.rows, position).values_list("started_at", "id", *columns)
        found = list(wanted[:PAGE_ROWS])
        if not found:
            return _Page(0, b"", None)
        write = write_csv if self.format == "csv" else write_jsonl
        text = write(self.names, [row[2:] for row in found])
        return _Page(len(found), text, (found[-1][0], found[-1][1]))

    def close(self) -> None:
        """Give the place back, say how it ended, and let the connection go. Safe to repeat."""
        with self._guard:
            was_open, self._is_open = self._is_open, False
        if not was_open:
            return
        try:
            self.on_end(Ended(self._written, self._is_complete))
        finally:
            _places.give_back(self.user_id)
            if not connection.in_atomic_block:
                # Who streams ends the request by itself, and might not when it is cancelled.
                close_old_connections()


class _Patience:
    """Cancels the task that sends a page when the client takes too long over it."""

    def __init__(self) -> None:
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        task = asyncio.current_task()
        if task is not None:
            self._timer = asyncio.get_running_loop().call_later(_PAGE_SECONDS, task.cancel)

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Wait no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def begin_export(
    *,
    rows: QuerySet[APIRequest],
    names: Sequence[str],
    format: str,
    user_id: int,
    with_reserved: bool,
    on_begin: Callable[[], None],
    on_end: Callable[[Ended], None],
) -> Export:
    """Take a place of `user_id` and return the export. Raises TooManyExports and ExportTooLarge.

    `with_reserved`: the places that are kept may be taken. `on_begin` is called when nothing can
    refuse it any more.
    """
    _places.take(user_id, with_reserved=with_reserved)
    try:
        # Without what is looked up for each of them.
        if rows.order_by().values("pk")[: ROWS_MAX + 1].count() > ROWS_MAX:
            raise ExportTooLarge
        on_begin()
    except BaseException:
        _places.give_back(user_id)
        raise
    return Export(rows, names, format, user_id, on_end)


def write_csv(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    """Return rows as lines of CSV."""
    writers = [_WRITERS.get(name, _write_cell) for name in names]
    return csv_lines(
        [write(value) for write, value in zip(writers, row, strict=True)] for row in rows
    )


def write_jsonl(names: Sequence[str], rows: Sequence[Sequence[Any]]) -> bytes:
    """Return rows as lines of JSON."""
    writers = [_JSON_WRITERS.get(name, _write_plain) for name in names]
    return b"".join(
        orjson.dumps(
            {name: write(value) for name, write, value in zip(names, writers, row, strict=True)},
            option=orjson.OPT_APPEND_NEWLINE,
        )
        for row in rows
    )


def csv_lines(rows: Iterable[Sequence[Any]]) -> bytes:
    """Return lines of CSV."""
    text = io.StringIO(newline="")
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _write_cell(value: Any) -> Any:
    """Return what goes into a cell: no text that a spreadsheet would run as a formula."""
    plain = _write_plain(value)
    if isinstance(plain, bool):
        return "true" if plain else "false"
    if not isinstance(plain, str):
        return plain
    text = plain.replace("\x00", "")
    return f"'{text}" if text.startswith(_FORMULA_STARTS) else text


def _write_plain(value: Any) -> Any:
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, bytes | memoryview):
        return bytes(value).hex()
    return value


def _write_usd(nanos: int | None) -> str | None:
    return None if nanos is None else format_usd(nanos)


_WRITERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    "charge": _write_usd,
    "cost": _write_usd,
    "hold": _write_usd,
    "late_charges": _write_usd,
    "multiplier": format_multiplier,
}
_JSON_WRITERS: Final[Mapping[str, Callable[[Any], Any]]] = {
    **_WRITERS,
    "counts": lambda text: orjson.loads(text) if text else {},
}
