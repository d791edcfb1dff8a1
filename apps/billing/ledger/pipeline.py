"""Statements in one round trip, straight over libpq.

A batch of the ledger is some ten statements whose parameters are a few arrays and JSON texts. A
cursor for each took longer than the database (docs/decisions/0013), so they are sent from here:
parsed once a connection, all values as text, results read where they stand.

Errors are psycopg's own classes. After one the caller's transaction has to be rolled back.
"""

from __future__ import annotations

import select
from collections.abc import Iterable, Sequence
from typing import Any, Final, Protocol
from uuid import UUID
from zlib import crc32

import psycopg
from psycopg import pq

_FAILED: Final = (pq.ExecStatus.FATAL_ERROR, pq.ExecStatus.BAD_RESPONSE)
_ENCODING: Final = "utf-8"

_OWN: Final = True  # the result of a statement itself

Text = bytes | None
_Wanted = bool | str | None  # _OWN, the SQL that is parsed, or nothing that anybody asked for
Statement = tuple[str, Sequence[Text]]  # with $1, $2 … and a cast at each of them


class Result(Protocol):
    """What a statement returned: libpq's result."""

    ntuples: int
    nfields: int

    def get_value(self, row_number: int, column_number: int) -> bytes | None: ...


class Pipeline:
    """Sends statements on one connection. Belongs to one thread."""

    def __init__(self, connection: psycopg.Connection[Any], *, prepares: bool) -> None:
        """`prepares`: the connection is ours alone, so statements can stay parsed on it."""
        self._connection = connection
        self._prepares = prepares
        self._names: dict[str, bytes] = {}
        self._number = 0  # of the statements that were ever parsed

    def run(self, statements: Sequence[Statement]) -> list[Result]:
        """Run statements in one round trip and return their results.

        Raises the error of the first that failed; those after it have not run.
        """
        connection = self._connection.pgconn
        with self._connection.lock:
            connection.enter_pipeline_mode()
            new: dict[str, bytes] = {}
            try:
                wanted: list[_Wanted] = []
                if self._has_to_begin():
                    connection.send_query_params(b"BEGIN", ())
                    wanted.append(None)
                for sql, values in statements:
                    wanted += self._send(connection, sql, values, new)
                connection.pipeline_sync()
                results, error = self._collect(connection, wanted, new)
                connection.exit_pipeline_mode()
            except BaseException:
                # Between two statements nothing can be taken up again.
                connection.finish()
                raise
        if error is not None:
            for sql in new:  # to be parsed, but behind the one that failed, or itself wrong
                self._names.pop(sql, None)
            raise error
        return results

    def _has_to_begin(self) -> bool:
        """Return whether psycopg, asked to run a statement, would open a transaction first."""
        is_idle = self._connection.info.transaction_status == pq.TransactionStatus.IDLE
        return is_idle and not self._connection.autocommit

    def _send(
        self, connection: Any, sql: str, values: Sequence[Text], new: dict[str, bytes]
    ) -> list[_Wanted]:
        """Send a statement; return what each result to come is of."""
        if not self._prepares:
            connection.send_query_params(sql.encode(), values)
            return [_OWN]
        name = self._names.get(sql)
        if name is not None:
            connection.send_query_prepared(name, values)
            return [_OWN]
        self._number += 1
        name = self._names[sql] = new[sql] = _name(sql, self._number)
        connection.send_prepare(name, sql.encode())
        connection.send_query_prepared(name, values)
        return [sql, _OWN]

    def _collect(
        self, connection: Any, wanted: Sequence[_Wanted], new: dict[str, bytes]
    ) -> tuple[list[Result], psycopg.Error | None]:
        """Read all results up to the end of the pipeline; take out of `new` what was parsed.

        What was stays so, whatever fails behind it.
        """
        poller = select.poll()
        descriptor: int = connection.socket
        results: list[Result] = []
        error: psycopg.Error | None = None
        is_flushed = False
        seen = 0
        while True:  # bounded by the statement timeout, or whoever cuts the connection
            if not is_flushed:
                is_flushed = connection.flush() == 0
            while not connection.is_busy():
                result = connection.get_result()
                if result is None:
                    continue  # The end of one statement's results.
                status = result.status
                if status == pq.ExecStatus.PIPELINE_SYNC:
                    if seen < len(wanted):
                        raise psycopg.OperationalError("fewer results than statements")
                    return results, error
                if status in _FAILED:
                    error = error or psycopg.errors.error_from_result(result, _ENCODING)
                elif (of := wanted[seen]) is _OWN:
                    results.append(result)
                elif isinstance(of, str) and status == pq.ExecStatus.COMMAND_OK:
                    new.pop(of, None)
                seen += 1
            events = select.POLLIN if is_flushed else select.POLLIN | select.POLLOUT
            poller.register(descriptor, events)
            poller.poll()
            connection.consume_input()


def _name(sql: str, number: int) -> bytes:
    """Return under which name a statement is parsed.

    It tells the statement: where a pooler gives a session of another gateway's in the middle, none
    with the same number runs in its place.
    """
    return b"ledger_%d_%08x" % (number, crc32(sql.encode()))


def integers(values: Iterable[int]) -> bytes:
    """Return an array of numbers."""
    return b"{%b}" % ",".join(map(str, values)).encode()


def uuids(values: Iterable[UUID]) -> bytes:
    """Return an array of UUIDs."""
    return b"{%b}" % ",".join([value.hex for value in values]).encode()


def labels(values: Iterable[str]) -> bytes:
    """Return an array of our own words."""
    return b"{%b}" % ",".join(values).encode()


def digests(values: Iterable[bytes]) -> bytes:
    """Return an array of bytea."""
    return b"{%b}" % ",".join([f'"\\\\x{value.hex()}"' for value in values]).encode()


def bytea(value: bytes) -> bytes:
    """Return one bytea."""
    return b"\\x" + value.hex().encode()


def integer(value: bytes | None) -> int:
    """Read a number."""
    assert value is not None  # noqa: S101 (the column is NOT NULL)
    return int(value)


def digest(value: bytes | None) -> bytes:
    """Read a bytea, as PostgreSQL writes it: `\\x` and hexadecimal."""
    assert value is not None  # noqa: S101 (the column is NOT NULL)
    return bytes.fromhex(value[2:].decode())


def text(value: bytes | None) -> str:
    """Read a text."""
    assert value is not None  # noqa: S101 (the column is NOT NULL)
    return value.decode()


def uuid(value: bytes | None) -> UUID:
    """Read a UUID."""
    return UUID(text(value))
