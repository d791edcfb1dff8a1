"""What is noted for the heartbeat, where the database does not take it."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, cast
from uuid import UUID

import pytest

from apps.billing import pending
from apps.billing.ledger.store import Engine
from apps.billing.pending import Notes

MINUTE = datetime(2026, 11, 21, 12, 30, tzinfo=UTC)
CALLS = tuple(UUID(int=number) for number in range(3))


def nothing() -> None:
    """Do nothing."""


@dataclass(slots=True)
class Table:
    """A database: it keeps what it is given, or breaks while it is written to."""

    is_broken: bool = False
    during: Callable[[], None] = nothing
    checkpoints: list[tuple[UUID, str]] = field(default_factory=list)
    refusals: list[tuple[int, str, datetime, int]] = field(default_factory=list)

    def checkpoint(self, rows: Sequence[tuple[UUID, str]]) -> None:
        self._take(self.checkpoints, rows)

    def count_refusals(self, rows: Sequence[tuple[int, str, datetime, int]]) -> None:
        self._take(self.refusals, rows)

    def _take(self, kept: list[Any], rows: Sequence[Any]) -> None:
        self.during()
        if self.is_broken:
            raise sqlite3.OperationalError("disk I/O error")
        kept.extend(rows)


def write(notes: Notes, table: Table) -> None:
    """Write all, as two duties do."""
    for one in (notes.write_checkpoints, notes.write_refusals):
        try:
            one(cast(Engine, table))
        except sqlite3.OperationalError:
            assert table.is_broken


def test_what_could_not_be_written_is_written_once_with_a_later_heartbeat() -> None:
    notes = Notes()
    notes.add_checkpoint(CALLS[0], "first")
    notes.add_refusal(7, "E22", MINUTE)
    table = Table()

    write(notes, Table(is_broken=True))
    notes.add_refusal(7, "E22", MINUTE)
    notes.add_refusal(8, "E22", MINUTE)
    write(notes, table)
    write(notes, table)

    assert table.checkpoints == [(CALLS[0], "first")]
    assert table.refusals == [(7, "E22", MINUTE, 2), (8, "E22", MINUTE, 1)]


def test_what_came_while_a_write_failed_is_newer_and_who_ended_then_is_forgotten() -> None:
    notes = Notes()
    for call in CALLS:
        notes.add_checkpoint(call, "before")

    def go_on() -> None:
        notes.add_checkpoint(CALLS[0], "after")
        notes.drop_checkpoint(CALLS[1])

    table = Table()

    with pytest.raises(sqlite3.OperationalError):
        notes.write_checkpoints(cast(Engine, Table(is_broken=True, during=go_on)))
    write(notes, table)

    assert table.checkpoints == [(CALLS[0], "after"), (CALLS[2], "before")]


def test_a_call_that_goes_on_while_it_is_written_is_written_again() -> None:
    notes = Notes()
    notes.add_checkpoint(CALLS[0], "before")
    table = Table(during=lambda: notes.add_checkpoint(CALLS[0], "after"))

    notes.write_checkpoints(cast(Engine, table))
    table.during = nothing
    write(notes, table)

    assert table.checkpoints == [(CALLS[0], "before"), (CALLS[0], "after")]


def test_kinds_for_which_there_is_no_room_are_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(pending, "_REFUSALS_MAX", 2)
    caplog.set_level(logging.WARNING)
    notes, table = Notes(), Table()
    for key in (1, 2, 1, 3, 3, 4):
        notes.add_refusal(key, "E22", MINUTE)

    def come() -> None:
        notes.add_refusal(5, "E22", MINUTE)

    with pytest.raises(sqlite3.OperationalError):
        notes.write_refusals(cast(Engine, Table(is_broken=True, during=come)))
    write(notes, table)
    write(notes, table)

    assert table.refusals == [(1, "E22", MINUTE, 2), (5, "E22", MINUTE, 1)]
    assert [record.getMessage() for record in caplog.records] == [
        "3 refused calls are not counted: of more than 2 kinds",
        "1 refused calls are not counted: of more than 2 kinds",
    ]
