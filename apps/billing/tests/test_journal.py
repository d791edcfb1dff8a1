"""What the journal promises about disks that fill up and processes that die."""

from __future__ import annotations

import errno
import fcntl
import os
from pathlib import Path

import pytest

from apps.billing.chains import ADDED_FIELDS
from apps.billing.journal import Journal, JournalFull, keep_all
from apps.billing.tests.journal_kit import (
    bytes_of,
    disk_with_room_for,
    resolve,
    write_as_a_process_that_died,
)


def test_a_settlement_is_read_as_it_was_written(journal: Journal) -> None:
    journal.append([resolve(1), resolve(2)])

    assert journal.read(10) == [resolve(1), resolve(2)]
    assert len(journal) == 2


def test_a_settlement_of_an_older_gateway_is_read_without_tier_and_counts(
    journal: Journal,
) -> None:
    row = {key: value for key, value in resolve(1).row.items() if key not in ADDED_FIELDS}
    journal.append([resolve(1)._replace(row=row)])

    assert journal.read(10)[0].row == row | dict.fromkeys(ADDED_FIELDS, "")


def test_attempts_of_an_older_gateway_are_read_without_what_was_added(journal: Journal) -> None:
    (attempt,) = resolve(1).attempts
    older = {key: attempt[key] for key in ("id", "request_id", "started_at")}
    journal.append([resolve(1)._replace(attempts=(older,))])

    assert journal.read(10)[0].attempts == ({**older, "changes": "", "cost_nanos": None},)


def test_what_is_in_the_database_is_dropped_oldest_first(journal: Journal, tmp_path: Path) -> None:
    journal.append([resolve(number) for number in range(1, 6)])

    first = journal.read(2)
    journal.discard(2)
    journal.append([resolve(6)])
    rest = journal.read(10)
    journal.discard(4)

    assert first == [resolve(1), resolve(2)]
    assert rest == [resolve(3), resolve(4), resolve(5), resolve(6)]
    assert (len(journal), journal.read(10), bytes_of(tmp_path)) == (0, [], b"")


def test_an_emptied_journal_takes_settlements_again(journal: Journal) -> None:
    journal.append([resolve(1)])
    journal.discard(1)
    journal.append([resolve(2)])

    assert journal.read(10) == [resolve(2)]


def test_nothing_is_ever_rewritten_while_settlements_wait(journal: Journal, tmp_path: Path) -> None:
    journal.append([resolve(1), resolve(2)])
    before = bytes_of(tmp_path)

    journal.discard(1)

    assert bytes_of(tmp_path) == before


def test_a_write_that_does_not_fit_counts_for_nothing(journal: Journal, tmp_path: Path) -> None:
    journal.append([resolve(1)])
    size = len(bytes_of(tmp_path))

    with disk_with_room_for(size + 50), pytest.raises(JournalFull):
        journal.append([resolve(2), resolve(3)])
    meanwhile = journal.read(10)
    journal.append([resolve(4)])

    assert meanwhile == [resolve(1)]
    assert journal.read(10) == [resolve(1), resolve(4)]
    assert len(journal) == 2


def test_what_follows_a_write_that_did_not_fit_is_replayed(
    journal: Journal, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest of the failed write cannot be cut off: it is read with what is replayed."""

    def fail(*_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    journal.append([resolve(1)])
    size = len(bytes_of(tmp_path))
    monkeypatch.setattr(os, "ftruncate", fail)
    with disk_with_room_for(2 * size + 50), pytest.raises(JournalFull):
        journal.append([resolve(2), resolve(2)])
    monkeypatch.undo()
    assert journal.read(10) == [resolve(1)]
    journal.discard(1)

    journal.append([resolve(3), resolve(4)])
    replayed = journal.read(10)
    journal.discard(len(replayed))

    assert replayed == [resolve(3), resolve(4)]
    assert (len(journal), bytes_of(tmp_path)) == (0, b"")


@pytest.mark.parametrize("is_removed", [False, True])
def test_a_file_that_others_take_for_abandoned_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_removed: bool
) -> None:
    """Another process looks at it between its making and its lock."""
    lock = fcntl.flock
    looked_at: list[Path] = []

    def look_first(descriptor: int, kind: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if path.suffix == ".jsonl" and not looked_at:
            looked_at.append(path)
            path.unlink()
            if not is_removed:
                raise BlockingIOError  # It holds the lock still.
        lock(descriptor, kind)

    monkeypatch.setattr(fcntl, "flock", look_first)

    journal = Journal(tmp_path)
    journal.append([resolve(1)])

    (path,) = tmp_path.glob("*.jsonl")
    assert path.read_bytes()
    assert [found.exists() for found in looked_at] == [False]
    journal.close()


def test_the_journal_has_a_bound(tmp_path: Path) -> None:
    journal = Journal(tmp_path, bytes_max=1_000)
    journal.append([resolve(1)])

    with pytest.raises(JournalFull):
        journal.append([resolve(2)])

    assert journal.read(10) == [resolve(1)]
    journal.close()


def test_nothing_is_removed_while_a_backup_keeps_all(journal: Journal, tmp_path: Path) -> None:
    journal.append([resolve(1)])
    written = bytes_of(tmp_path)
    write_as_a_process_that_died(tmp_path, written)
    other = Journal(tmp_path)
    other.append([resolve(2)])

    with keep_all(tmp_path, seconds_max=5):
        journal.discard(1)
        journal.adopt_abandoned()
        journal.discard(1)
        other.discard(1)
        other.close()
        kept = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        is_empty = len(journal) == 0

    assert is_empty
    assert len(kept) == 3
    assert all(data.startswith(written) for data in kept.values() if b"00000001" in data)
    assert kept["999-dead.jsonl"] == written
    journal.append([resolve(3)])
    assert journal.read(10) == [resolve(3)]
    assert written not in journal._own.path.read_bytes()


def test_settlements_that_a_backup_kept_do_not_fill_the_journal(tmp_path: Path) -> None:
    journal = Journal(tmp_path, bytes_max=1_500)
    journal.append([resolve(1)])
    with keep_all(tmp_path, seconds_max=5):
        journal.discard(1)

    journal.append([resolve(2)])

    assert journal.read(10) == [resolve(2)]
    journal.close()


def test_a_closed_journal_keeps_what_waits_and_removes_what_is_empty(tmp_path: Path) -> None:
    first, second = Journal(tmp_path), Journal(tmp_path)
    first.append([resolve(1)])

    first.close()
    second.close()

    assert len(os.listdir(tmp_path)) == 1
    third = Journal(tmp_path)
    assert third.adopt_abandoned() == 1
    third.close()


def test_quarantined_settlements_are_never_adopted(journal: Journal, tmp_path: Path) -> None:
    journal.quarantine(resolve(1))
    journal.quarantine(resolve(2))

    adopted = journal.adopt_abandoned()

    assert adopted == 0
    assert (tmp_path / "quarantine").read_bytes().count(b"\n") == 2


def test_only_the_owner_may_read_what_is_written(journal: Journal, tmp_path: Path) -> None:
    journal.append([resolve(1)])
    journal.quarantine(resolve(2))

    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o600}


def test_a_read_ends_where_it_passes_its_bytes(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    journal.append([resolve(1), resolve(2), resolve(3)])

    assert journal.read(10, bytes_max=1) == [resolve(1)]
    assert journal.read(10) == [resolve(1), resolve(2), resolve(3)]
    journal.close()
