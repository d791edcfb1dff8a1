"""What a verification finds, and the one consistent view of the database in which it looks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal
from uuid import UUID

from django.db import connection

from apps.core.moments import one_moment

# What is kept of a verification; more of it would not help anyone.
FINDINGS_MAX: Final = 1_000
_CHUNK_ROWS: Final = 2_000

Params = Sequence[int | str]
ChainName = Literal["account", "incarnation"]
Chain = tuple[ChainName, int]  # and its id


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it must be."""

    invariant: str  # for example I-02
    subject: str  # what is off, for example "account 12"
    expected: str
    found: str
    message: str

    def __str__(self) -> str:
        return f"{self.invariant} {self.subject}: {self.message}"


@dataclass(slots=True)
class Findings:
    """Collects findings; of more than FINDINGS_MAX only the number is kept.

    In a ledger that was just restored, holds of dead owners are as they must be: they are counted
    and are no findings.
    """

    items: list[Finding] = field(default_factory=list)
    omitted: int = 0
    # Chains of which something is off, beside what their walk itself found.
    doubted: set[Chain] = field(default_factory=set)
    is_just_restored: bool = False
    orphaned_holds: int = 0

    @property
    def count(self) -> int:
        """Return how many there are, also of those that are not kept."""
        return len(self.items) + self.omitted

    def doubt(self, chain: ChainName, chain_id: int) -> None:
        """Keep a chain from counting as verified."""
        self.doubted.add((chain, chain_id))

    def add(
        self, invariant: str, subject: str, *, expected: object, found: object, message: str
    ) -> None:
        """Note a finding."""
        if len(self.items) >= FINDINGS_MAX:
            self.omitted += 1
            return
        self.items.append(Finding(invariant, subject, str(expected), str(found), message))

    def add_amount(
        self, invariant: str, subject: str, *, expected: int, found: int, what: str
    ) -> None:
        """Note that an amount is off, and by how much."""
        self.add(
            invariant,
            subject,
            expected=expected,
            found=found,
            message=f"{what} is {found}, expected {expected}: off by {found - expected} nanos",
        )


@contextmanager
def one_view() -> Iterator[None]:
    """Let all that is read inside be as of one moment, without hindering anyone who writes.

    Inside a transaction of the caller the view is the caller's own.
    """
    is_own = not connection.in_atomic_block
    with one_moment():
        if is_own and connection.vendor == "postgresql":
            with connection.cursor() as cursor:
                # A verification of everything takes longer than any request may.
                cursor.execute("SET LOCAL statement_timeout = '30min'")
                cursor.execute("SET LOCAL idle_in_transaction_session_timeout = '10min'")
        yield


def stream(sql: str, params: Params = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the rows of a query without holding them all; only inside `one_view`."""
    with connection.chunked_cursor() as cursor:
        cursor.execute(sql, params)
        while rows := cursor.fetchmany(_CHUNK_ROWS):
            yield from rows


def fetch(sql: str, params: Params = ()) -> list[tuple[Any, ...]]:
    """Return the rows of a query that has few."""
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return list(cursor.fetchall())


def limited(sql: str) -> str:
    """Return a query for as many rows as are kept of its findings, and one more."""
    return f"{sql} LIMIT {FINDINGS_MAX + 1}"


def as_uuid(value: UUID | str) -> UUID:
    """Return an id as PostgreSQL and SQLite give it."""
    return value if isinstance(value, UUID) else UUID(hex=value)


def as_moment(value: datetime | str) -> datetime:
    """Return a moment as PostgreSQL and SQLite give it."""
    moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
